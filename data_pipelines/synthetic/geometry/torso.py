"""Neck, chest and shoulders, and the garments on them as layers with openings.

All garments lie on one surface, `Torso`, at different distances. An opening is where the opacity of
a layer's vertices falls below one half, so that necklines need no meshes of their own.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .mesh import MeshPart, grid_triangles, orient_outwards

CLOTH, SKIN, NECK = "cloth", "skin", "neck"  # Materials.
NECK_Z = 1.38  # Depth of the neck's axis.
NECK_TOP, _NECK_BOTTOM = 0.9, 3.3  # Heights of the neck's ends, of which the upper is in the skull.
_COLLAR, _NECK_LENGTH = 2.71, 0.74  # y of the collar's front, and the visible neck above it.
_AXIS = 1.42  # Depth of the torso's axis.
_PROFILE = np.array(
    [
        (2.54, 0.90, 0.86, 0.10), (2.47, 0.96, 0.93, 0.10), (2.53, 1.10, 0.99, 0.10),
        (2.67, 1.45, 1.05, 0.10), (2.88, 1.9, 1.08, 0.10), (3.06, 2.35, 1.1, 0.08),
        (3.32, 2.7, 1.15, 0.05), (3.7, 2.9, 1.25, 0.0), (4.3, 2.98, 1.35, -0.05),
        (5.6, 2.9, 1.4, -0.05),
    ]
)  # fmt: skip
# Rings of a layer as fractional rows of the profile: dense where the neck's openings are.
_ROWS = np.concatenate([[0, 0.5], np.linspace(1, 7, 19), [7.5, 8, 9]])
_FRONT, _BACK = 45, 16  # Numbers of columns.
_SHARP = 3.0  # Opacity per interocular distance from the edge of a layer.


def neck_profile(y, width: float):
    """Returns half width, half depth and depth of the axis of the neck at heights y (...)."""
    t = (np.asarray(y, float) - NECK_TOP) / (_NECK_BOTTOM - NECK_TOP)
    half = (0.75 + 0.10 * t**2 + 0.55 * np.clip(t - 0.72, 0, 1) * 2) * width
    return half, 0.765 + 0.13 * t * width, NECK_Z + 0.06 + 0.16 * t


@dataclass(frozen=True)
class Torso:
    """The surface of chest and shoulders.

    Attributes:
      neck: Thickness of the neck, see `Shape`.
      chin: y of the chin. Shoulders are raised where the neck would be too long.
    """

    neck: float
    chin: float

    @property
    def neck_width(self) -> float:
        """Factor of the neck's thickness."""
        return 1 + 0.09 * self.neck

    @property
    def rise(self) -> float:
        """How far the shoulders are raised."""
        return float(np.clip(_COLLAR - self.chin - _NECK_LENGTH, 0, 0.2))

    def points(self, angle, row, outwards=0.0) -> np.ndarray:
        """Computes points of the surface.

        Args:
          angle: Azimuth from the front in radians, (...).
          row: Fractional row of the profile, 0 at the neck, (...).
          outwards: Distance from the surface, (...).

        Returns:
          (..., 3) points.
        """
        angle, row = np.broadcast_arrays(angle, row)
        rows = np.arange(len(_PROFILE))
        y, wide, deep, shift = (np.interp(row, rows, column) for column in _PROFILE.T)
        scale = 0.94 + 0.06 * self.neck
        wide, deep = wide * scale + outwards, deep * scale + outwards
        # The collar dips in front.
        y = y + np.clip(1 - row / 9, 0, 1) ** 1.5 * 0.24 * np.cos(angle) ** 3 - self.rise
        y = y - 0.5 * np.asarray(outwards) * np.clip(row - 2, 0, 1)
        return np.stack(
            [wide * np.sin(angle), y, _AXIS + shift - deep * np.cos(angle)], -1
        )  # fmt: skip

    def ring(self, angle, y, outwards=0.0) -> np.ndarray:
        """Computes points (..., 3) around the neck at heights y (...), `outwards` of the skin."""
        wide, deep, axis = neck_profile(np.asarray(y) + self.rise, self.neck_width)
        return np.stack(
            np.broadcast_arrays(
                (wide + outwards) * np.sin(angle),
                np.asarray(y, float) + 0 * angle,
                axis - (deep + outwards) * np.cos(angle),
            ),
            -1,
        )

    def front(self, x, y, outwards=0.0) -> np.ndarray:
        """Computes points (..., 3) of the chest that are seen at x, y (...) from the front."""
        grid = self.points(*np.meshgrid(np.linspace(-1.2, 1.2, 41), np.linspace(0, 9, 60)))
        flat = grid.reshape(-1, 3)
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        distance, nearest = cKDTree(flat[:, :2]).query(np.stack([x, y], -1), k=4)
        weight = 1 / (distance**2 + 1e-4)
        z = (flat[nearest, 2] * weight).sum(-1) / weight.sum(-1)
        return np.stack([x, y, z - outwards], -1)


