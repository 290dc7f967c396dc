"""PSNR, SSIM and flicker of mouth crops.

Scores of whole frames would flatter every method, because all methods leave most of a frame as it
was.
"""

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from talkjax.conventions import MASK, Box
from talkjax.metrics import signals

_SIGMA = 1.5  # pixels (Wang et al. 2004)
_RADIUS = 5  # pixels of the Gaussian window on either side, as scikit-image cuts it off
_CELLS = 4  # a side, of the areas whose brightness is followed
_MAX_PSNR = 100.0  # dB, of identical images


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio of two (H, W, 3) images in dB, at most 100.

    Args:
      a: Image with values from 0 to 255.
      b: Image to compare with.
    """
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean()
    if error == 0:
        return _MAX_PSNR
    return float(min(_MAX_PSNR, 10 * np.log10(255.0**2 / error)))


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the structural similarity at every pixel of two (H, W, 3) images: (H, W, 3) float64.

    As in Wang et al. 2004: Gaussian windows of 11 x 11 pixels with a standard deviation of 1.5,
    each colour channel separately. At the borders the images are mirrored about their outermost
    pixels, as by OpenCV. (scikit-image would repeat these pixels, which moves the mean over a whole
    128-pixel crop by up to 5e-5.)

    Args:
      a: Image with values from 0 to 255.
      b: Image to compare with.
    """
    margin = [(_RADIUS, _RADIUS), (_RADIUS, _RADIUS), (0, 0)]
    padded = [np.pad(x.astype(np.float64), margin, mode="reflect") for x in (a, b)]
    _, similarity = structural_similarity(
        *padded, data_range=255, channel_axis=-1, full=True,
        gaussian_weights=True, sigma=_SIGMA, use_sample_covariance=False,
    )  # fmt: skip
    return similarity[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def masked_psnr(a: np.ndarray, b: np.ndarray, mask: Box = MASK) -> float:
    """Returns `psnr` inside the mask of two (S, S, 3) crops."""
    return psnr(mask.cut(a), mask.cut(b))


def coarse(crop: np.ndarray, mask: Box = MASK) -> np.ndarray:
    """Returns the mean brightness of 4 x 4 cells of a crop's mask, (4, 4) float64."""
    cells = cv2.resize(
        mask.cut(crop).astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA
    )
    return cells.mean(-1).astype(np.float64)


def flicker_ratio(cells: np.ndarray, truth: np.ndarray, numbers: np.ndarray) -> float:
    """Compares how the brightness of large areas changes from frame to frame; above 1 it flickers.

    Args:
      cells: (N, 4, 4) output of `coarse` for a video's frames.
      truth: (N, 4, 4) the same of the original's.
      numbers: (N,) numbers of the frames. Only frames with both of their neighbours count.

    Returns:
      The mean absolute second difference over the original's; NaN if that is 0, or no frame counts.
    """
    middle = np.flatnonzero((np.diff(numbers)[1:] == 1) & (np.diff(numbers)[:-1] == 1)) + 1
    if not len(middle):
        return float("nan")
    second = (np.abs(x[middle + 1] - 2 * x[middle] + x[middle - 1]).mean() for x in (cells, truth))
    return signals.safe_ratio(*map(float, second))
