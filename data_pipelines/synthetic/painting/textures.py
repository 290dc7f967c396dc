"""Colour spaces, blending and noise for painted textures."""

import cv2
import numpy as np


def to_linear(colour) -> np.ndarray:
    """Converts sRGB colours in [0, 1] to linear light."""
    return np.clip(np.asarray(colour, np.float32), 0, 1) ** 2.2


def to_srgb(linear) -> np.ndarray:
    """Converts linear light to float32 sRGB in [0, 1]."""
    return np.clip(linear, 0, 1).astype(np.float32) ** (1 / 2.2)


def mix(image: np.ndarray, colour, amount: np.ndarray) -> np.ndarray:
    """Blends a colour (3,) or an image (N, N, 3) over an image (N, N, 3) by `amount` (N, N)."""
    return image + np.clip(amount, 0, 1)[..., None] * (np.asarray(colour, np.float32) - image)


def smooth_noise(
    rng: np.random.Generator, size: int, cells: float, stretch: float = 1.0
) -> np.ndarray:
    """Draws smooth noise of about unit variance.

    Args:
      rng: Generator that draws the noise.
      size: Side of the image in pixels.
      cells: Number of noise cells across the image.
      stretch: Height of a cell over its width.

    Returns:
      (size, size) float32.
    """
    shape = max(3, round(cells / stretch)), max(3, round(cells))
    return cv2.resize(
        rng.standard_normal(shape, dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )


def tileable_noise(rng: np.random.Generator, size: int, sigma: tuple[float, float]) -> np.ndarray:
    """Draws seamlessly repeating noise of unit variance.

    Args:
      rng: Generator that draws the noise.
      size: Side of the image in pixels.
      sigma: Standard deviations of the Gaussian blur in pixels, down and across.

    Returns:
      (size, size) float32.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    spectrum *= np.exp(-2 * np.pi**2 * ((fy * sigma[0]) ** 2 + (fx * sigma[1]) ** 2))
    out = np.fft.irfft2(spectrum, (size, size))
    return (out / out.std()).astype(np.float32)
