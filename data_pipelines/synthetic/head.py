"""What belongs to a portrait besides the face: skull, ears, neck and shoulders."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.spatial import cKDTree

from data_pipelines.synthetic.face_model import OVAL, SURFACE
from data_pipelines.synthetic.textures import tile_noise

CENTRE = np.array([0.0, -0.45, 1.2])  # of the skull
_RADII = np.array([1.22, 1.42, 1.55])
_RINGS = (0.07, 0.18, 0.34, 0.52, 0.72, 0.9)  # of the way from the face's rim to the occiput
_POLE = np.array([0.0, 0.1, 1.0]) / np.hypot(0.1, 1.0)
HAIR, CLOTH, SKIN, NECK, DARK = "hair", "cloth", "skin", "neck", "dark"
_JAW_ROW = 4  # of the neck's 13
_COLLAR, _NECK_LENGTH = 2.71, 0.74  # the collar's y in front, and what is seen above it


@dataclass
class Part:
    """A rigid piece of mesh.

    Attributes:
      points: (V, 3) in the neutral head's frame.
      triangles: (T, 3).
      material: name of what it is made of.
      uv: (V, 2) in [0, 1] of the material's texture; beyond repeats where it tiles.
      tint: (V, 3) factors to the texture's colour.
      fringe: (V,) solidity, for materials with strands.
      follow: (V,) how much it turns with the head (1) or stays with the shoulders (0).
    """

    points: np.ndarray
    triangles: np.ndarray
    material: str
    uv: np.ndarray
    tint: np.ndarray = None
    fringe: np.ndarray = None
    follow: np.ndarray = field(default=None)

    def __post_init__(self):
        count = len(self.points)
        self.tint = np.ones((count, 3)) if self.tint is None else self.tint
        self.fringe = np.ones(count) if self.fringe is None else self.fringe
        self.follow = np.ones(count) if self.follow is None else self.follow


def grid(rows: int, cols: int, closed: bool = False) -> np.ndarray:
    """(T, 3) triangles of a rows x cols grid of vertices; `closed` joins last column and first."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(cols if closed else cols - 1), indexing="ij")
    d = (c + 1) % cols
    a, b, e, f = r * cols + c, r * cols + d, (r + 1) * cols + c, (r + 1) * cols + d
    return np.concatenate([np.stack([a, b, e], -1), np.stack([b, f, e], -1)]).reshape(-1, 3)


