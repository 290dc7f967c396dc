"""Skin: its colour by melanin and blood, folds, spots, lines and gloss."""

import cv2
import numpy as np

from .appearance import Appearance
from .canvas import Canvas, catmull_rom
from .textures import smooth_noise, tileable_noise, to_linear

# Relative absorption of red, green and blue light.
_MELANIN = np.array([0.42, 0.72, 1.0], np.float32)
_BLOOD = np.array([0.10, 0.85, 0.70], np.float32)
_SHADE = np.array([0.85, 1.05, 1.12], np.float32)  # In folds, where skin reddens the light.


def paint_skin(
    appearance: Appearance, uv: np.ndarray, rng: np.random.Generator, canvas: Canvas
) -> tuple[np.ndarray, np.ndarray]:
    """Paints bare skin.

    Args:
      appearance: Appearance of the person.
      uv: Texture coordinates of the landmarks, (478, 2).
      rng: Generator that draws the details.
      canvas: Canvas of the face texture.

    Returns:
      (N, N, 3) linear colour and (N, N) gloss.
    """
    size = canvas.size
    soft = Canvas(uv, size // 2)  # Smooth regions need half the resolution.
    melanin, blood, shade, gloss = (
        _enlarge(m, size) for m in _region_densities(appearance, soft, rng)
    )
    # Mottling at every scale, more in blood than in melanin, and a fine grain of pores.
    wide = (
        0.6 * smooth_noise(rng, size, 9)
        + 0.5 * smooth_noise(rng, size, 22)
        + 0.4 * smooth_noise(rng, size, 48)
    )
    blood += (0.05 + 0.09 * appearance.blotches) * wide * (1 - 0.5 * appearance.tone)
    wide = (
        0.6 * smooth_noise(rng, size, 7)
        + 0.5 * smooth_noise(rng, size, 26)
        + 0.4 * smooth_noise(rng, size, 70)
    )
    melanin += (0.03 + 0.045 * appearance.blotches) * wide
    fine = cv2.GaussianBlur(rng.standard_normal((size, size), np.float32), (0, 0), 0.9) * 3
    melanin += 0.022 * fine + 0.014 * smooth_noise(rng, size, 160)
    gloss *= 1 + 0.05 * fine + 0.08 * smooth_noise(rng, size, 60)
    melanin += _paint_spots(appearance, canvas, rng)
    shade += _paint_wrinkles(appearance, canvas, rng)
    base = to_linear(appearance.skin_colour)
    blood *= 1 - 0.45 * appearance.tone
    density = melanin[..., None] * _MELANIN + blood[..., None] * _BLOOD + shade[..., None] * _SHADE
    return base * np.exp(-density), gloss * (1 - 0.45 * appearance.tone)


def _enlarge(mask, size):
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR)


