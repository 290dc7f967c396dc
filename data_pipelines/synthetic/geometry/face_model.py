"""The mean FaceMesh face: points, triangles, texture coordinates and named point sets.

Units: lengths are in interocular distances. The origin is midway between the eye centres; x points
to the image's right, y down and z away from the viewer.

`face_model.json` holds the 478 points of a neutral face with closed lips (FaceMesh's output on
painted drawings, averaged and made symmetric), 852 triangles (from the edges of FaceMesh's
tessellation, Apache-2.0; the mouth and the eyes are holes) and the mirror partner of every point.
"""

import functools
import json
import pathlib
from dataclasses import dataclass

import numpy as np

SURFACE = 468  # The first 468 points lie on the skin; the last ten are those of the irises.

# Points are listed from the image's left to its right. The seam is the line where the lips meet,
# without its ends, the corners.
UPPER_SEAM = (191, 80, 81, 82, 13, 312, 311, 310, 415)
LOWER_SEAM = (95, 88, 178, 87, 14, 317, 402, 318, 324)
CORNERS = (78, 308)
# Rows of lip points, from the outline of the lips inwards.
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
# The image's left eye comes first. Lids run from the outer to the inner corner.
UPPER_LIDS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
    (263, 466, 388, 387, 386, 385, 384, 398, 362),
)
LOWER_LIDS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133),
    (263, 249, 390, 373, 374, 380, 381, 382, 362),
)
IRISES = (468, 473)  # Centres.


@dataclass(frozen=True)
class FaceModel:
    """The neutral mean face.

    Attributes:
      points: Positions, (478, 3) float64.
      triangles: Indices into the first 468 points, (852, 3) int32.
      mirror: Index of each point's mirror partner, (478,) int64.
      uv: Texture coordinates in [0, 1], (478, 2) float64.
    """

    points: np.ndarray
    triangles: np.ndarray
    mirror: np.ndarray
    uv: np.ndarray


def texture_coordinates(points: np.ndarray) -> np.ndarray:
    """Unrolls points of a neutral face (..., 3) from a cylinder to (..., 2) coordinates."""
    angle = np.arctan2(points[..., 0], 1.1 - points[..., 2])
    return np.stack([(1.2 * angle + 2.1) / 4.2, (points[..., 1] + 1.5) / 4.2], -1)


@functools.cache
def load_face_model() -> FaceModel:
    """Reads the mean face once; all callers share its read-only arrays."""
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
