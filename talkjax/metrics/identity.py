"""CSIM: similarity of identity, by a face embedding network (ONNX, run by OpenCV).

The network, for example MobileFaceNet, takes 112 x 112 RGB images with ImageNet normalisation,
aligned by five points as in ArcFace (arXiv 1801.07698).
"""

import os

import cv2
import numpy as np

from talkjax import conventions
from talkjax.errors import UserError

SIZE = 112
# Positions of eyes, nose tip and mouth corners in pixels: ArcFace's standard.
TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
     (70.7299, 92.2041)]
)  # fmt: skip
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Returns eye centres, nose tip and mouth corners of (131, 2) landmarks: (5, 2)."""
    eyes = [
        landmarks[conventions.positions(e)].mean(0)
        for e in (conventions.LEFT_EYE, conventions.RIGHT_EYE)
    ]
    return np.concatenate([eyes, landmarks[conventions.positions((4, 61, 291))]])


def align(rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cuts the aligned face out of a frame.

    Args:
      rgb: (H, W, 3) uint8 frame.
      landmarks: (131, 2) landmarks in frame pixels.

    Returns:
      (112, 112, 3) uint8.
    """
    source, target = (p[:, 0] + 1j * p[:, 1] for p in (five_points(landmarks) - 0.5, TEMPLATE))
    a, b = source - source.mean(), target - target.mean()
    factor = (np.conj(a) * b).sum() / (np.abs(a) ** 2).sum()
    shift = target.mean() - factor * source.mean()
    matrix = np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )
    scale = abs(factor)
    if scale < 0.5:  # a large face: blur it first to prevent aliasing
        rgb = cv2.GaussianBlur(rgb, (0, 0), 0.4 / scale)
    return cv2.warpAffine(rgb, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)


class FaceEmbedding:
    """A face embedding network.

    Args:
      path: ONNX file.

    Raises:
      UserError: The file cannot be read, or does not map a 112 x 112 face to a vector.
    """

    def __init__(self, path: str | os.PathLike):
        name = os.fspath(path)
        if not os.path.isfile(name):
            raise UserError(f"--face_embedding={name} not found; check the path")
        try:
            self._net = cv2.dnn.readNetFromONNX(name)
            out = self(np.zeros((SIZE, SIZE, 3), np.uint8))
        except cv2.error as error:
            why = (error.err or str(error)).strip().splitlines()[0]
            raise UserError(f"{name} is not a usable ONNX face embedding ({why})") from error
        if out.ndim != 1 or len(out) < 8 or not np.isfinite(out).all():
            raise UserError(f"{name} does not map a 112x112 face to a vector; give another network")

    def __call__(self, face: np.ndarray) -> np.ndarray:
        """Maps a (112, 112, 3) uint8 face to a (D,) vector of length 1."""
        x = (face.astype(np.float32) / 255 - _MEAN) / _STD
        self._net.setInput(x.transpose(2, 0, 1)[None])
        vector = self._net.forward().reshape(-1).astype(np.float64)
        return vector / max(np.linalg.norm(vector), 1e-12)


def similarity(vectors: np.ndarray, others: np.ndarray) -> float:
    """Returns the mean cosine between (N, D) unit vectors and the mean of (M, D) others."""
    if not len(vectors) or not len(others):
        return float("nan")
    centre = np.mean(others, 0)
    return float(np.mean(np.asarray(vectors) @ centre) / max(np.linalg.norm(centre), 1e-12))
