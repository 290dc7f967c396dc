"""Simple solids of one colour: tubes, ellipsoids and bodies of revolution."""

import numpy as np

from .mesh import MeshPart, grid_triangles

MATT, SHINY = "matt", "shiny"  # Materials, whose colour is that of the vertices.


def _colours(colour, count):
    """Returns `count` vertex colours (count, 3) in linear light of a colour in sRGB."""
    return np.tile(np.clip(np.asarray(colour, float), 0, 1) ** 2.2, (count, 1))


def _make_part(points, material, colour, closed=True):
    """Makes a part of rings (N, K, 3), whose uv is their place in the grid, 4 times around."""
    rows, cols = points.shape[:2]
    flat = points.reshape(-1, 3)
    triangles = grid_triangles(rows, cols, closed=closed)
    # The rings' middle line is inside, so that triangles must face away from it.
    middle = np.repeat(points.mean(1), cols, 0)[triangles].mean(1)
    a, b, c = flat[triangles].swapaxes(0, 1)
    facing = ((a - middle) * np.cross(b - a, c - a)).sum()
    triangles = triangles if facing > 0 else triangles[:, ::-1]
    u, v = np.meshgrid(np.arange(cols) / cols, np.arange(rows) / max(rows - 1, 1))
    uv = np.stack([u, v], -1).reshape(-1, 2)
    colours = None if colour is None else _colours(colour, len(flat))
    return MeshPart(flat, triangles, material, uv, colours)


def make_tube(
    path: np.ndarray, radius, material: str, colour=None, sides: int = 8, flat: float = 1.0
) -> MeshPart:
    """Makes a tube with closed ends.

    Args:
      path: Its middle line, (N, 3).
      radius: One radius, or one for each point of the path, (N,).
      material: Name of the material.
      colour: sRGB colour of the vertices in [0, 1], (3,); None is white.
      sides: Number of vertices around it.
      flat: Thickness from front to back over that across, for ribbons.

    Returns:
      The tube; its uv run once around and once along it.
    """
    path = np.asarray(path, float)
    path = np.concatenate([path[:1], path, path[-1:]])
    radius = np.broadcast_to(np.asarray(radius, float), len(path) - 2)
    radius = np.concatenate([[1e-3], radius, [1e-3]])
    ahead = np.gradient(path, axis=0)
    ahead[0], ahead[-1] = ahead[1], ahead[-2]
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9
    # The axis that is least along the tube keeps the cross-sections from turning.
    axis = np.eye(3)[np.abs(ahead).max(0).argmin()]
    across = np.cross(ahead, axis)
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
    third = np.cross(ahead, across)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
    ring = np.cos(angle) * across[:, None] + np.sin(angle) * third[:, None]
    points = path[:, None] + radius[:, None, None] * ring * (1, 1, flat)
    return _make_part(points, material, colour)


def make_ellipsoid(centre, radii, material: str, colour=None, rows: int = 8, cols: int = 12):
    """Makes an ellipsoid around `centre` (3,) with `radii` (3,), see `make_tube`."""
    down, around = np.linspace(0.02, np.pi - 0.02, rows), np.linspace(0, 2 * np.pi, cols + 1)[:-1]
    a, b = np.meshgrid(down, around, indexing="ij")
    unit = np.stack([np.sin(a) * np.sin(b), -np.cos(a), -np.sin(a) * np.cos(b)], -1)
    return _make_part(unit * np.asarray(radii) + np.asarray(centre), material, colour)


def make_revolved(base, axis, profile, material: str, colour=None, sides: int = 16) -> MeshPart:
    """Makes a body of revolution.

    Args:
      base: Start of the axis, (3,).
      axis: Vector from the start to the end of the axis, (3,).
      profile: (share of the axis, radius) of each ring, (N, 2).
      material, colour, sides: See `make_tube`.
    """
    profile = np.asarray(profile, float)
    axis = np.asarray(axis, float)
    across = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    across /= np.linalg.norm(across)
    third = np.cross(axis / np.linalg.norm(axis), across)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
    ring = np.cos(angle) * across + np.sin(angle) * third
    middle = np.asarray(base) + profile[:, :1] * axis
    return _make_part(middle[:, None] + profile[:, 1, None, None] * ring, material, colour)
