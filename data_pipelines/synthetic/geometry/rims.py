"""The skin that turns inwards at the boundaries of the mouth and the eyes."""

import numpy as np

from .mesh import MeshPart, grid_triangles

RIM = "rim"  # The material.


def rim_vertices(boundary: np.ndarray, is_mouth: bool) -> np.ndarray:
    """Returns three rows of vertices: a boundary (n, 3), and two rows behind it, (3 n, 3)."""
    outward = boundary - boundary.mean(0)
    outward[:, 2] = 0
    length = np.linalg.norm(outward, axis=1, keepdims=True) + 1e-6
    if is_mouth:
        side = np.clip(outward[:, 1:2] / 0.05, -1, 1) * np.array([[0, 1, 0]])
        inward = -outward / length * np.array([1, 0, 0])
        first = boundary + np.array([0, 0, 0.04]) + 0.012 * side + 0.01 * inward
        second = boundary + np.array([0, 0, 0.15]) + 0.08 * side + 0.04 * inward
    else:
        first = boundary + np.array([0, 0, 0.012]) - 0.010 * outward / length
        second = boundary + np.array([0, 0, 0.09]) + 0.02 * outward / length
    return np.concatenate([boundary, first, second])


def make_rim(boundary: np.ndarray, is_mouth: bool) -> MeshPart:
    """Makes the rim of one boundary; arguments are as in `rim_vertices`."""
    count = len(boundary)
    shade = (0.55, 0.22, 0.03) if is_mouth else (0.85, 0.6, 0.3)
    colour = (0.72, 0.30, 0.28) if is_mouth else (0.62, 0.36, 0.32)
    return MeshPart(
        rim_vertices(boundary, is_mouth),
        grid_triangles(3, count, closed=True),
        RIM,
        np.full((3 * count, 2), 0.5),
        np.repeat(np.array(shade), count)[:, None] * np.array(colour),
    )
