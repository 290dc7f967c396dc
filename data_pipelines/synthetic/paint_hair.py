"""Hair on the face and the head, its strands, and cloth."""

import cv2
import numpy as np

from data_pipelines.synthetic.look import Look
from data_pipelines.synthetic.paint_features import OUTER_LOWER, OUTER_UPPER, mix
from data_pipelines.synthetic.textures import (
    Canvas,
    along,
    noise,
    spline,
    tile_noise,
    to_linear,
    to_srgb,
)

BROW_TOP = (70, 63, 105, 66, 107)  # outer to inner end
BROW_BOTTOM = (46, 53, 52, 65, 55)
# Where hair begins on the texture, as u from the middle and v.
_HAIRLINE = np.array(
    [(0.0, 0.125), (0.08, 0.125), (0.16, 0.14), (0.23, 0.18), (0.28, 0.235), (0.335, 0.27),
     (0.37, 0.33), (0.41, 0.375), (0.50, 0.38)]
)  # fmt: skip


def brows(look: Look, c: Canvas, rng: np.random.Generator, linear: np.ndarray) -> np.ndarray:
    """Eyebrows of single hairs over linear colour (N, N, 3)."""
    colour = to_linear(look.brow_colour)
    curves, strength, under = [], [], np.zeros((c.size, c.size), np.float32)
    count = int(210 + 150 * look.brow_density * look.brow_thickness)
    for side in (0, 1):
        flip = -1 + 2 * side
        top, bottom = spline(c.path(BROW_TOP, side)), spline(c.path(BROW_BOTTOM, side))
        shares = np.linspace(0, 1, 40)
        top, bottom = along(top, shares), along(bottom, shares)
        middle, half = (top + bottom) / 2, (top - bottom) / 2 * look.brow_thickness
        middle[:, 1] -= 0.035 * c.unit * look.brow_arch * np.exp(-(((shares - 0.38) / 0.22) ** 2))
        # Pointed outside, blunt inside.
        width = np.clip(0.30 + 2.4 * shares, 0, 1) * np.clip(0.72 + (1 - shares) * 2, 0, 1)
        half = half * width[:, None]
        t = rng.beta(1.15, 1.05, count)
        w = np.clip(rng.normal(0, 0.48, count), -1.05, 1.05)
        centre, reach = (
            along(middle, t),
            np.stack([np.interp(t, shares, half[:, k]) for k in (0, 1)], 1),
        )
        root = centre + w[:, None] * reach
        ahead = along(middle, np.clip(t - 0.06, 0, 1)) - along(middle, np.clip(t + 0.02, 0, 1))
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-6
        # Upwards at the inner end, along the brow outside; upper hairs lean down, lower ones up.
        rise = np.clip((t - 0.70) / 0.3, 0, 1) * 1.3 - 0.42 * w + rng.normal(0, 0.12, count)
        way = ahead + np.stack([0 * t, -rise], 1)
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        length = rng.uniform(0.07, 0.13, count) * (1 - 0.3 * np.abs(w)) * c.unit
        s = np.linspace(0, 1, 5)[None, :, None]
        bend = np.stack([flip * 0.18 + 0 * t, 0.20 * np.sign(rise + 1e-6)], 1)[:, None]
        curves.append(
            root[:, None]
            + length[:, None, None] * (way[:, None] * (s - 0.4) + bend * (s - 0.4) ** 2)
        )
        strength.append(rng.uniform(0.45, 1.0, count) * np.clip(1.15 - 0.35 * np.abs(w), 0, 1))
        body = np.concatenate([middle + 0.72 * half, (middle - 0.72 * half)[::-1]])
        under += c.fill(body, 0.030)
    curves, strength = np.concatenate(curves), np.concatenate(strength)
    linear = mix(linear, colour, 0.50 * look.brow_density * under)
    half = len(curves) // 2
    order = rng.permutation(len(curves))
    dark = c.strokes(curves[order[:half]], strength[order[:half]], 2, 2)
    light = c.strokes(curves[order[half:]], strength[order[half:]], 2, 2)
    linear = mix(linear, colour * 1.35, 0.55 * light * look.brow_density)
    return mix(linear, colour * 0.75, 0.85 * dark * look.brow_density)


