"""Captions and logos that are burnt into a video.

They are edges that stand still while the head moves. Whatever does so is not the face, so a collar
that is found as well is kept rightly. Nothing is found where the head keeps still, nor captions
that change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from talkjax.conventions import Box
from talkjax.head_pose import apply_transforms, invert
from talkjax.media.crop import index_matrix

# A moving head changes a pixel over time by the slope of the picture times the head's motion. An
# edge stands still if it changes by less than this share of that, and that is this large (levels).
_STILL, _EDGE = 0.2, 60.0
_MAX_MOTION = 2.0  # pixels; a longer way does not change an edge by more
# Letters are many edges close together; a neck or a chair behind the head is one line.
_DENSITY, _NEARBY = 0.3, 1 / 14  # share of edges in a square, whose side is a share of the mask's
_STROKE = 3  # pixels on either side of an edge that belong to a letter
_MIN_FRAMES = 12


class Overlay(NamedTuple):
    """Pixels of the frame that lie over the face.

    Attributes:
      corner: (y, x) of the first pixel.
      weight: (h, w) float32, from 0 to 1.
    """

    corner: tuple[int, int]
    weight: np.ndarray

    def window(self, window: tuple[int, int, int, int]) -> np.ndarray:
        """Returns the weight at the pixels of a window (y0, x0, y1, x1)."""
        y0, x0, y1, x1 = window
        whole = np.zeros((y1 - y0, x1 - x0), np.float32)
        (top, left), (height, width) = self.corner, self.weight.shape
        a, b = max(y0, top), min(y1, top + height)
        c, d = max(x0, left), min(x1, left + width)
        if a < b and c < d:
            whole[a - y0 : b - y0, c - x0 : d - x0] = self.weight[
                a - top : b - top, c - left : d - left
            ]
        return whole

    def erase(self, crop: np.ndarray, transform: np.ndarray) -> np.ndarray:
        """Fills what lies over a crop in from around it.

        Args:
          crop: (size, size, 3) uint8.
          transform: (2, 3) transform from frame to crop coordinates.
        """
        matrix = index_matrix(transform, len(crop))
        matrix[:, 2] += matrix[:, :2] @ self.corner[::-1]
        over = cv2.warpAffine(self.weight, matrix, crop.shape[1::-1])
        return cv2.inpaint(crop, (over > 0.2).astype(np.uint8), 2, cv2.INPAINT_TELEA)


def find_overlay(frames: Iterable[np.ndarray], transforms: np.ndarray, mask: Box) -> Overlay | None:
    """Finds what stands still before a moving face.

    Args:
      frames: (H, W, 3) uint8 frames, as many as there are transforms.
      transforms: (N, 2, 3) transforms of the frames to crop coordinates.
      mask: Box that is pasted, crop coordinates.
    """
    corners = np.array([[(x, y) for x in (mask.x0, mask.x1) for y in (mask.y0, mask.y1)]])
    at = apply_transforms(np.repeat(corners, len(transforms), 0), invert(transforms))  # (N, 4, 2)
    if len(at) < _MIN_FRAMES:
        return None
    motion = np.minimum(at.mean(1).std(0), _MAX_MOTION)  # (x, y) standard deviation, pixels
    low, high = np.floor(at.min((0, 1))).astype(int), np.ceil(at.max((0, 1))).astype(int)
    count, total, squares = 0, 0.0, 0.0
    left, top = np.maximum(low, 0)
    for frame in frames:
        part = frame[top : max(high[1], 0), left : max(high[0], 0)].astype(np.float32)
        if 0 in part.shape:
            return None
        count, total, squares = count + 1, total + part, squares + part * part
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean * mean, 0)).max(-1)
    slopes = (cv2.Sobel(mean, cv2.CV_32F, *d, scale=0.25) for d in ((1, 0), (0, 1)))
    expected = np.hypot(*(slope * m for slope, m in zip(slopes, motion, strict=True))).max(-1)
    letters = ((expected > _EDGE) & (spread < _STILL * expected)).astype(np.uint8)
    nearby = max(round(_NEARBY * (at[:, :, 0].max(1) - at[:, :, 0].min(1)).mean()), 9)
    letters &= cv2.blur(letters.astype(np.float32), (nearby, nearby)) > _DENSITY
    if not letters.any():
        return None
    size = 2 * _STROKE + 1
    weight = cv2.morphologyEx(letters, cv2.MORPH_CLOSE, np.ones((size, size), np.uint8))
    weight = cv2.dilate(weight, np.ones((3, 3), np.uint8)).astype(np.float32)
    return Overlay((int(top), int(left)), cv2.blur(weight, (3, 3)))
