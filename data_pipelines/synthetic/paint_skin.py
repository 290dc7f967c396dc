"""Skin: what melanin and blood make of it, its folds, and how it shines."""

import cv2
import numpy as np

from data_pipelines.synthetic import paint_features, paint_hair
from data_pipelines.synthetic.look import Look
from data_pipelines.synthetic.textures import Canvas, Textures, noise, spline, to_linear, to_srgb

# How strongly red, green and blue light is absorbed by what skin contains.
_MELANIN = np.array([0.42, 0.72, 1.0], np.float32)
_BLOOD = np.array([0.10, 0.85, 0.70], np.float32)
_SHADE = np.array([0.85, 1.05, 1.12], np.float32)  # light between folds is reddened by skin


def paint(look: Look, uv: np.ndarray, rng: np.random.Generator, size: int = 512) -> Textures:
    """Paints somebody.

    Args:
      look: what the person looks like.
      uv: (478, 2) texture coordinates of the landmarks, in [0, 1].
      rng: of all that chance decides.
      size: of the face texture, px.

    Returns:
      The textures. No light falls on them from anywhere, but folds are darkened.
    """
    canvas = Canvas(uv, size)
    linear, gloss = _skin(look, uv, rng, canvas)
    linear, gloss = paint_features.lips(look, canvas, rng, linear, gloss)
    linear = paint_features.lids(look, canvas, rng, linear)
    linear = paint_features.nostrils(canvas, linear)
    linear, gloss = paint_hair.scalp(look, canvas, rng, linear, gloss)
    linear, gloss = paint_hair.beard(look, canvas, rng, linear, gloss)
    linear = paint_hair.brows(look, canvas, rng, linear)
    return Textures(
        face=to_srgb(linear),
        gloss=np.clip(gloss, 0, 1).astype(np.float32),
        eye=paint_features.eye(look, rng),
        hair=paint_hair.strands(look, rng),
        cloth=paint_hair.cloth(look, rng),
    )


def _skin(look, uv, rng, canvas):
    size = canvas.size
    soft = Canvas(uv, size // 2)  # what is soft needs no resolution
    melanin, blood, shade, gloss = (_grow(m, size) for m in _regions(look, soft, rng))
    # Mottled at every scale, more in blood than in melanin; fine grain of pores.
    wide = 0.6 * noise(rng, size, 9) + 0.5 * noise(rng, size, 22) + 0.4 * noise(rng, size, 48)
    blood += (0.05 + 0.09 * look.blotches) * wide * (1 - 0.5 * look.tone)
    wide = 0.6 * noise(rng, size, 7) + 0.5 * noise(rng, size, 26) + 0.4 * noise(rng, size, 70)
    melanin += (0.03 + 0.045 * look.blotches) * wide
    fine = cv2.GaussianBlur(rng.standard_normal((size, size), np.float32), (0, 0), 0.9) * 3
    melanin += 0.022 * fine + 0.014 * noise(rng, size, 160)
    gloss *= 1 + 0.05 * fine + 0.08 * noise(rng, size, 60)
    melanin += _spots(look, canvas, rng)
    shade += _lines(look, canvas, rng)
    base = to_linear(look.skin_colour)
    blood *= 1 - 0.45 * look.tone
    density = melanin[..., None] * _MELANIN + blood[..., None] * _BLOOD + shade[..., None] * _SHADE
    return base * np.exp(-density), gloss * (1 - 0.45 * look.tone)


def _grow(mask, size):
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR)


