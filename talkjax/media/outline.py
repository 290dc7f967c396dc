"""The part of the mask that the lower face fills: only there is a generated region pasted.

Collars, necks, hair and backgrounds inside the mask then stay those of the frame. The outline is
that of the generated face and of the face in the first seconds of the scene, so it depends on no
later frame's own jaw or lips.
"""

import cv2
import numpy as np

from talkjax.conventions import NUM_POSE, mouth_opening

GRID = 128  # side of the crop in which the outline is drawn
GROW = 0.015  # crop units by which the outline lies outside of the face
FEATHER = 0.012  # crop units; deviation of the Gaussian that softens it


def envelope(landmarks: np.ndarray) -> np.ndarray:
    """Returns the convex hull of the jaws and lips of many faces.

    The tenth whose mouths are open widest does not count: an outline that reaches far below the
    chin would move the collar.

    Args:
      landmarks: (N, 131, 2) crop coordinates.

    Returns:
      (M, 2) float32.
    """
    opening = mouth_opening(landmarks)
    usual = landmarks[opening <= np.quantile(opening, 0.9)]
    points = usual[:, NUM_POSE:].reshape(-1, 1, 2).astype(np.float32)
    return cv2.convexHull(points)[:, 0]


def inside(known: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Draws how much of a generated region is pasted.

    Args:
      known: (M, 2) output of `envelope`, moved to where the face is in this frame.
      landmarks: (131, 2) landmarks of the generated face, crop coordinates.

    Returns:
      (128, 128) float32 over the whole crop: 1 on the lower face, falling to 0 around it.
    """
    points = np.concatenate([known, landmarks[NUM_POSE:]]).astype(np.float32)[:, None]
    shift = 4  # bits of fractions of a pixel
    hull = np.rint((cv2.convexHull(points) * GRID - 0.5) * 2**shift).astype(np.int32)
    drawn = np.zeros((GRID, GRID), np.uint8)
    cv2.fillConvexPoly(drawn, hull, 255, cv2.LINE_AA, shift)
    thickness = max(round(2 * GROW * GRID), 1)
    cv2.polylines(drawn, [hull], True, 255, thickness, cv2.LINE_AA, shift)
    return cv2.GaussianBlur(drawn.astype(np.float32) / 255, (0, 0), FEATHER * GRID)