def _hair_field(c, rng, mask, spacing, length, way, wobble=0.35):
    """Hairs wherever a mask (N, N) is; `way` is (N, N, 2) directions. Curves and strengths."""
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


def scalp(look: Look, c: Canvas, rng: np.random.Generator, linear, gloss):
    """Hair's roots on the skull, on linear colour (N, N, 3) and gloss (N, N)."""
    if look.hair_style == "bald" and rng.random() < 0.4:
        return linear, gloss
    across, down = np.abs((c.x + 0.5) / c.size - 0.5), (c.y + 0.5) / c.size
    line = np.interp(across[0], *_HAIRLINE.T)[None] - 0.05 * look.hairline * np.exp(
        -((across / 0.2) ** 2)
    )
    edge = 0.005 * noise(rng, c.size, 16) + 0.004 * noise(rng, c.size, 70)
    shaved = look.hair_style == "bald"
    mask = np.clip((line - 0.008 - down + edge) / (0.05 if shaved else 0.040), 0, 1).astype(
        np.float32
    )
    if look.sex == "male":  # sideburns
        x, y = (
            np.clip((across - 0.375) / 0.03, 0, 1),
            np.clip((0.445 - down + 2 * edge) / 0.03, 0, 1),
        )
        mask = np.maximum(mask, 0.8 * x * y * (down > 0.3))
    colour = to_linear(look.hair_colour)
    cover = (0.30 if shaved else 0.93) * mask
    tone = 1 + 0.25 * noise(rng, c.size, 120, 5)
    linear = mix(linear, colour[None, None] * np.clip(tone, 0.4, 1.8)[..., None] * 0.8, cover)
    if not shaved:
        fringe = np.clip(mask * 1.5, 0, 1) * (mask < 0.98)
        way = np.stack([(c.x / c.size - 0.5) * 1.2, -np.ones_like(c.x)], -1)
        curves, strength = _hair_field(c, rng, fringe, 2.6, 0.10, way)
        if len(curves):
            linear = mix(linear, colour * 0.8, 0.8 * c.strokes(curves, strength))
    return linear, gloss * (1 - 0.7 * cover)


def _beard_mask(kind, c, rng):
    """Where hair grows on the lower face, (N, N) in [0, 1], and the lips left out."""
    lips = np.concatenate([spline(c.path(OUTER_UPPER)), spline(c.path(OUTER_LOWER))[::-1]])
    no_lips = 1 - np.clip(1.6 * c.fill(lips, 0.022), 0, 1)
    # The cheek's line from the ear to the mouth's corner; below it everything down to the throat.
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
    patch = 1 + 0.22 * noise(rng, c.size, 14) + 0.15 * noise(rng, c.size, 40)
    # The ears take their colour from these two spots.
    ears = c.blob((0.14 * c.size, 0.53 * c.size), 0.07, 0.07) + c.blob(
        (0.86 * c.size, 0.53 * c.size), 0.07, 0.07
    )
    mask = mask * np.clip(patch, 0.3, 1.2) * (1 - np.clip(1.6 * ears, 0, 1))
    return (np.clip(mask, 0, 1) * no_lips).astype(np.float32)


