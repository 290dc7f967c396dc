"""The teeth's texture."""

import cv2
import numpy as np

from ..geometry.mouth import ARCH_REACH

_WIDTH, _HEIGHT = 320, 64  # Of one row of teeth, in texels.
# Widths from the middle outwards: incisors, canine, premolars, molar.
_UPPER = (0.082, 0.066, 0.072, 0.066, 0.064, 0.09)
_LOWER = (0.052, 0.058, 0.066, 0.066, 0.066, 0.10)


def paint_teeth(rng: np.random.Generator) -> np.ndarray:
    """Paints both rows, upper above lower: (2 * 64, 320, 4) float32 sRGB colour and gloss."""
    shade = rng.uniform(0.74, 0.9) * np.array([1.0, 0.955, rng.uniform(0.80, 0.90)])
    gum = np.array([0.62, 0.30, 0.29]) * rng.uniform(0.8, 1.1)
    return np.concatenate(
        [_paint_row(_UPPER, shade, gum, rng), _paint_row(_LOWER, shade * 0.94, gum, rng)[::-1]]
    ).astype(np.float32)


def _paint_row(widths, shade, gum, rng):
    """Paints one row of teeth, which hang from the top of the image."""
    big = 4
    h, w = _HEIGHT * big, _WIDTH * big
    y, x = np.mgrid[:h, :w].astype(np.float32)
    v = (y + 0.5) / h
    s = ((x + 0.5) / w - 0.5) * 2 * ARCH_REACH
    image = np.zeros((h, w, 3), np.float32) + gum * 0.55
    gloss = np.full((h, w), 0.15, np.float32)
    for side in (-1, 1):
        start = 0.0
        for i, width in enumerate(widths):
            u = (side * s - start) / width
            start += width
            tone = 1 - 0.045 * i + rng.normal(0, 0.012)
            length = 0.97 - (0.05, 0.09, 0.04, 0.10, 0.12, 0.14)[i] + rng.normal(0, 0.008)
            across = np.abs(2 * u - 1)
            bottom = length - 0.05 * across**4
            top = 0.26 + 0.10 * across**2 - 0.03 * (i == 2)
            inside = np.clip((0.985 - across) * 14, 0, 1)
            inside = inside * np.clip((bottom - v) * 26, 0, 1) * np.clip((v - top) * 22, 0, 1)
            form = 1 - 0.20 * across**3 - 0.10 * np.clip((0.5 - v) / 0.4, 0, 1)
            tint = 1 - np.clip((0.55 - v), 0, 1)[..., None] * np.array([0.0, 0.03, 0.12])
            tooth = shade * tone * form[..., None] * tint
            image += inside[..., None] * (tooth - image)
            gloss += inside * (0.9 - gloss)
    pink = np.clip((0.30 - v) / 0.08, 0, 1)[..., None]
    image += pink * (gum * (0.75 + 0.25 * v[..., None]) - image) * (gloss < 0.5)[..., None]
    out = np.dstack([image, gloss])
    return cv2.resize(out, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
