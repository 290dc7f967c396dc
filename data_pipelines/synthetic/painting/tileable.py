"""Tileable textures: hair, its tips, and cloth."""

import numpy as np

from .appearance import Appearance
from .textures import tileable_noise, to_linear, to_srgb


def paint_strands(appearance: Appearance, rng: np.random.Generator, size: int = 128):
    """Paints tileable hair whose strands run downwards: (size, size, 3) float32 sRGB."""
    curl = 2.2 if appearance.hair_style == "curly" else 1.0
    long = size * 0.22 / curl
    fine = tileable_noise(rng, size, (long, 0.9)) + 0.8 * tileable_noise(rng, size, (long, 2.2))
    clumps = tileable_noise(rng, size, (long, 5.0))
    sheen = tileable_noise(rng, size, (size * 0.08, size * 0.12))
    value = 0.20 * fine + 0.09 * clumps + 0.05 * sheen
    colour = to_linear(appearance.hair_colour)
    tone = np.exp((value * (0.8 + 0.8 * appearance.streaks))[..., None])
    tint = (
        tileable_noise(rng, size, (long, 1.5))[..., None]
        * 0.07
        * appearance.streaks
        * np.array([0.3, 0.0, -0.6])
    )
    return to_srgb(np.clip(colour * tone * np.exp(tint) + 0.004, 0, 1))


def paint_cloth(appearance: Appearance, rng: np.random.Generator, size: int = 256):
    """Paints the tileable cloth of a shirt: (size, size, 3) float32 sRGB."""
    return paint_fabric(
        appearance.shirt_colour, appearance.shirt_second, appearance.shirt_pattern, rng, size
    )


def paint_fabric(colour, second, fabric: str, rng: np.random.Generator, size: int = 256):
    """Paints a tileable fabric.

    Args:
      colour, second: Its colours in sRGB, (3,).
      fabric: One of `outfit.FABRICS`.
      rng: Generator that draws the details.
      size: Side of the texture in pixels.

    Returns:
      (size, size, 3) float32 sRGB in [0, 1].
    """
    colour, second = to_linear(colour), to_linear(second)
    y, x = np.mgrid[:size, :size] / size
    amount = _paint_pattern(fabric, x, y, rng)
    image = colour + amount[..., None] * (second - colour) * 0.85
    weave = 0.05 * tileable_noise(rng, size, (0.8, 0.8)) + 0.05 * tileable_noise(rng, size, (9, 9))
    folds = 0.06 * tileable_noise(rng, size, (34, 14)) + 0.04 * tileable_noise(rng, size, (16, 30))
    if fabric == "knit":
        weave = weave + 0.16 * np.sin(2 * np.pi * 64 * x) * (
            0.6 + 0.4 * np.sin(2 * np.pi * (48 * y + 0.5))
        )
    elif fabric == "rib":
        ribs = np.sin(2 * np.pi * int(rng.integers(14, 30)) * x)
        stitches = np.sin(2 * np.pi * 40 * y)
        weave = weave + rng.uniform(0.15, 0.5) * ribs * (0.8 + 0.2 * stitches)
    return to_srgb(np.clip(image * np.exp(weave + folds)[..., None], 0, 1))


def _paint_pattern(fabric, x, y, rng):
    """Draws how much of the second colour there is: (N, N) in [0, 1]."""
    if fabric == "stripes":
        count = int(rng.integers(10, 24))
        along = y if rng.random() < 0.6 else x
        return np.clip(np.sin(2 * np.pi * count * along) * 4 + 0.5 - rng.uniform(0, 2), 0, 1)
    if fabric == "check":
        count = int(rng.integers(8, 14))
        a, b = (np.clip(np.sin(2 * np.pi * count * v) * 4 + 0.5, 0, 1) for v in (x, y))
        return 0.4 * (a + b)
    if fabric == "diagonal":
        count = int(rng.integers(8, 24))
        return np.clip(np.sin(2 * np.pi * count * (x + y)) * 4 + 0.5 - rng.uniform(0, 2), 0, 1)
    if fabric == "dots":
        count = int(rng.integers(10, 26))
        dots = np.sin(2 * np.pi * count * x) * np.sin(2 * np.pi * count * y)
        return np.clip((dots - rng.uniform(0.3, 0.7)) * 6, 0, 1)
    return np.zeros_like(x)


def paint_tips(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draws the opacity below which a texel of tileable hair is a hole.

    Strands end at different distances from the edge of the hair, where opacity falls to 0.

    Returns:
      (H, W) float32 in (0, 1), uniformly distributed.
    """
    clump = _smooth(rng.normal(size=shape[1]), 3.0)
    fine = _smooth(rng.normal(size=shape), 0.7, axis=1)
    fine = _smooth(fine, 6.0, axis=0)
    total = 0.6 * clump[None] + fine / fine.std()
    order = np.argsort(np.argsort(total.ravel())).reshape(shape)
    return (0.02 + 0.96 * order / order.size).astype(np.float32)


def _smooth(values, sigma, axis=-1):
    """Filters periodically by a Gaussian; a vector is scaled to unit variance."""
    frequency = np.fft.fftfreq(values.shape[axis])
    gain = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
    gain = gain if axis in (-1, values.ndim - 1) else gain[:, None]
    out = np.fft.ifft(np.fft.fft(values, axis=axis) * gain, axis=axis).real
    return out / out.std() if values.ndim == 1 else out
