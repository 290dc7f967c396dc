"""What of a frame the networks see: the crop, its region and its mask.

The crop is cut by a transform of `talkjax.media.rigid`; region and mask are fixed boxes in it, so
none of them depends on jaw or lips.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from talkjax.media.rigid import invert


@dataclass(frozen=True)
class Box:
    """A rectangle in crop coordinates; y down."""

    y0: float
    x0: float
    y1: float
    x1: float

    def pixels(self, size: int) -> tuple[int, int, int, int]:
        """(y0, x0, y1, x1) in whole pixels of a crop of `size` px."""
        y0, x0, y1, x1 = (round(v * size) for v in (self.y0, self.x0, self.y1, self.x1))
        return y0, x0, y1, x1

    def cut(self, crop: np.ndarray) -> np.ndarray:
        """The box's part of (..., size, size, C) crops."""
        y0, x0, y1, x1 = self.pixels(crop.shape[-2])
        return crop[..., y0:y1, x0:x1, :]


FULL = Box(0.0, 0.0, 1.0, 1.0)
# From the nose's base to under the chin of an open mouth, jaw corner to jaw corner.
MASK = Box(0.4375, 0.125, 0.9375, 0.875)
# The mask and one latent cell (at f = 8 of 128 px) around it.
MOUTH_REGION = Box(0.375, 0.0625, 1.0, 0.9375)


def index_matrix(transform: np.ndarray, size: int) -> np.ndarray:
    """The (2, 3) matrix between pixel *indices* that OpenCV's warps want.

    Continuous coordinates have pixel centres at half-integers, indices at integers.
    """
    matrix = transform * size
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return matrix


def warp_crop(frame: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """Cuts the crop out of a frame.

    A large face is first shrunk by whole numbers with area averaging, so that it does not alias;
    what lies outside of the frame repeats its edge.

    Args:
      frame: (H, W, 3) uint8.
      transform: (2, 3) frame to crop coordinates.
      size: side of the crop, px.

    Returns:
      (size, size, 3) uint8.
    """
    scale = math.sqrt(abs(np.linalg.det(transform[:, :2]))) * size
    factor = int(1 / scale)
    if factor >= 2:
        corners = np.array([(0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1)]) @ invert(transform).T
        height, width = frame.shape[:2]
        x0, y0 = np.clip(np.floor(corners.min(0)).astype(int) - factor, 0, (width - 1, height - 1))
        x1, y1 = np.clip(
            np.ceil(corners.max(0)).astype(int) + factor, (x0 + 1, y0 + 1), (width, height)
        )
        shape = (max(1, (x1 - x0) // factor), max(1, (y1 - y0) // factor))
        stretch = np.array([(x1 - x0) / shape[0], (y1 - y0) / shape[1]])
        frame = cv2.resize(frame[y0:y1, x0:x1], shape, interpolation=cv2.INTER_AREA)
        offset = transform[:, :2] @ np.array([x0, y0]) + transform[:, 2]
        transform = np.concatenate([transform[:, :2] * stretch, offset[:, None]], 1)
    return cv2.warpAffine(
        frame,
        index_matrix(transform, size),
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def mask_image(crop: np.ndarray, mask: Box = MASK) -> np.ndarray:
    """Copies (..., size, size, 3) uint8 crops as float32 in [-1, 1], 0 in the mask's rectangle."""
    out = crop.astype(np.float32) / 127.5 - 1.0
    y0, x0, y1, x1 = mask.pixels(crop.shape[-2])
    out[..., y0:y1, x0:x1, :] = 0.0
    return out
