"""Where the face is: the leak-safe crop, its region and its mask.

A *transform* is a (2, 3) matrix that takes frame coordinates to crop coordinates. Both are
continuous: frame coordinates are pixels with the centre of the first pixel at (0.5, 0.5); crop
coordinates are the unit square, (0, 0) its top left corner. It is a similarity (rotation, one
scale, shift), fitted to `topology.RIGID` alone and smoothed over time, so nothing that speech
moves can be read off a crop, its mask or its normalised pose (arXiv 2408.05416 gives pose and
hides content; this is what keeps that honest).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from talkjax.media import topology

# Where the template's eyes land in the crop: the chin of a wide open mouth stays inside.
EYE_CENTRE = (0.5, 0.22)
INTEROCULAR = 0.30
SMOOTHING_SECONDS = 0.12

# A generic frontal face: left half in interocular units around the point between the eyes
# (x right, y down); the right half is its mirror image. In the order of `topology.LEFT_EYE`, ...
# fmt: off
_LEFT_EYE = (
    (-0.705, -0.002), (-0.683, -0.016), (-0.655, -0.033), (-0.606, -0.055), (-0.527, -0.07),
    (-0.445, -0.068), (-0.36, -0.045), (-0.299, -0.008), (-0.271, 0.018), (-0.295, 0.025),
    (-0.346, 0.032), (-0.422, 0.048), (-0.501, 0.057), (-0.581, 0.053), (-0.634, 0.04),
    (-0.671, 0.024),
)
_LEFT_BROW = (
    (-0.905, -0.273), (-0.812, -0.373), (-0.663, -0.424), (-0.467, -0.414), (-0.236, -0.381),
    (-0.207, -0.242), (-0.451, -0.327), (-0.632, -0.339), (-0.763, -0.302), (-0.851, -0.224),
)
# fmt: on
_BRIDGE = ((0.0, -0.084), (0.0, 0.047), (0.0, 0.164), (0.0, 0.273), (0.0, 0.389))


def _template() -> tuple[np.ndarray, np.ndarray]:
    eye, brow = np.array(_LEFT_EYE), np.array(_LEFT_BROW)
    mirror = np.array([-1.0, 1.0])
    points = np.concatenate([eye, eye * mirror, brow, brow * mirror, np.array(_BRIDGE)])
    # Lids blink and brows rise; eye corners and the bridge are bone.
    weights = np.concatenate([np.full(32, 0.5), np.full(20, 0.25), np.full(len(_BRIDGE), 2.0)])
    for corner in (33, 133, 263, 362):
        weights[topology.RIGID.index(corner)] = 4.0
    return points * INTEROCULAR + np.array(EYE_CENTRE), weights


TEMPLATE, WEIGHTS = _template()


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


def fit_similarity(rigid: np.ndarray) -> np.ndarray:
    """Weighted least-squares similarity from rigid points to the template.

    Args:
      rigid: (N, 57, 2) frame coordinates of `topology.RIGID`.

    Returns:
      (N, 4) parameters (log scale, angle, x, y): the last two are the frame point that lands on
      `EYE_CENTRE`. Chosen so that averaging them over time is meaningful.
    """
    weights = WEIGHTS / WEIGHTS.sum()
    source = rigid[..., 0].astype(np.float64) + 1j * rigid[..., 1]
    target = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]
    source_mean = (source * weights).sum(-1, keepdims=True)
    target_mean = (target * weights).sum()
    source_c, target_c = source - source_mean, target - target_mean
    factor = (np.conj(source_c) * target_c * weights).sum(-1) / (
        np.abs(source_c) ** 2 * weights
    ).sum(-1)
    centre = (EYE_CENTRE[0] + 1j * EYE_CENTRE[1] - target_mean) / factor + source_mean[..., 0]
    return np.stack([np.log(np.abs(factor)), np.angle(factor), centre.real, centre.imag], -1)


def transforms_from_parameters(parameters: np.ndarray) -> np.ndarray:
    """(N, 4) parameters of `fit_similarity` to (N, 2, 3) transforms."""
    log_scale, angle, x, y = np.moveaxis(parameters, -1, 0)
    a, b = np.exp(log_scale) * np.cos(angle), np.exp(log_scale) * np.sin(angle)
    linear = np.stack([np.stack([a, -b], -1), np.stack([b, a], -1)], -2)
    centre = np.stack([x, y], -1)
    shift = np.array(EYE_CENTRE) - np.einsum("...ij,...j->...i", linear, centre)
    return np.concatenate([linear, shift[..., None]], -1)


def smooth(values: np.ndarray, times: np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
    """Gaussian average over time (sigma `SMOOTHING_SECONDS`, cut at three sigma).

    Args:
      values: (N, D) samples; angles must not wrap within a window.
      times: (N,) seconds, increasing.
      at: (M,) times wanted; the samples' own by default.

    Returns:
      (M, D).
    """
    at = times if at is None else at
    reach = 3 * SMOOTHING_SECONDS
    out = np.empty((len(at), values.shape[1]))
    for i, time in enumerate(at):
        lo, hi = np.searchsorted(times, [time - reach, time + reach + 1e-9])
        lo, hi = min(lo, len(times) - 1), max(hi, lo + 1)
        weight = np.exp(-0.5 * ((times[lo:hi] - time) / SMOOTHING_SECONDS) ** 2) + 1e-12
        out[i] = (values[lo:hi] * weight[:, None]).sum(0) / weight.sum()
    return out


def fit_transforms(mesh: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Smoothed frame-to-crop transforms of a clip.

    Args:
      mesh: (N, 478, 2 or 3) FaceMesh points in frame coordinates; every row finite.
      times: (N,) seconds.

    Returns:
      (N, 2, 3) float64 transforms.
    """
    parameters = fit_similarity(topology.select(mesh, topology.RIGID))
    parameters[:, 1] = np.unwrap(parameters[:, 1])
    return transforms_from_parameters(smooth(parameters, np.asarray(times, np.float64)))


def apply_transforms(points: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Frame coordinates (N, K, 2) to crop coordinates (N, K, 2)."""
    linear, shift = transforms[..., :2], transforms[..., 2]
    return np.einsum("nij,nkj->nki", linear, points) + shift[:, None, :]


def invert(transform: np.ndarray) -> np.ndarray:
    """The (2, 3) inverse of a (2, 3) transform."""
    linear = np.linalg.inv(transform[:, :2])
    return np.concatenate([linear, -linear @ transform[:, 2:]], 1)


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
