"""The parts of a head besides the face: skull and ears."""

import numpy as np
from scipy.spatial import cKDTree

from .face_model import OVAL, SURFACE
from .mesh import MeshPart, grid_triangles, orient_outwards
from .torso import SKIN

CENTRE = np.array([0.0, -0.45, 1.2])  # Centre of the skull, an ellipsoid.
_RADII = np.array([1.22, 1.42, 1.55])
_RINGS = (0.07, 0.18, 0.34, 0.52, 0.72, 0.9)  # Shares of the way from the face's rim to the pole.
_POLE = np.array([0.0, 0.1, 1.0]) / np.hypot(0.1, 1.0)  # Direction of the back of the head.


def skull_radius(direction: np.ndarray) -> np.ndarray:
    """Returns the (N,) distances of the mean skull from `CENTRE` along unit vectors (N, 3)."""
    return 1 / np.sqrt(((direction / _RADII) ** 2).sum(-1))


def extend_face(
    points: np.ndarray, skull: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Extends a face by the back of the head, which grows from the face's rim.

    Args:
      points: Face at rest, (468 or more, 3).
      skull: Height and length of the skull, see `Shape`.

    Returns:
      points: (N, 3) points to append to the first 468.
      triangles: (T, 3) indices into both.
      jaw: (N,) weights with which the new points follow the jaw.
    """
    rim = points[list(OVAL)] - CENTRE
    length = np.linalg.norm(rim, axis=1)
    direction = rim / length[:, None]
    angle = np.arccos(direction @ _POLE)
    side = direction - (direction @ _POLE)[:, None] * _POLE
    side /= np.linalg.norm(side, axis=1)[:, None]
    rings, weights = [], []
    lower = np.clip((points[list(OVAL), 1] - 0.5) / 1.2, 0, 1)
    for f in _RINGS:
        a = angle * (1 - f)
        d = np.cos(a)[:, None] * _POLE + np.sin(a)[:, None] * side
        blend = np.where(lower > 0, f, 1 - (1 - f) ** 3) * (1 - lower) + f**0.9 * lower
        radius = (1 - blend) * length + blend * skull_radius(d) * (1 + 0.04 * skull)
        rings.append(d * radius[:, None] + CENTRE)
        weights.append(lower * max(0.0, 1 - 2.2 * f))
    pole = CENTRE + _POLE * skull_radius(_POLE[None])[0] * (1 + 0.04 * skull)
    new = np.concatenate([*rings, pole[None]])
    n = len(OVAL)
    index = np.concatenate([np.array(OVAL), SURFACE + np.arange(n * len(_RINGS))])
    triangles = index[grid_triangles(len(_RINGS) + 1, n, closed=True)]
    last = SURFACE + n * (len(_RINGS) - 1) + np.arange(n)
    cap = np.stack([last, np.roll(last, -1), np.full(n, SURFACE + n * len(_RINGS))], 1)
    everything = np.concatenate([points[:SURFACE], new])
    triangles = orient_outwards(everything, np.concatenate([triangles, cap]), CENTRE)
    return new, triangles, np.concatenate([*weights, [0.0]])


def make_ears(points: np.ndarray) -> list[MeshPart]:
    """Makes both ears, fitted to the rim of a face (468 or more, 3)."""
    out = []
    for anchor, side in ((234, -1), (454, 1)):
        base = points[anchor] + np.array([-0.05 * side, 0.12, 0.16])
        a = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        rows, tones = [], []
        for r, lift, tone in (
            (1.0, -0.10, 0.9), (1.0, 0.03, 1.0), (0.86, 0.055, 1.02), (0.70, 0.0, 0.72),
            (0.45, -0.01, 0.85), (0.22, -0.05, 0.5), (0.0, -0.05, 0.4),
        ):  # fmt: skip
            # An egg, wide at the top, that leans backwards.
            e = np.stack([np.cos(a) * (0.19 - 0.055 * np.sin(a)), np.sin(a) * 0.34], 1) * r
            back, down = e[:, 0] + 0.05 - 0.18 * e[:, 1], e[:, 1]
            rise = lift + 0.16 + 0.42 * back
            rows.append(np.stack([side * rise, down, back], 1) + base)
            tones.append(np.full(20, tone))
        flat = np.concatenate(rows)
        colours = np.repeat(np.concatenate(tones)[:, None], 3, 1)
        colours[:, 1:] **= 1.15
        uv = np.tile([0.5 + side * 0.19, 0.47], (len(flat), 1))  # The colour of a cheek.
        triangles = grid_triangles(len(rows), 20, closed=True)
        triangles = orient_outwards(flat, triangles, base - np.array([side * 0.3, 0, 0]))
        out.append(MeshPart(flat, triangles, SKIN, uv, colours))
    return out


class HeadSurface:
    """The head's distance from `CENTRE` as a function of direction, on which hair is placed."""

    def __init__(self, points: np.ndarray):
        offset = points - CENTRE
        self.radius = np.linalg.norm(offset, axis=1)
        self.tree = cKDTree(offset / self.radius[:, None])

    def __call__(self, direction: np.ndarray) -> np.ndarray:
        """Returns distances (...) along unit vectors (..., 3)."""
        distance, index = self.tree.query(direction, k=6)
        weight = 1 / (distance + 0.02) ** 2
        return (self.radius[index] * weight).sum(-1) / weight.sum(-1)
