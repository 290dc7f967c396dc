"""The part of the mask that the lower face fills: only there is a generated region pasted.

Collars, necks, hair and backgrounds inside the mask then stay those of the frame. The outline is
that of the generated face, and of the same face with its mouth as wide open as the template's is in
the first seconds of the scene. So it covers the template's chin, and depends on no later frame's
own jaw or lips.
"""

import cv2
import numpy as np

from talkjax.conventions import NUM_JAW, NUM_POSE, interocular, mouth_opening

GRID = 128  # side of the crop in which the outline is drawn
GROW = 0.015  # crop units by which the outline lies outside of the face
FEATHER = 0.012  # crop units; deviation of the Gaussian that softens it
# How far the chin drops while the mouth opens, both over the interocular distance: 0.3 to 0.4 for
# people, measured on GRID and on five other clips.
_DROP = 0.4
_WIDEST = 0.95  # quantile, against single wrong measurements


def widest(landmarks: np.ndarray) -> float:
    """Returns how wide the mouths of faces (N, 131, 2) open, over the interocular distance."""
    return float(np.quantile(mouth_opening(landmarks), _WIDEST))


def inside(landmarks: np.ndarray, opening: float) -> np.ndarray:
    """Draws how much of a generated region is pasted.

    Args:
      landmarks: (131, 2) landmarks of the generated face, crop coordinates.
      opening: Opening that the template's mouth may have, output of `widest`.

    Returns:
      (128, 128) float32 over the whole crop: 1 on the lower face, falling to 0 around it.
    """
    content = landmarks[NUM_POSE:]
    drop = _DROP * max(opening - mouth_opening(landmarks), 0.0) * interocular(landmarks)
    lower = content[:NUM_JAW] + np.array([0.0, drop])
    points = np.concatenate([content, lower]).astype(np.float32)
    shift = 4  # bits of fractions of a pixel
    hull = cv2.convexHull(points[:, None])
    hull = np.rint((hull * GRID - 0.5) * 2**shift).astype(np.int32)
    drawn = np.zeros((GRID, GRID), np.uint8)
    cv2.fillConvexPoly(drawn, hull, 255, cv2.LINE_AA, shift)
    thickness = max(round(2 * GROW * GRID), 1)
    cv2.polylines(drawn, [hull], True, 255, thickness, cv2.LINE_AA, shift)
    return cv2.GaussianBlur(drawn.astype(np.float32) / 255, (0, 0), FEATHER * GRID)
