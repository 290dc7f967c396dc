"""PSNR and SSIM of the mouth: of crops, inside of the mask alone.

Whole frames would flatter every method that leaves most of a frame untouched.
"""

import cv2
import numpy as np

from talkjax.conventions import MASK, Box

_WINDOW, _SIGMA = 11, 1.5  # of Wang et al. 2004
_K1, _K2 = 0.01, 0.03
_BEST = 100.0  # dB, of equal pictures


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two (H, W, 3) pictures, 0 to 255, in dB; at most 100."""
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean()
    if error == 0:
        return _BEST
    return float(min(_BEST, 10 * np.log10(255.0**2 / error)))


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of every pixel (Wang et al. 2004): (H, W, 3) pictures to (H, W, 3).

    Gaussian windows of 11 pixels, deviation 1.5; each colour by itself.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)

    def local(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (_WINDOW, _WINDOW), _SIGMA, borderType=cv2.BORDER_REFLECT_101)

    mean_a, mean_b = local(a), local(b)
    var_a, var_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    c1, c2 = (_K1 * 255) ** 2, (_K2 * 255) ** 2
    return ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )


def masked_psnr(a: np.ndarray, b: np.ndarray, mask: Box = MASK) -> float:
    """`psnr` of two (S, S, 3) crops inside of the mask."""
    return psnr(mask.cut(a), mask.cut(b))
