"""Triangle meshes: rigid parts, grids, Loop subdivision, and small helpers of geometry.

Triangles are wound so that `cross(b - a, c - a)` points out of the surface.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse


def smoothstep(x, low, high):
    """Rises smoothly from 0 at `low` to 1 at `high`, which may be the smaller one."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def rotation_about_x(angle: float) -> np.ndarray:
    """Returns the (3, 3) rotation that turns the viewing direction (-z) down (+y)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def rotation_about_y(angle: float) -> np.ndarray:
    """Returns the (3, 3) rotation that turns the viewing direction (-z) right (+x)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


@dataclass
class MeshPart:
    """A piece of the avatar's mesh.

    Attributes:
      vertices: Positions in the neutral head's frame, (V, 3).
      triangles: Vertex indices, (T, 3).
      material: Name of the material.
      uv: Texture coordinates, (V, 2), in [0, 1]. Values outside repeat a tileable texture.
      colours: Vertex colours, factors of the texture's colour, (V, 3). None is white.
      opacity: Opacity of each vertex for materials with strands, (V,). None is opaque.
      head_weight: Skinning weights: how much each vertex turns with the head (1) or stays with the
        shoulders (0), (V,). None is 1.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    material: str
    uv: np.ndarray
    colours: np.ndarray | None = None
    opacity: np.ndarray | None = None
    head_weight: np.ndarray | None = None

    def __post_init__(self):
        count = len(self.vertices)
        self.colours = np.ones((count, 3)) if self.colours is None else self.colours
        self.opacity = np.ones(count) if self.opacity is None else self.opacity
        self.head_weight = np.ones(count) if self.head_weight is None else self.head_weight


def grid_triangles(rows: int, cols: int, closed: bool = False) -> np.ndarray:
    """Triangulates a grid of rows x cols vertices.

    Args:
      rows, cols: Size of the grid, whose vertices are numbered row by row.
      closed: Whether the last column is joined to the first.

    Returns:
      (T, 3) vertex indices.
    """
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(cols if closed else cols - 1), indexing="ij")
    d = (c + 1) % cols
    a, b, e, f = r * cols + c, r * cols + d, (r + 1) * cols + c, (r + 1) * cols + d
    return np.concatenate([np.stack([a, b, e], -1), np.stack([b, f, e], -1)]).reshape(-1, 3)


def orient_outwards(points: np.ndarray, triangles: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Flips all triangles (T, 3) if most of them face `centre` (3,)."""
    a, b, c = points[triangles].swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    facing = ((a - centre) * normal).sum()
    return triangles if facing > 0 else triangles[:, ::-1]


def find_edges(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the edges of a mesh.

    Args:
      triangles: Vertex indices, (T, 3).

    Returns:
      edges: (E, 2) vertex indices, the lower one first.
      sides: (T, 3) edge indices of each triangle's sides 01, 12 and 20.
      count: (E,) number of triangles at each edge; 1 at a boundary.
    """
    sides = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    unique, inverse, count = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    return unique, inverse.reshape(-1, 3), count


def subdivide(
    triangles: np.ndarray, vertices: int, corners: tuple[int, ...] = ()
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Performs one step of Loop subdivision.

    Args:
      triangles: Vertex indices, (T, 3).
      vertices: Number of vertices, V.
      corners: Vertices that stay in place: the sharp ends of open boundaries.

    Returns:
      matrix: Sparse (V + E, V) matrix from old positions to new ones. Old vertices keep their
        indices.
      triangles: (4 T, 3) new vertex indices.
    """
    edge, sides, count = find_edges(triangles)
    number = len(edge)
    inner = count == 2
    rows, cols, values = [], [], []

    def add(row, col, value):
        row, col, value = np.broadcast_arrays(row, col, value)
        rows.append(row.ravel()), cols.append(col.ravel()), values.append(value.ravel())

    # Edge points: 3/8 of both ends and 1/8 of both opposite vertices; midpoints at a boundary.
    middle = vertices + np.arange(number)
    add(middle[:, None], edge, np.where(inner, 3 / 8, 1 / 2)[:, None])
    opposite = triangles[:, [2, 0, 1]]
    shared = inner[sides]
    add(vertices + sides[shared], opposite[shared], 1 / 8)
    # Vertex points: Warren's weights inside, those of a cubic spline along a boundary.
    fixed = np.zeros(vertices, bool)
    fixed[list(corners)] = True
    at_rim = np.zeros(vertices, bool)
    at_rim[edge[~inner].ravel()] = True
    valence = np.bincount(edge.ravel(), minlength=vertices)
    beta = np.where(valence == 3, 3 / 16, 3 / (8 * np.maximum(valence, 1)))
    both = np.concatenate([edge, edge[:, ::-1]])
    rim = np.concatenate([~inner, ~inner])
    move = ~fixed[both[:, 0]]
    keep = np.where(fixed, 1.0, np.where(at_rim, 3 / 4, 1 - valence * beta))
    add(np.arange(vertices), np.arange(vertices), keep)
    use = move & ~at_rim[both[:, 0]]
    add(both[use, 0], both[use, 1], beta[both[use, 0]])
    use = move & rim
    add(both[use, 0], both[use, 1], 1 / 8)
    matrix = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(cols))),
        (vertices + number, vertices),
    )
    a, b, c = triangles.T
    ab, bc, ca = (vertices + sides).T
    quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return matrix, np.concatenate([np.stack(q, 1) for q in quarters]).astype(np.int32)


def refine(
    triangles: np.ndarray, vertices: int, steps: int, corners: tuple[int, ...] = ()
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Performs several steps of `subdivide`; returns one matrix and the final triangles."""
    total = sparse.identity(vertices, format="csr")
    for _ in range(steps):
        matrix, triangles = subdivide(triangles, total.shape[0], corners)
        total = (matrix @ total).tocsr()
    return total, triangles


def fit_control_points(
    matrix: sparse.csr_matrix, points: np.ndarray, rounds: int = 6
) -> np.ndarray:
    """Fits control points whose subdivision surface (nearly) passes through given points.

    Args:
      matrix: Subdivision matrix of `refine`, (M, N).
      points: Positions that the first N refined vertices should have, (N, D).
      rounds: Number of fixed-point iterations. More of them amplify fine detail.

    Returns:
      (N, D) control points.
    """
    even = matrix[: len(points)]
    control = points.copy()
    for _ in range(rounds):
        control += points - even @ control
    return control