def beard(look: Look, c: Canvas, rng: np.random.Generator, linear, gloss):
    """Beard or its shadow, on linear colour (N, N, 3) and gloss (N, N)."""
    if look.sex != "male":
        return linear, gloss
    colour = to_linear(look.beard_colour) * np.array([1.0, 0.92, 0.82], np.float32)
    shadow = _beard_mask("stubble", c, rng)
    if look.beard not in ("stubble", "full"):
        shadow = shadow * 0.45
    dots = cv2.GaussianBlur(rng.random((c.size, c.size), np.float32), (0, 0), 0.7)
    dots = np.clip(0.5 + (dots - 0.5) * 5, 0, 1)
    shade = 0.46 * shadow * (0.55 + 0.45 * dots) * (0.4 + 0.6 * look.beard_density)
    shaved = np.minimum(colour, 0.55 * to_linear(look.skin_colour))  # never paler than the skin
    linear = mix(linear, shaved * 0.7 + linear * 0.3, shade)
    gloss = gloss * (1 - 0.3 * shadow)
    if look.beard == "none":
        return linear, gloss
    mask = _beard_mask(look.beard, c, rng)
    way = np.stack([(c.x / c.size - 0.5) * 1.0, np.ones_like(c.x)], -1)
    middle = c.at(164)
    lip = np.exp(-(((c.y - middle[1]) / (0.16 * c.unit)) ** 2))
    way[..., 0] += lip * np.clip((c.x - middle[0]) / (0.1 * c.unit), -2.0, 2.0)
    if look.beard == "stubble":
        curves, strength = _hair_field(c, rng, 0.8 * mask, 3.4, 0.022, way, 0.6)
        return mix(linear, colour, 0.55 * look.beard_density * c.strokes(curves, strength)), gloss
    under = cv2.GaussianBlur(mask, (0, 0), 0.012 * c.unit)
    linear = mix(linear, colour * 0.6, 0.80 * under * look.beard_density)
    for spacing, factor, amount in ((2.4, 0.5, 0.8), (3.2, 1.35, 0.45)):
        curves, strength = _hair_field(c, rng, np.clip(1.2 * mask, 0, 1), spacing, 0.085, way)
        if len(curves):
            linear = mix(linear, colour * factor, amount * c.strokes(curves, strength))
    return linear, gloss * (1 - 0.6 * mask)


def strands(look: Look, rng: np.random.Generator, size: int = 128) -> np.ndarray:
    """(size, size, 3) float32 sRGB hair that repeats seamlessly; strands run downwards."""
    curl = 2.2 if look.hair_style == "curly" else 1.0
    long = size * 0.22 / curl
    fine = tile_noise(rng, size, (long, 0.9)) + 0.8 * tile_noise(rng, size, (long, 2.2))
    clumps = tile_noise(rng, size, (long, 5.0))
    sheen = tile_noise(rng, size, (size * 0.08, size * 0.12))
    value = 0.20 * fine + 0.09 * clumps + 0.05 * sheen
    colour = to_linear(look.hair_colour)
    tone = np.exp((value * (0.8 + 0.8 * look.streaks))[..., None])
    tint = (
        tile_noise(rng, size, (long, 1.5))[..., None]
        * 0.07
        * look.streaks
        * np.array([0.3, 0.0, -0.6])
    )
    return to_srgb(np.clip(colour * tone * np.exp(tint) + 0.004, 0, 1))


def cloth(look: Look, rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """(size, size, 3) float32 sRGB cloth that repeats seamlessly."""
    colour, second = to_linear(look.shirt_colour), to_linear(look.shirt_second)
    y, x = np.mgrid[:size, :size] / size
    if look.shirt_pattern == "stripes":
        count = int(rng.integers(10, 24))
        amount = np.clip(
            np.sin(2 * np.pi * count * (y if rng.random() < 0.6 else x)) * 4
            + 0.5
            - rng.uniform(0, 2),
            0,
            1,
        )
    elif look.shirt_pattern == "check":
        count = int(rng.integers(8, 14))
        a, b = (np.clip(np.sin(2 * np.pi * count * v) * 4 + 0.5, 0, 1) for v in (x, y))
        amount = 0.4 * (a + b)
    else:
        amount = np.zeros((size, size))
    image = colour + amount[..., None] * (second - colour) * 0.85
    weave = 0.05 * tile_noise(rng, size, (0.8, 0.8)) + 0.05 * tile_noise(rng, size, (9, 9))
    folds = 0.06 * tile_noise(rng, size, (34, 14)) + 0.04 * tile_noise(rng, size, (16, 30))
    if look.shirt_pattern == "knit":
        weave = weave + 0.16 * np.sin(2 * np.pi * 64 * x) * (
            0.6 + 0.4 * np.sin(2 * np.pi * (48 * y + 0.5))
        )
    return to_srgb(np.clip(image * np.exp(weave + folds)[..., None], 0, 1))
