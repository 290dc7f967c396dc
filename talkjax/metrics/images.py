"""PSNR and SSIM of mouth crops.

Scores of whole frames would flatter every method, because all methods leave most of a frame as it
was.
"""

import numpy as np
from skimage.metrics import structural_similarity

from talkjax.conventions import MASK, Box

_SIGMA = 1.5  # pixels (Wang et al. 2004)
_RADIUS = 5  # pixels of the Gaussian window on either side, as scikit-image cuts it off
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