def layer_grid() -> tuple[np.ndarray, np.ndarray]:
    """Returns angles (1, C), dense in front, and fractional rows (R, 1) of a layer's vertices."""
    front = np.linspace(-np.pi / 2, np.pi / 2, _FRONT)
    back = np.linspace(np.pi / 2, 3 * np.pi / 2, _BACK + 2)[1:-1]
    return np.concatenate([front, back])[None], _ROWS[:, None]


def make_layer(
    torso: Torso, material: str, outwards: float = 0.0, inside=None, shade=None
) -> MeshPart:
    """Makes a garment that lies on the torso.

    Args:
      torso: The surface.
      material: Name of the material.
      outwards: Distance from the surface.
      inside: Function from points (R, C, 3) to their signed distances (R, C) from the edge of the
        garment, positive inside; None covers everything.
      shade: Factors of the colour, (R, C); None is the default.
    """
    angle, row = layer_grid()
    points = torso.points(angle, row, outwards)
    opacity = np.ones(points.shape[:2])
    if inside is not None:
        opacity = np.clip(0.5 + _SHARP * inside(points), 0, 1)
    flat = points.reshape(-1, 3)
    uv = np.stack([flat[:, 0] * 0.22 + 0.5, flat[:, 1] * 0.22], 1)
    if shade is None:
        shade = np.interp(row, (0, 0.5, 1, 2, 4, 5), (0.6, 0.8, 0.92, 0.92, 0.92, 1)) + 0 * angle
    triangles = grid_triangles(*points.shape[:2], closed=True)
    # Parts that nobody sees cost time nevertheless.
    seen = (opacity.ravel()[triangles] > 0).any(1)
    triangles = orient_outwards(flat, triangles, flat.mean(0))[seen]
    return MeshPart(
        flat, triangles, material, uv, np.repeat(shade.reshape(-1, 1), 3, 1), opacity.ravel(),
        np.zeros(len(flat)),
    )  # fmt: skip


def make_chest(torso: Torso) -> MeshPart:
    """Makes the skin below a garment's opening."""
    part = make_layer(torso, NECK, -0.05)
    angle, row = layer_grid()
    points = part.vertices.reshape(*np.broadcast_shapes(angle.shape, row.shape), 3)
    # The uppermost rings lie in the neck.
    near = np.clip(1 - row / 1.5, 0, 1)[..., None]
    points += near * (torso.ring(angle, points[..., 1], -0.03) - points)
    across = np.arctan2(points[..., 0], NECK_Z - points[..., 2])
    u = (1.2 * np.clip(across, -1.6, 1.6) + 2.1) / 4.2
    part.uv = np.stack([u, 0.55 + 0.4 * np.clip(row / 9, 0, 1) + 0 * angle], -1).reshape(-1, 2)
    # Collar bones and the hollow between them.
    x, y = np.abs(points[..., 0]), points[..., 1] + torso.rise
    bone = np.exp(-(((y - 2.72 - 0.02 * x) / 0.05) ** 2)) * (x > 0.12)
    hollow = np.exp(-((x / 0.16) ** 2) - ((y - 2.66) / 0.12) ** 2)
    shade = np.clip(0.9 + 0.06 * bone - 0.15 * hollow, 0, 1) * (np.cos(angle) > -2)
    part.colours = np.repeat(shade.reshape(-1, 1), 3, 1) * (1, 0.97, 0.95)
    return part


def make_neck(torso: Torso) -> list[MeshPart]:
    """Makes the neck, from inside the skull to below the collar."""
    y, angle = (
        np.linspace(NECK_TOP, _NECK_BOTTOM, 13),
        np.linspace(0, 2 * np.pi, 32, endpoint=False),
    )
    wide, deep, axis = (v[:, None] for v in neck_profile(y, torso.neck_width))
    points = np.stack(
        np.broadcast_arrays(wide * np.sin(angle), y[:, None], axis - deep * np.cos(angle)), -1
    )
    # The larynx, faintly.
    front = np.exp(-((np.minimum(angle, 2 * np.pi - angle) / 0.22) ** 2))
    bump = np.exp(-(((y - 2.35) / 0.2) ** 2))
    points[..., 2] -= 0.035 * bump[:, None] * front[None]
    cover = np.exp(-(((y - torso.chin - 0.05) / 0.34) ** 2))  # The chin's shadow.
    shade = 1 - 0.62 * cover[:, None] * (0.5 + 0.5 * np.cos(angle))[None] ** 0.7
    flat = points.reshape(-1, 3)
    uv = np.stack(
        [
            (1.2 * np.clip(np.arctan2(flat[:, 0], NECK_Z - flat[:, 2]), -1.6, 1.6) + 2.1) / 4.2,
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
    for material, rows in ((SKIN, slice(0, 5)), (NECK, slice(4, 13))):
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