def _region_densities(appearance, c, rng):
    """Returns the densities of melanin, blood and shade, and the gloss, by regions of the face."""
    blob, pair, at = c.blob, c.pair, c.at

    def wobble():
        return 1 + rng.normal(0, 0.12)

    ruddy = 0.35 + 0.65 * appearance.ruddy
    cheeks = pair((50, 205, 101), 0.42, 0.34, -0.3, (-0.05 * wobble(), 0))
    nose = blob(at(4, 1), 0.26, 0.20) + 0.5 * pair((129, 64), 0.13, 0.16)
    blood = ruddy * (0.34 * cheeks * wobble() + 0.30 * nose * wobble())
    blood += 0.12 * ruddy * blob(at(199, 152), 0.35, 0.2) + 0.10 * pair((145, 23), 0.25, 0.10)
    blood -= 0.09 * blob(at(151), 0.9, 0.35) + 0.06 * blob(at(0, 164), 0.5, 0.12)
    blood += 0.10 * pair((133, 155), 0.10, 0.09) + 0.08 * pair((52, 27), 0.3, 0.12)
    rouge = pair((50, 117), 0.36, 0.20, -0.5, (-0.05, 0.03))
    blood += 0.45 * appearance.blush * rouge * (1 + appearance.tone)
    blood += 0.22 * ruddy * pair((401,), 0.16, 0.3) + 0.05
    melanin = 0.10 * pair((27, 159), 0.28, 0.13) + 0.10 * blob(at(0, 164), 0.4, 0.14)
    melanin += 0.06 * blob(at(10), 1.6, 0.3) + 0.07 * pair((234, 93), 0.35, 0.9)
    melanin += (0.05 + 0.10 * appearance.bags) * pair((23, 230), 0.27, 0.11, 0.1, (0, 0.0))
    melanin -= 0.07 * pair((50, 118), 0.36, 0.26) + 0.05 * blob(at(9, 151), 0.45, 0.3)
    # Folds and hollows.
    shade = 0.20 * pair((193, 189), 0.10, 0.20, 0.15) + 0.13 * pair((122, 6), 0.10, 0.16)
    shade += 0.16 * pair((56, 28, 222), 0.24, 0.09, 0.1) + 0.07 * pair((30, 113), 0.2, 0.12)
    shade += 0.14 * pair((198, 236), 0.07, 0.30, 0.2) + 0.10 * pair((217, 126), 0.12, 0.22, 0.15)
    shade -= 0.09 * blob(at(195, 5), 0.075, 0.42) + 0.11 * blob(at(4, 1), 0.13, 0.10)
    shade += 0.34 * pair((98, 64), 0.055, 0.12, -0.25, (-0.05, 0.0))  # Beside the nose's wings.
    shade += 0.28 * blob(at(2, 164), 0.20, 0.055) + 0.20 * pair((97, 99), 0.09, 0.05)
    shade += 0.07 * blob(at(164, 0), 0.045, 0.10) - 0.05 * pair((167, 37), 0.04, 0.10)
    shade += 0.34 * blob(at(17, 18), 0.25, 0.065) + 0.10 * blob(at(18), 0.42, 0.10)
    shade -= 0.07 * blob(at(199, 200), 0.26, 0.16)
    shade += 0.16 * pair((61, 57), 0.075, 0.09, 0.0, (-0.02, 0.02))
    shade -= 0.05 * pair((118, 50), 0.30, 0.20) + 0.04 * blob(at(151), 0.6, 0.25)
    for side in (0, 1):
        fold = catmull_rom(c.path((129, 203, 206, 216, 212), side))
        depth = 0.10 + 0.26 * appearance.lines
        shade += depth * c.line(fold, 0.05, 0.035) + 0.07 * c.line(fold, 0.12, 0.09)
        trough = catmull_rom(c.path((245, 233, 232, 231, 230, 229), side))
        shade += (0.10 + 0.16 * appearance.bags) * c.line(trough, 0.04, 0.03)
        bag = catmull_rom(c.path((112, 26, 22, 23, 24, 110), side))
        shade -= 0.10 * appearance.bags * c.line(bag, 0.06, 0.03)
    below = np.clip((c.y / c.size - 0.80) / 0.08, 0, 1)
    shade += 0.10 * below + 0.10 * pair((132, 58), 0.25, 0.4, 0.2)
    gloss = 0.34 + 0.34 * blob(at(4, 5), 0.13, 0.25) + 0.24 * blob(at(9, 151), 0.6, 0.35)
    gloss += 0.14 * pair((50, 118), 0.3, 0.2) + 0.2 * blob(at(199), 0.2, 0.14)
    gloss += 0.2 * pair((27, 159), 0.2, 0.08) - 0.12 * below
    return (1 + 1.3 * appearance.tone) * melanin, blood, shade, gloss.astype(np.float32)


def _paint_spots(appearance, c, rng):
    """Returns the melanin of freckles and moles, (N, N)."""
    out = np.zeros((c.size, c.size), np.float32)
    count = int(900 * appearance.freckles)
    if count:
        side = rng.integers(0, 2, count)
        centre = np.where(side[:, None] == 0, c.at(50, 101), c.at(280, 330))
        nose = rng.random(count) < 0.25
        centre[nose] = c.at(5, 4)
        spread = np.where(rng.random(count) < 0.25, 0.75, 0.30)[:, None] * c.unit
        place = centre + rng.standard_normal((count, 2)) * spread * (1, 0.75)
        strength = rng.uniform(0.3, 1.0, count)
        for size, amount in ((1, 2.0), (2, 3.0)):
            layer = np.zeros_like(out)
            chosen = rng.random(count) < (0.7 if size == 1 else 0.4)
            x, y = np.clip(np.round(place[chosen]).astype(int), 0, c.size - 1).T
            np.maximum.at(layer, (y, x), strength[chosen])
            out += amount * cv2.GaussianBlur(layer, (0, 0), 0.8 * size * c.size / 512)
    for _ in range(appearance.moles):
        place = c.at(
            *rng.choice((50, 280, 205, 425, 207, 427, 117, 346, 151, 69, 299, 32, 262, 214, 434), 2)
        )
        place = place + rng.normal(0, 0.08, 2) * c.unit
        radius = rng.uniform(0.009, 0.022)
        out += rng.uniform(0.5, 1.1) * np.minimum(
            1.6 * c.blob(place, radius, radius * rng.uniform(0.8, 1.2)), 1
        )
    return out


