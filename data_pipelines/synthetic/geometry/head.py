"""The parts of a portrait besides the face: skull, ears, neck and shoulders."""

import numpy as np
from scipy.spatial import cKDTree

from .face_model import OVAL, SURFACE
from .mesh import MeshPart, grid_triangles, orient_outwards

CENTRE = np.array([0.0, -0.45, 1.2])  # Centre of the skull, an ellipsoid.
_RADII = np.array([1.22, 1.42, 1.55])
_RINGS = (0.07, 0.18, 0.34, 0.52, 0.72, 0.9)  # Shares of the way from the face's rim to the pole.
_POLE = np.array([0.0, 0.1, 1.0]) / np.hypot(0.1, 1.0)  # Direction of the back of the head.
CLOTH, SKIN, NECK = "cloth", "skin", "neck"  # Materials.
_JAW_ROW = 4  # Of the neck's 13 rows, the one at the jaw.
_COLLAR, _NECK_LENGTH = 2.71, 0.74  # y of the collar's front, and the visible neck above it.


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


def _revolve(profile, columns, centre_z):
    """Builds a closed grid from rings, each given as (y, half width, half depth, z offset)."""
    angle = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    rows = []
    for y, width, depth, shift in profile:
        rows.append(
            np.stack(
                [
                    width * np.sin(angle),
                    np.full(columns, y),
                    centre_z + shift - depth * np.cos(angle),
                ],
                1,
            )
        )
    return np.stack(rows), angle


def make_neck(width: float, chin: float) -> list[MeshPart]:
    """Makes the neck, from inside the skull to below the collar.

    Args:
      width: Factor of the neck's thickness.
      chin: y of the chin.
    """
    y = np.linspace(0.9, 3.3, 13)
    t = (y - y[0]) / (y[-1] - y[0])
    w = (0.75 + 0.10 * t**2 + 0.55 * np.clip(t - 0.72, 0, 1) * 2) * width
    profile = np.stack([y, w, 0.765 + 0.13 * t * width, 0.06 + 0.16 * t], 1)
    points, angle = _revolve(profile, 32, 1.38)
    # The larynx, faintly.
    front = np.exp(-((np.minimum(angle, 2 * np.pi - angle) / 0.22) ** 2))
    bump = np.exp(-(((y - 2.35) / 0.2) ** 2))
    points[..., 2] -= 0.035 * bump[:, None] * front[None]
    cover = np.exp(-(((y - chin - 0.05) / 0.34) ** 2))  # The chin's shadow.
    shade = 1 - 0.62 * cover[:, None] * (0.5 + 0.5 * np.cos(angle))[None] ** 0.7
    flat = points.reshape(-1, 3)
    uv = np.stack(
        [
            (1.2 * np.clip(np.arctan2(flat[:, 0], 1.38 - flat[:, 2]), -1.6, 1.6) + 2.1) / 4.2,
            0.90 + 0.05 * np.cos(2.6 * flat[:, 1]),  # Back and forth in a region of plain skin.
        ],
        1,
    )
    colours = np.repeat(shade.reshape(-1, 1), 3, 1) * 0.97
    colours[:, 1:] = colours[:, 1:] ** 1.12  # Light that was scattered in skin is redder.
    follow = np.clip(1 - (y - 1.2) / 1.6, 0, 1)
    follow = np.repeat((follow * follow * (3 - 2 * follow))[:, None], 32, 1).reshape(-1)
    parts = []
    # Rows behind the jaw and the mouth use the face texture, rows below it the neck's own.
    for material, rows in ((SKIN, slice(0, _JAW_ROW + 1)), (NECK, slice(_JAW_ROW, 13))):
        use = slice(32 * rows.start, 32 * rows.stop)
        count = rows.stop - rows.start
        triangles = orient_outwards(
            flat[use], grid_triangles(count, 32, closed=True), flat[use].mean(0)
        )
        place = uv[use].copy()
        if material == NECK:
            place[:, 1] = np.repeat(np.linspace(0, 1, count), 32)
        parts.append(
            MeshPart(flat[use], triangles, material, place, colours[use], head_weight=follow[use])
        )
    return parts


def make_torso(width: float, chin: float) -> MeshPart:
    """Makes the shoulders and the collar.

    Args:
      width: Thickness of the neck, see `Shape`.
      chin: y of the chin. Shoulders are raised where the neck would be too long.
    """
    profile = np.array(
        [
            (2.54, 0.90, 0.86, 0.10), (2.47, 0.96, 0.93, 0.10), (2.53, 1.10, 0.99, 0.10),
            (2.67, 1.45, 1.05, 0.10), (2.88, 1.9, 1.08, 0.10), (3.06, 2.35, 1.1, 0.08),
            (3.32, 2.7, 1.15, 0.05), (3.7, 2.9, 1.25, 0.0), (4.3, 2.98, 1.35, -0.05),
            (5.6, 2.9, 1.4, -0.05),
        ]
    )  # fmt: skip
    profile[:, 1:3] *= 0.94 + 0.06 * width
    points, angle = _revolve(profile, 48, 1.42)
    # The collar dips in front.
    dip = np.linspace(1, 0, len(profile))[:, None] ** 1.5 * (0.24 * np.cos(angle) ** 3)[None]
    points[..., 1] += dip
    points[..., 1] -= np.clip(_COLLAR - chin - _NECK_LENGTH, 0, 0.2)
    flat = points.reshape(-1, 3)
    uv = np.stack([flat[:, 0] * 0.22 + 0.5, flat[:, 1] * 0.22], 1)
    shade = np.ones((len(profile), 48))
    shade[0] = 0.6
    shade[1] = 0.92
    shade[2:5] *= 0.92
    colours = np.repeat(shade.reshape(-1, 1), 3, 1)
    triangles = orient_outwards(flat, grid_triangles(len(profile), 48, closed=True), flat.mean(0))
    return MeshPart(flat, triangles, CLOTH, uv, colours, head_weight=np.zeros(len(flat)))


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