def _regions(look, c, rng):
    """Melanin, blood, shade (as densities) and gloss of a face's parts."""
    blob, pair, at = c.blob, c.pair, c.at

    def wobble():
        return 1 + rng.normal(0, 0.12)

    ruddy = 0.35 + 0.65 * look.ruddy
    cheeks = pair((50, 205, 101), 0.42, 0.34, -0.3, (-0.05 * wobble(), 0))
    nose = blob(at(4, 1), 0.26, 0.20) + 0.5 * pair((129, 64), 0.13, 0.16)
    blood = ruddy * (0.34 * cheeks * wobble() + 0.30 * nose * wobble())
    blood += 0.12 * ruddy * blob(at(199, 152), 0.35, 0.2) + 0.10 * pair((145, 23), 0.25, 0.10)
    blood -= 0.09 * blob(at(151), 0.9, 0.35) + 0.06 * blob(at(0, 164), 0.5, 0.12)
    blood += 0.10 * pair((133, 155), 0.10, 0.09) + 0.08 * pair((52, 27), 0.3, 0.12)
    rouge = pair((50, 117), 0.36, 0.20, -0.5, (-0.05, 0.03))
    blood += 0.45 * look.blush * rouge * (1 + look.tone)
    blood += 0.22 * ruddy * pair((401,), 0.16, 0.3) + 0.05
    melanin = 0.10 * pair((27, 159), 0.28, 0.13) + 0.10 * blob(at(0, 164), 0.4, 0.14)
    melanin += 0.06 * blob(at(10), 1.6, 0.3) + 0.07 * pair((234, 93), 0.35, 0.9)
    melanin += (0.05 + 0.10 * look.bags) * pair((23, 230), 0.27, 0.11, 0.1, (0, 0.0))
    melanin -= 0.07 * pair((50, 118), 0.36, 0.26) + 0.05 * blob(at(9, 151), 0.45, 0.3)
    # Folds and hollows.
    shade = 0.20 * pair((193, 189), 0.10, 0.20, 0.15) + 0.13 * pair((122, 6), 0.10, 0.16)
    shade += 0.16 * pair((56, 28, 222), 0.24, 0.09, 0.1) + 0.07 * pair((30, 113), 0.2, 0.12)
    shade += 0.14 * pair((198, 236), 0.07, 0.30, 0.2) + 0.10 * pair((217, 126), 0.12, 0.22, 0.15)
    shade -= 0.09 * blob(at(195, 5), 0.075, 0.42) + 0.11 * blob(at(4, 1), 0.13, 0.10)
    shade += 0.34 * pair((98, 64), 0.055, 0.12, -0.25, (-0.05, 0.0))  # beside the wings
    shade += 0.28 * blob(at(2, 164), 0.20, 0.055) + 0.20 * pair((97, 99), 0.09, 0.05)
    shade += 0.07 * blob(at(164, 0), 0.045, 0.10) - 0.05 * pair((167, 37), 0.04, 0.10)
    shade += 0.34 * blob(at(17, 18), 0.25, 0.065) + 0.10 * blob(at(18), 0.42, 0.10)
    shade -= 0.07 * blob(at(199, 200), 0.26, 0.16)
    shade += 0.16 * pair((61, 57), 0.075, 0.09, 0.0, (-0.02, 0.02))
    shade -= 0.05 * pair((118, 50), 0.30, 0.20) + 0.04 * blob(at(151), 0.6, 0.25)
    for side in (0, 1):
        fold = spline(c.path((129, 203, 206, 216, 212), side))
        depth = 0.10 + 0.26 * look.lines
        shade += depth * c.line(fold, 0.05, 0.035) + 0.07 * c.line(fold, 0.12, 0.09)
        trough = spline(c.path((245, 233, 232, 231, 230, 229), side))
        shade += (0.10 + 0.16 * look.bags) * c.line(trough, 0.04, 0.03)
        bag = spline(c.path((112, 26, 22, 23, 24, 110), side))
        shade -= 0.10 * look.bags * c.line(bag, 0.06, 0.03)
    below = np.clip((c.y / c.size - 0.80) / 0.08, 0, 1)
    shade += 0.10 * below + 0.10 * pair((132, 58), 0.25, 0.4, 0.2)
    gloss = 0.34 + 0.34 * blob(at(4, 5), 0.13, 0.25) + 0.24 * blob(at(9, 151), 0.6, 0.35)
    gloss += 0.14 * pair((50, 118), 0.3, 0.2) + 0.2 * blob(at(199), 0.2, 0.14)
    gloss += 0.2 * pair((27, 159), 0.2, 0.08) - 0.12 * below
    return (1 + 1.3 * look.tone) * melanin, blood, shade, gloss.astype(np.float32)


def _spots(look, c, rng):
    """Freckles and moles, as melanin."""
    out = np.zeros((c.size, c.size), np.float32)
    count = int(900 * look.freckles)
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
    for _ in range(look.moles):
        place = c.at(
            *rng.choice((50, 280, 205, 425, 207, 427, 117, 346, 151, 69, 299, 32, 262, 214, 434), 2)
        )
        place = place + rng.normal(0, 0.08, 2) * c.unit
        radius = rng.uniform(0.009, 0.022)
        out += rng.uniform(0.5, 1.1) * np.minimum(
            1.6 * c.blob(place, radius, radius * rng.uniform(0.8, 1.2)), 1
        )
    return out


def _lines(look, c, rng):
    """What age draws: brow, crow's feet, corners of the mouth."""
    out = np.zeros((c.size, c.size), np.float32)
    amount = look.lines
    if amount < 0.08:
        return out
    left, right = c.at(71), c.at(301)
    broken = np.clip(0.6 + 0.5 * noise(rng, c.size, 9), 0, 1.2)
    for height in (-0.05, 0.14, 0.32):
        t = np.linspace(0.12, 0.88, 12)
        y = c.at(9)[1] - height * c.unit - 0.12 * c.unit
        bend = 0.10 * c.unit * np.sin(np.pi * t) + rng.normal(0, 0.008, 12) * c.unit
        curve = np.stack([left[0] + (right[0] - left[0]) * t, y - bend], 1)
        out += 0.22 * amount * c.line(spline(curve), 0.022, 0.014) * broken * rng.uniform(0.5, 1.2)
        out += 0.10 * amount * c.line(spline(curve), 0.07, 0.035)
    for side in (0, 1):
        flip = -1 + 2 * side
        eye = c.path((130,), side)[0]
        for angle in (-0.45, -0.1, 0.25, 0.55):
            t = np.linspace(0.06, 0.26 * rng.uniform(0.7, 1.1), 6)[:, None] * c.unit
            bend = 0.25 * t**2 / c.unit
            curve = eye + np.concatenate([flip * t * np.cos(angle), t * np.sin(angle) + bend], 1)
            out += 0.26 * amount * c.line(spline(curve), 0.014, 0.008)
        frown = spline(c.path((8, 55), side) * 0.5 + c.at(8, 9) * 0.5)
        out += 0.18 * amount * c.line(frown + c.unit * np.array([0.03 * flip, -0.03]), 0.02, 0.014)
        out += 0.24 * amount * c.line(spline(c.path((61, 43, 204, 211), side)), 0.03, 0.018)
        under = spline(c.path((233, 231, 229, 228), side))
        out += 0.16 * amount * c.line(under, 0.014, 0.008)
    return out
