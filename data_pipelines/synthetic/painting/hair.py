"""Facial hair and hairline: eyebrows, beards and the roots of the hair on the head."""

import cv2
import numpy as np

from .appearance import Appearance
from .canvas import Canvas, catmull_rom, points_along
from .features import OUTER_LOWER, OUTER_UPPER
from .textures import mix, smooth_noise, to_linear

BROW_TOP = (70, 63, 105, 66, 107)  # From the outer to the inner end.
BROW_BOTTOM = (46, 53, 52, 65, 55)
# The hairline on the texture: distance from the middle (u) and height (v).
_HAIRLINE = np.array(
    [(0.0, 0.125), (0.08, 0.125), (0.16, 0.14), (0.23, 0.18), (0.28, 0.235), (0.335, 0.27),
     (0.37, 0.33), (0.41, 0.375), (0.50, 0.38)]
)  # fmt: skip


def paint_brows(appearance: Appearance, c: Canvas, rng: np.random.Generator, linear):
    """Paints eyebrows as single hairs.

    Args:
      appearance: Appearance of the person.
      c: Canvas of the face texture.
      rng: Generator that draws the hairs.
      linear: Linear colour of the texture, (N, N, 3).

    Returns:
      The new colour.
    """
    colour, density = to_linear(appearance.brow_colour), appearance.brow_density
    curves, strength, under = [], [], np.zeros((c.size, c.size), np.float32)
    for side in (0, 1):
        middle, half = _brow_shape(appearance, c, side)
        hairs, opacity = _draw_brow_hairs(appearance, c, rng, side, middle, half)
        curves.append(hairs)
        strength.append(opacity)
        body = np.concatenate([middle + 0.72 * half, (middle - 0.72 * half)[::-1]])
        under += c.fill(body, 0.030)
    curves, strength = np.concatenate(curves), np.concatenate(strength)
    linear = mix(linear, colour, 0.50 * density * under)
    count = len(curves) // 2
    order = rng.permutation(len(curves))
    dark = c.strokes(curves[order[:count]], strength[order[:count]], thickness=2)
    light = c.strokes(curves[order[count:]], strength[order[count:]], thickness=2)
    linear = mix(linear, colour * 1.35, 0.55 * light * density)
    return mix(linear, colour * 0.75, 0.85 * dark * density)


def _brow_shape(appearance, c, side):
    """Returns (40, 2) points along a brow from its outer end, and half its height there."""
    shares = np.linspace(0, 1, 40)
    top = points_along(catmull_rom(c.path(BROW_TOP, side)), shares)
    bottom = points_along(catmull_rom(c.path(BROW_BOTTOM, side)), shares)
    middle, half = (top + bottom) / 2, (top - bottom) / 2 * appearance.brow_thickness
    middle[:, 1] -= 0.035 * c.unit * appearance.brow_arch * np.exp(-(((shares - 0.38) / 0.22) ** 2))
    # Pointed at the outer end, blunt at the inner end.
    width = np.clip(0.30 + 2.4 * shares, 0, 1) * np.clip(0.72 + (1 - shares) * 2, 0, 1)
    return middle, half * width[:, None]


def _draw_brow_hairs(appearance, c, rng, side, middle, half):
    """Draws the hairs of one brow; the result is as in `_draw_hairs`."""
    flip = -1 + 2 * side  # The direction outwards.
    count = int(210 + 150 * appearance.brow_density * appearance.brow_thickness)
    t = rng.beta(1.15, 1.05, count)
    w = np.clip(rng.normal(0, 0.48, count), -1.05, 1.05)
    shares = np.linspace(0, 1, len(half))
    reach = np.stack([np.interp(t, shares, half[:, k]) for k in (0, 1)], 1)
    root = points_along(middle, t) + w[:, None] * reach
    ahead = points_along(middle, np.clip(t - 0.06, 0, 1))
    ahead = ahead - points_along(middle, np.clip(t + 0.02, 0, 1))
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-6
    # Hairs point up at the inner end and along the brow further out; upper hairs lean down
    # and lower ones up.
    rise = np.clip((t - 0.70) / 0.3, 0, 1) * 1.3 - 0.42 * w + rng.normal(0, 0.12, count)
    way = ahead + np.stack([0 * t, -rise], 1)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    length = rng.uniform(0.07, 0.13, count) * (1 - 0.3 * np.abs(w)) * c.unit
    s = np.linspace(0, 1, 5)[None, :, None] - 0.4
    bend = np.stack([flip * 0.18 + 0 * t, 0.20 * np.sign(rise + 1e-6)], 1)[:, None]
    curves = root[:, None] + length[:, None, None] * (way[:, None] * s + bend * s**2)
    return curves, rng.uniform(0.45, 1.0, count) * np.clip(1.15 - 0.35 * np.abs(w), 0, 1)


