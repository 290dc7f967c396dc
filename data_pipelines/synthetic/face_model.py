"""FaceMesh's face as a mesh: a mean face, its triangles, and smooth subdivision.

Units: the distance between the eye centres is 1; x to the image's right, y down, z away from the
viewer; the origin is midway between the eyes. Triangles are counter-clockwise as seen from
outside in an image whose y points down, so that `cross(b - a, c - a)` points out of the head.

`face_model.json` holds the 478 points of a neutral face with closed lips (an average of FaceMesh's
output on painted drawings, made symmetric), 852 triangles (from the edges of FaceMesh's
tessellation, Apache-2.0; mouth and eyes are holes) and every point's mirror partner.
"""

import functools
import json
import pathlib
from dataclasses import dataclass

import numpy as np
from scipy import sparse

POINTS = 478
SURFACE = 468  # of them lie on the skin; the rest are the irises'

UPPER_SEAM = (191, 80, 81, 82, 13, 312, 311, 310, 415)
LOWER_SEAM = (95, 88, 178, 87, 14, 317, 402, 318, 324)
CORNERS = (78, 308)
# Rows of lip points from the red's rim to the seam's neighbours.
UPPER_ROWS = (
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    (76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306),
    (62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292),
)
LOWER_ROWS = (
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
    (76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306),
    (62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292),
)
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
# Left of the image first; upper and lower lid from the outer to the inner corner.
UPPER_LIDS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
    (263, 466, 388, 387, 386, 385, 384, 398, 362),
)
LOWER_LIDS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133),
    (263, 249, 390, 373, 374, 380, 381, 382, 362),
)
IRISES = (468, 473)


@dataclass(frozen=True)
class FaceModel:
    """The neutral mean face.

    Attributes:
      points: (478, 3) float64.
      triangles: (852, 3) int32 into the first 468 points.
      mirror: (478,) int64, every point's partner on the other side.
      uv: (478, 2) float64 texture coordinates in [0, 1].
    """

    points: np.ndarray
    triangles: np.ndarray
    mirror: np.ndarray
    uv: np.ndarray


def texture_coordinates(points: np.ndarray) -> np.ndarray:
    """(..., 3) points of a neutral face to (..., 2) texture coordinates: an unrolled cylinder."""
    angle = np.arctan2(points[..., 0], 1.1 - points[..., 2])
    return np.stack([(1.2 * angle + 2.1) / 4.2, (points[..., 1] + 1.5) / 4.2], -1)


@functools.cache
def load() -> FaceModel:
    """Reads the mean face; the same read-only arrays at every call."""
    text = pathlib.Path(__file__).with_name("face_model.json").read_text("utf-8")
    data = json.loads(text)
    points = np.array(data["points"], np.float64)
    model = FaceModel(
        points,
        np.array(data["triangles"], np.int32),
        np.array(data["mirror"], np.int64),
        texture_coordinates(points),
    )
    for array in (model.points, model.triangles, model.mirror, model.uv):
        array.setflags(write=False)
    return model


def edges(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edges of a triangle mesh.

    Args:
      triangles: (T, 3).

    Returns:
      (E, 2) edges, lower index first; (T, 3) the edge of each triangle's sides 01, 12, 20; (E,)
      how many triangles share it.
    """
    sides = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    unique, inverse, count = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    return unique, inverse.reshape(-1, 3), count


def subdivide(
    triangles: np.ndarray, vertices: int, corners: tuple[int, ...] = ()
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """One step of Loop's subdivision.

    Args:
      triangles: (T, 3).
      vertices: how many there are.
      corners: vertices that stay where they are (sharp ends of open boundaries).

    Returns:
      A sparse (vertices + edges, vertices) matrix from old positions to new ones; old vertices
      keep their index. And the (4 T, 3) new triangles.
    """
    edge, sides, count = edges(triangles)
    number = len(edge)
    inner = count == 2
    rows, cols, values = [], [], []

    def add(row, col, value):
        row, col, value = np.broadcast_arrays(row, col, value)
        rows.append(row.ravel()), cols.append(col.ravel()), values.append(value.ravel())

    # New points: 3/8, 3/8 of the edge's ends and 1/8 of the opposite points; halves at a boundary.
    middle = vertices + np.arange(number)
    add(middle[:, None], edge, np.where(inner, 3 / 8, 1 / 2)[:, None])
    opposite = triangles[:, [2, 0, 1]]
    shared = inner[sides]
    add(vertices + sides[shared], opposite[shared], 1 / 8)
    # Old points: Warren's weights inside, the cubic spline's along a boundary.
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
    """`steps` steps of `subdivide` as one matrix, and the final triangles."""
    total = sparse.identity(vertices, format="csr")
    for _ in range(steps):
        matrix, triangles = subdivide(triangles, total.shape[0], corners)
        total = (matrix @ total).tocsr()
    return total, triangles


def control_points(matrix: sparse.csr_matrix, points: np.ndarray, rounds: int = 6) -> np.ndarray:
    """Control points whose subdivided surface passes (very nearly) through given points.

    Args:
      matrix: (M, N) of `refine`.
      points: (N, D) wanted positions of the first N refined vertices.
      rounds: of the fixed-point iteration, which amplifies fine detail the more, the longer.

    Returns:
      (N, D).
    """
    even = matrix[: len(points)]
    control = points.copy()
    for _ in range(rounds):
        control += points - even @ control
    return control