def _paint_wrinkles(appearance, c, rng):
    """Returns the shade of wrinkles at the forehead, the eyes and the mouth, (N, N)."""
    out = np.zeros((c.size, c.size), np.float32)
    amount = appearance.lines
    if amount < 0.08:
        return out
    left, right = c.at(71), c.at(301)
    broken = np.clip(0.6 + 0.5 * smooth_noise(rng, c.size, 9), 0, 1.2)
    for height in (-0.05, 0.14, 0.32):
        t = np.linspace(0.12, 0.88, 12)
        y = c.at(9)[1] - height * c.unit - 0.12 * c.unit
        bend = 0.10 * c.unit * np.sin(np.pi * t) + rng.normal(0, 0.008, 12) * c.unit
        curve = np.stack([left[0] + (right[0] - left[0]) * t, y - bend], 1)
        out += (
            0.22
            * amount
            * c.line(catmull_rom(curve), 0.022, 0.014)
            * broken
            * rng.uniform(0.5, 1.2)
        )
        out += 0.10 * amount * c.line(catmull_rom(curve), 0.07, 0.035)
    for side in (0, 1):
        flip = -1 + 2 * side
        eye = c.path((130,), side)[0]
        for angle in (-0.45, -0.1, 0.25, 0.55):
            t = np.linspace(0.06, 0.26 * rng.uniform(0.7, 1.1), 6)[:, None] * c.unit
            bend = 0.25 * t**2 / c.unit
            curve = eye + np.concatenate([flip * t * np.cos(angle), t * np.sin(angle) + bend], 1)
            out += 0.26 * amount * c.line(catmull_rom(curve), 0.014, 0.008)
        frown = catmull_rom(c.path((8, 55), side) * 0.5 + c.at(8, 9) * 0.5)
        out += 0.18 * amount * c.line(frown + c.unit * np.array([0.03 * flip, -0.03]), 0.02, 0.014)
        out += 0.24 * amount * c.line(catmull_rom(c.path((61, 43, 204, 211), side)), 0.03, 0.018)
        under = catmull_rom(c.path((233, 231, 229, 228), side))
        out += 0.16 * amount * c.line(under, 0.014, 0.008)
    return out


def paint_neck(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paints the neck in the smoothed colour of a face texture below the chin.

    Args:
      face: Face texture, (N, N, 3).
      rng: Generator that draws the mottling.

    Returns:
      (96, 96, 3) float32 sRGB, over the same azimuth as the face texture.
    """
    size = len(face)
    rows = []
    for low, high, blur in ((0.875, 0.895, 1.5), (0.86, 0.95, 5)):
        row = np.median(face[round(low * size) : round(high * size)], 0, keepdims=True)
        row = cv2.resize(row.astype(np.float32), (96, 1), interpolation=cv2.INTER_AREA)
        rows.append(cv2.GaussianBlur(np.repeat(row, 96, 0), (0, 0), blur))
    # The top continues the lower edge of the face texture.
    share = np.clip(np.linspace(0, 3, 96), 0, 1)[:, None, None]
    across = rows[0] + share * share * (3 - 2 * share) * (rows[1] - rows[0])
    mottle = 0.018 * tileable_noise(rng, 96, (5, 5)) + 0.010 * tileable_noise(rng, 96, (1.5, 1.5))
    return np.clip(across * (1 + mottle[..., None] * (0.7, 1.0, 1.1)), 0, 1).astype(np.float32)