def outwards(points: np.ndarray, triangles: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Turns triangles around if, on the whole, they face towards `centre`."""
    a, b, c = points[triangles].swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    facing = ((a - centre) * normal).sum()
    return triangles if facing > 0 else triangles[:, ::-1]


def skull_radius(direction: np.ndarray) -> np.ndarray:
    """(N,) distance of the plain skull's surface from `CENTRE` along (N, 3) unit directions."""
    return 1 / np.sqrt(((direction / _RADII) ** 2).sum(-1))


def extend(points: np.ndarray, skull: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The back of the head, grown from the face's rim.

    Args:
      points: (468+, 3) a face at rest.
      skull: how much higher and longer than the mean the skull is, in `Shape`'s units.

    Returns:
      (N, 3) points to append to the first 468, triangles over both, and (N,) the jaw's weights.
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
    triangles = index[grid(len(_RINGS) + 1, n, closed=True)]
    last = SURFACE + n * (len(_RINGS) - 1) + np.arange(n)
    cap = np.stack([last, np.roll(last, -1), np.full(n, SURFACE + n * len(_RINGS))], 1)
    everything = np.concatenate([points[:SURFACE], new])
    triangles = outwards(everything, np.concatenate([triangles, cap]), CENTRE)
    return new, triangles, np.concatenate([*weights, [0.0]])


def _revolve(profile, columns, centre_z):
    """Rings (y, half width, half depth, forward shift) as a closed grid of points."""
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


def neck(width: float, chin: float) -> list[Part]:
    """The neck, from inside the skull to under the collar.

    Args:
      width: factor to its thickness.
      chin: y of the chin.
    """
    y = np.linspace(0.9, 3.3, 13)
    t = (y - y[0]) / (y[-1] - y[0])
    w = (0.75 + 0.10 * t**2 + 0.55 * np.clip(t - 0.72, 0, 1) * 2) * width
    profile = np.stack([y, w, 0.765 + 0.13 * t * width, 0.06 + 0.16 * t], 1)
    points, angle = _revolve(profile, 32, 1.38)
    # Sinews and the larynx, faintly.
    front = np.exp(-((np.minimum(angle, 2 * np.pi - angle) / 0.22) ** 2))
    bump = np.exp(-(((y - 2.35) / 0.2) ** 2))
    points[..., 2] -= 0.035 * bump[:, None] * front[None]
    cover = np.exp(-(((y - chin - 0.05) / 0.34) ** 2))  # the chin's shadow
    shade = 1 - 0.62 * cover[:, None] * (0.5 + 0.5 * np.cos(angle))[None] ** 0.7
    flat = points.reshape(-1, 3)
    uv = np.stack(
        [
            (1.2 * np.clip(np.arctan2(flat[:, 0], 1.38 - flat[:, 2]), -1.6, 1.6) + 2.1) / 4.2,
            0.90 + 0.05 * np.cos(2.6 * flat[:, 1]),  # to and fro where the texture is plain skin
        ],
        1,
    )
    tint = np.repeat(shade.reshape(-1, 1), 3, 1) * 0.97
    tint[:, 1:] = tint[:, 1:] ** 1.12  # light that got into skin comes out redder
    follow = np.clip(1 - (y - 1.2) / 1.6, 0, 1)
    follow = np.repeat((follow * follow * (3 - 2 * follow))[:, None], 32, 1).reshape(-1)
    parts = []
    # What lies behind jaw and mouth wears the face's texture, what is seen below them its own.
    for material, rows in ((SKIN, slice(0, _JAW_ROW + 1)), (NECK, slice(_JAW_ROW, 13))):
        use = slice(32 * rows.start, 32 * rows.stop)
        count = rows.stop - rows.start
        triangles = outwards(flat[use], grid(count, 32, closed=True), flat[use].mean(0))
        place = uv[use].copy()
        if material == NECK:
            place[:, 1] = np.repeat(np.linspace(0, 1, count), 32)
        parts.append(Part(flat[use], triangles, material, place, tint[use], follow=follow[use]))
    return parts


def neck_skin(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The neck's texture: the colour of a face texture (N, N, 3) below the chin, smoothed.

    Returns:
      (96, 96, 3) float32 sRGB, over the same azimuth as the face's.
    """
    size = len(face)
    rows = []
    for low, high, blur in ((0.875, 0.895, 1.5), (0.86, 0.95, 5)):
        row = np.median(face[round(low * size) : round(high * size)], 0, keepdims=True)
        row = cv2.resize(row.astype(np.float32), (96, 1), interpolation=cv2.INTER_AREA)
        rows.append(cv2.GaussianBlur(np.repeat(row, 96, 0), (0, 0), blur))
    # At the top it goes on as the face's texture ends there.
    share = np.clip(np.linspace(0, 3, 96), 0, 1)[:, None, None]
    across = rows[0] + share * share * (3 - 2 * share) * (rows[1] - rows[0])
    mottle = 0.018 * tile_noise(rng, 96, (5, 5)) + 0.010 * tile_noise(rng, 96, (1.5, 1.5))
    return np.clip(across * (1 + mottle[..., None] * (0.7, 1.0, 1.1)), 0, 1).astype(np.float32)


def torso(width: float, chin: float) -> Part:
    """Neckline and shoulders in cloth.

    Args:
      width: of the neck, in `Shape`'s units.
      chin: y of the chin; of a neck that would be long, the shoulders are higher.
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
    tint = np.repeat(shade.reshape(-1, 1), 3, 1)
    triangles = outwards(flat, grid(len(profile), 48, closed=True), flat.mean(0))
    return Part(flat, triangles, CLOTH, uv, tint, follow=np.zeros(len(flat)))


def ears(points: np.ndarray) -> list[Part]:
    """Both ears, fitted to the rim of a face (468+, 3)."""
    out = []
    for anchor, side in ((234, -1), (454, 1)):
        base = points[anchor] + np.array([-0.05 * side, 0.12, 0.16])
        a = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        rows, tints = [], []
        for r, lift, tone in (
            (1.0, -0.10, 0.9), (1.0, 0.03, 1.0), (0.86, 0.055, 1.02), (0.70, 0.0, 0.72),
            (0.45, -0.01, 0.85), (0.22, -0.05, 0.5), (0.0, -0.05, 0.4),
        ):  # fmt: skip
            # An egg, wide at the top, that leans back.
            e = np.stack([np.cos(a) * (0.19 - 0.055 * np.sin(a)), np.sin(a) * 0.34], 1) * r
            back, down = e[:, 0] + 0.05 - 0.18 * e[:, 1], e[:, 1]
            rise = lift + 0.16 + 0.42 * back
            rows.append(np.stack([side * rise, down, back], 1) + base)
            tints.append(np.full(20, tone))
        flat = np.concatenate(rows)
        tint = np.repeat(np.concatenate(tints)[:, None], 3, 1)
        tint[:, 1:] **= 1.15
        uv = np.tile([0.5 + side * 0.19, 0.47], (len(flat), 1))  # a cheek
        triangles = grid(len(rows), 20, closed=True)
        triangles = outwards(flat, triangles, base - np.array([side * 0.3, 0, 0]))
        out.append(Part(flat, triangles, SKIN, uv, tint))
    return out


class Surface:
    """The head's distance from `CENTRE` in any direction, for laying hair on it."""

    def __init__(self, points: np.ndarray):
        offset = points - CENTRE
        self.radius = np.linalg.norm(offset, axis=1)
        self.tree = cKDTree(offset / self.radius[:, None])

    def __call__(self, direction: np.ndarray) -> np.ndarray:
        """(..., 3) unit directions to (...) distances."""
        distance, index = self.tree.query(direction, k=6)
        weight = 1 / (distance + 0.02) ** 2
        return (self.radius[index] * weight).sum(-1) / weight.sum(-1)