def _draw_hairs(c, rng, mask, spacing, length, way, wobble=0.35):
    """Draws hairs where a mask (N, N) allows them, along directions `way` (N, N, 2).

    Returns:
      (M, 4, 2) pixel positions along each hair and (M,) strengths, for `Canvas.strokes`.
    """
    count = int((c.size / spacing) ** 2)
    place = rng.uniform(0, c.size - 1, (count, 2))
    here = tuple(place.astype(int)[:, ::-1].T)
    keep = rng.random(count) < mask[here]
    place, here = place[keep], tuple(v[keep] for v in here)
    direction = way[here] + rng.normal(0, wobble, (len(place), 2))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-6
    s = np.linspace(0, 1, 4)[None, :, None]
    bend = rng.normal(0, 0.25, (len(place), 1, 2))
    size = (length * c.unit * rng.uniform(0.6, 1.2, len(place)))[:, None, None]
    curves = place[:, None] + size * (direction[:, None] * s + bend * s**2)
    return curves, np.clip(rng.uniform(0.4, 1.0, len(place)) * (0.4 + 0.6 * mask[here]), 0.12, 1)


def paint_scalp(appearance: Appearance, c: Canvas, rng: np.random.Generator, linear, gloss):
    """Paints the roots of the hair on the skull.

    Args:
      appearance, c, rng, linear: As in `paint_brows`.
      gloss: Gloss of the texture, (N, N).

    Returns:
      The new colour and gloss.
    """
    if appearance.hair_style == "bald" and rng.random() < 0.4:
        return linear, gloss
    across, down = np.abs((c.x + 0.5) / c.size - 0.5), (c.y + 0.5) / c.size
    line = np.interp(across[0], *_HAIRLINE.T)[None] - 0.05 * appearance.hairline * np.exp(
        -((across / 0.2) ** 2)
    )
    edge = 0.005 * smooth_noise(rng, c.size, 16) + 0.004 * smooth_noise(rng, c.size, 70)
    shaved = appearance.hair_style == "bald"
    mask = np.clip((line - 0.008 - down + edge) / (0.05 if shaved else 0.040), 0, 1).astype(
        np.float32
    )
    if appearance.sex == "male":  # Sideburns.
        x, y = (
            np.clip((across - 0.375) / 0.03, 0, 1),
            np.clip((0.445 - down + 2 * edge) / 0.03, 0, 1),
        )
        mask = np.maximum(mask, 0.8 * x * y * (down > 0.3))
    colour = to_linear(appearance.hair_colour)
    cover = (0.30 if shaved else 0.93) * mask
    tone = 1 + 0.25 * smooth_noise(rng, c.size, 120, 5)
    linear = mix(linear, colour[None, None] * np.clip(tone, 0.4, 1.8)[..., None] * 0.8, cover)
    if not shaved:
        fringe = np.clip(mask * 1.5, 0, 1) * (mask < 0.98)
        way = np.stack([(c.x / c.size - 0.5) * 1.2, -np.ones_like(c.x)], -1)
        curves, strength = _draw_hairs(c, rng, fringe, 2.6, 0.10, way)
        if len(curves):
            linear = mix(linear, colour * 0.8, 0.8 * c.strokes(curves, strength))
    return linear, gloss * (1 - 0.7 * cover)


