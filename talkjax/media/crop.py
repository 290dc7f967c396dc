"""Cuts the crop that the networks see out of a frame.

A transform of `talkjax.head_pose` places the crop. Region and mask are fixed boxes within the crop
(`talkjax.conventions`), so none of them depends on jaw or lips.
"""

import math

import cv2
import numpy as np

from talkjax.head_pose import fit_single_frames, invert


def index_matrix(transform: np.ndarray, size: int) -> np.ndarray:
    """Converts a transform to a (2, 3) matrix between pixel *indices*, which OpenCV's warps expect.

    Pixel centres are at half-integers in continuous coordinates, and at integers as indices.
    """
    matrix = transform * size
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return matrix


def warp_crop(frame: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """Cuts the crop out of a frame.

    A large face is first reduced by a whole factor with area averaging, so that it does not alias.
    Outside of the frame, the crop repeats the frame's edge.

    Args:
      frame: (H, W, 3) uint8.
      transform: (2, 3) transform from frame to crop coordinates.
      size: Side of the crop in pixels.

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


def cut_faces(frame: np.ndarray, faces: np.ndarray, size: int) -> np.ndarray:
    """Cuts the crop of every face of a frame as its landmarks place it, without smoothing.

    Args:
      frame: (H, W, 3) uint8.
      faces: (n, 478, 2 or 3) FaceMesh points, frame coordinates.
      size: Side of the crops in pixels.

    Returns:
      (n, size, size, 3) uint8.
    """
    if not len(faces):
        return np.empty((0, size, size, 3), np.uint8)
    return np.stack([warp_crop(frame, each, size) for each in fit_single_frames(faces)])
