"""Eyeballs and their gaze."""

from dataclasses import dataclass

import numpy as np

from .face_model import LOWER_LIDS, UPPER_LIDS
from .mesh import (
    MeshPart,
    grid_triangles,
    orient_outwards,
    rotation_about_x,
    rotation_about_y,
    smoothstep,
)

EYE = "eye"  # The material.
_IRIS_ANGLE = 0.36  # Radians from the optical axis to the edge of the iris.
# FaceMesh's iris points: the centre, then right, top, left and bottom.
_IRIS = np.array([(0, 0, -1), (1, 0, -1), (0, -1, -1), (-1, 0, -1), (0, 1, -1)], float) * (
    np.sin(_IRIS_ANGLE),
    np.sin(_IRIS_ANGLE),
    np.cos(_IRIS_ANGLE),
)


@dataclass(frozen=True, eq=False)
class Eyeball:
    """An eyeball that looks straight ahead.

    Attributes:
      part: Its mesh.
      centre: Centre of rotation, (3,).
      radius: Radius in interocular distances.
      offset: Unit vectors from the centre to the vertices, (V, 3).
    """

    part: MeshPart
    centre: np.ndarray
    radius: float
    offset: np.ndarray

    def rotate(self, gaze: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Rotates the eye.

        Args:
          gaze: Radians right and down.

        Returns:
          (V, 3) vertices and (5, 3) iris landmarks.
        """
        right, down = gaze
        rotation = (rotation_about_y(right) @ rotation_about_x(down)).T
        return tuple(
            self.centre + self.radius * (offset @ rotation) for offset in (self.offset, _IRIS)
        )


def make_eyeball(points: np.ndarray, side: int, droop: float) -> Eyeball:
    """Makes an eyeball behind the eyelids.

    Args:
      points: Face at rest, (478, 3).
      side: 0 for the eye at the image's left, 1 for the right one.
      droop: Eyelid closure at rest, as a share of a blink.
    """
    up, low = UPPER_LIDS[side], LOWER_LIDS[side]
    rim = points[list(up + low)]
    width = abs(points[up[0], 0] - points[up[-1], 0])
    radius = 0.55 * width
    front = points[[up[4], low[4]], 2].mean() + 0.012
    middle = (points[up[0], 0] + points[up[-1], 0]) / 2
    centre = np.array([middle, rim.mean(0)[1], front + radius])
    rings, columns = 11, 24
    polar = np.linspace(0, 1.45, rings)[:, None]
    around = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    offset = np.stack(
        [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around),
         -np.cos(polar) + 0 * around], -1
    ).reshape(-1, 3)  # fmt: skip
    triangles = orient_outwards(offset, grid_triangles(rings, columns, closed=True), np.zeros(3))
    uv = 0.5 + 0.5 * offset[:, :2] * 0.98
    # The upper lid and its lashes shade the ball, whose rounded edge also receives less light.
    lid = rim[:, 1].min() + 0.82 * droop * np.ptp(rim[:, 1])
    height = (radius * offset[:, 1] - (lid - centre[1])) / np.ptp(rim[:, 1])
    shade = 0.36 + 0.50 * smoothstep(height, 0.0, 0.6)
    shade = shade * (1 - 0.35 * smoothstep(np.abs(offset[:, 0]), 0.45, 0.95))
    colours = np.repeat(shade[:, None], 3, 1)
    part = MeshPart(centre + radius * offset, triangles, EYE, uv, colours)
    return Eyeball(part, centre, radius, offset)