def _beard_mask(kind, c, rng):
    """Returns where hair grows on the lower face, without the lips: (N, N) in [0, 1]."""
    lips = np.concatenate(
        [catmull_rom(c.path(OUTER_UPPER)), catmull_rom(c.path(OUTER_LOWER))[::-1]]
    )
    no_lips = 1 - np.clip(1.6 * c.fill(lips, 0.022), 0, 1)
    # A line runs from the ear to the corner of the mouth; hair grows below it, down to the throat.
    ends, cheeks, down = [], [], np.array([0, 0.06 * c.unit])
    for side in (0, 1):
        ear = c.path((93,), side) + np.array([(0.08 - 0.16 * side) * c.unit, 0])
        ends.append(np.concatenate([ear, down + c.path((147, 187, 207, 216), side)]))
        cheeks.append(c.path((92, 165, 167), side))
    (line_left, line_right), (lip_left, lip_right) = ends, cheeks
    throat = np.array([[0.93, 0.70], [0.80, 0.84], [0.5, 0.90], [0.2, 0.84], [0.07, 0.70]]) * c.size
    whole = np.concatenate(
        [line_left, lip_left, [c.at(164)], lip_right[::-1], line_right[::-1], throat]
    )
    whole = c.fill(whole, 0.05)
    upper = np.concatenate(
        [
            c.path((212, 186, 92, 165, 167), 0),
            [c.at(164, 2)],
            c.path((167, 165, 92, 186, 212), 1),
            [c.at(13)],
        ]
    )
    moustache = c.fill(upper, 0.025) * (1 - 0.35 * c.blob(c.at(164), 0.035, 0.12))
    chin = (
        c.blob(c.at(199, 175), 0.34, 0.30) * 1.3
        + c.pair((43, 204), 0.09, 0.26)
        + 0.5 * c.blob(c.at(18, 200), 0.12, 0.14)
    )
    bare = c.pair((204, 83), 0.10, 0.09)
    if kind == "moustache":
        mask = moustache
    elif kind == "goatee":
        mask = np.maximum(moustache * 0.9, np.clip(chin, 0, 1))
    else:
        mask = np.maximum(np.clip(whole * 1.1, 0, 1) * (1 - 0.35 * bare), moustache)
    patch = 1 + 0.22 * smooth_noise(rng, c.size, 14) + 0.15 * smooth_noise(rng, c.size, 40)
    # Ears take their colour from these two spots, which stay bare.
    ears = c.blob((0.14 * c.size, 0.53 * c.size), 0.07, 0.07) + c.blob(
        (0.86 * c.size, 0.53 * c.size), 0.07, 0.07
    )
    mask = mask * np.clip(patch, 0.3, 1.2) * (1 - np.clip(1.6 * ears, 0, 1))
    return (np.clip(mask, 0, 1) * no_lips).astype(np.float32)


def paint_beard(appearance: Appearance, c: Canvas, rng: np.random.Generator, linear, gloss):
    """Paints a beard or the shadow of a shaved one; arguments are as in `paint_scalp`."""
    if appearance.sex != "male":
        return linear, gloss
    colour = to_linear(appearance.beard_colour) * np.array([1.0, 0.92, 0.82], np.float32)
    shadow = _beard_mask("stubble", c, rng)
    if appearance.beard not in ("stubble", "full"):
        shadow = shadow * 0.45
    dots = cv2.GaussianBlur(rng.random((c.size, c.size), np.float32), (0, 0), 0.7)
    dots = np.clip(0.5 + (dots - 0.5) * 5, 0, 1)
    shade = 0.46 * shadow * (0.55 + 0.45 * dots) * (0.4 + 0.6 * appearance.beard_density)
    # The shadow is never paler than the skin.
    shaved = np.minimum(colour, 0.55 * to_linear(appearance.skin_colour))
    linear = mix(linear, shaved * 0.7 + linear * 0.3, shade)
    gloss = gloss * (1 - 0.3 * shadow)
    if appearance.beard == "none":
        return linear, gloss
    mask = _beard_mask(appearance.beard, c, rng)
    way = np.stack([(c.x / c.size - 0.5) * 1.0, np.ones_like(c.x)], -1)
    middle = c.at(164)
    lip = np.exp(-(((c.y - middle[1]) / (0.16 * c.unit)) ** 2))
    way[..., 0] += lip * np.clip((c.x - middle[0]) / (0.1 * c.unit), -2.0, 2.0)
    if appearance.beard == "stubble":
        curves, strength = _draw_hairs(c, rng, 0.8 * mask, 3.4, 0.022, way, 0.6)
        return mix(
            linear, colour, 0.55 * appearance.beard_density * c.strokes(curves, strength)
        ), gloss
    under = cv2.GaussianBlur(mask, (0, 0), 0.012 * c.unit)
    linear = mix(linear, colour * 0.6, 0.80 * under * appearance.beard_density)
    for spacing, factor, amount in ((2.4, 0.5, 0.8), (3.2, 1.35, 0.45)):
        curves, strength = _draw_hairs(c, rng, np.clip(1.2 * mask, 0, 1), spacing, 0.085, way)
        if len(curves):
            linear = mix(linear, colour * factor, amount * c.strokes(curves, strength))
    return linear, gloss * (1 - 0.6 * mask)


def paint_beard_mask(appearance: Appearance, c: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Draws where a beard has volume: (N, N) float32 in [0, 1], empty if it has none."""
    grown = appearance.grooming.beard_length or appearance.grooming.moustache_length
    if appearance.sex != "male" or not grown:
        return np.zeros((c.size, c.size), np.float32)
    return _beard_mask(appearance.beard, c, rng)
