"""Facial features: lips, eyelids, nostrils and eyeballs."""

import cv2
import numpy as np

from ..geometry.face_model import (
    CORNERS,
    LOWER_LIDS,
    LOWER_ROWS,
    LOWER_SEAM,
    UPPER_LIDS,
    UPPER_ROWS,
    UPPER_SEAM,
)
from .appearance import Appearance
from .canvas import Canvas, catmull_rom, points_along
from .textures import mix, smooth_noise, to_linear, to_srgb

OUTER_UPPER, OUTER_LOWER = UPPER_ROWS[0], LOWER_ROWS[0]
_INNER_UPPER = (CORNERS[0], *UPPER_SEAM, CORNERS[1])
_INNER_LOWER = (CORNERS[0], *LOWER_SEAM, CORNERS[1])
_UPPER_LID, _LOWER_LID = UPPER_LIDS[0], LOWER_LIDS[0]
_CREASE = (130, 247, 30, 29, 27, 28, 56, 190)


def paint_lips(appearance: Appearance, c: Canvas, rng: np.random.Generator, linear, gloss):
    """Paints the lips.

    Args:
      appearance: Appearance of the person.
      c: Canvas of the face texture.
      rng: Generator that draws the details.
      linear: Linear colour of the texture, (N, N, 3).
      gloss: Gloss of the texture, (N, N).

    Returns:
      The new colour and gloss.
    """
    upper, lower = catmull_rom(c.path(OUTER_UPPER)), catmull_rom(c.path(OUTER_LOWER))
    seam = (catmull_rom(c.path(_INNER_UPPER)) + catmull_rom(c.path(_INNER_LOWER))) / 2
    outline = np.concatenate([upper, lower[::-1]])
    solid = c.fill(outline)
    red = cv2.GaussianBlur(solid, (0, 0), 0.010 * c.unit)
    made_up, tone = appearance.lipstick_amount, appearance.tone
    # The edge of unpainted lips is soft, and the skin above it catches a little light.
    soft = red if made_up > 0.5 else 0.6 * red + 0.4 * c.fill(outline, 0.022)
    ridge = c.line(upper[8:-8], 0.03, 0.012) * (1 - solid)
    linear = linear * (1 + 0.10 * (1 - 0.5 * tone) * ridge[..., None])
    # Relative distance above and below the seam, from 0 at the seam to 1 at the outline.
    line_y, top, bottom = (
        np.interp(c.x[0], curve[:, 0], curve[:, 1]).astype(np.float32)[None]
        for curve in (seam, upper, lower)
    )
    above = np.clip((line_y - c.y) / np.maximum(line_y - top, 1), 0, 1)
    below = np.clip((c.y - line_y) / np.maximum(bottom - line_y, 1), 0, 1)
    is_upper = (c.y < line_y).astype(np.float32)
    creases = _lip_creases(c, rng, np.maximum(above, below))
    density = 0.055 * creases * (1 - 0.4 * made_up) * (0.5 + 0.5 * np.maximum(above, below))
    density += 0.05 * smooth_noise(rng, c.size, 40) + 0.03 * smooth_noise(rng, c.size, 110)
    density += is_upper * (0.20 + 0.12 * (1 - above))  # The upper lip faces the floor.
    density += (1 - is_upper) * (
        0.20 * (1 - below) ** 3 - 0.16 * np.exp(-(((below - 0.5) / 0.3) ** 2))
    )
    side = np.abs(c.x - c.at(13)[0]) / (0.5 * (upper[-1, 0] - upper[0, 0]))
    density += 0.20 * np.clip(side - 0.5, 0, 0.6) + 0.12 * np.exp(-((below - 1) ** 2) / 0.02) * (
        1 - is_upper
    )
    colour = to_linear(appearance.lip_colour)
    colour = colour + made_up * (to_linear(appearance.lipstick) - colour)
    paint = colour * np.exp(-density[..., None] * np.array([0.8, 1.05, 1.05], np.float32))
    pink = to_linear(np.array((0.74, 0.42, 0.41)) * (1 - 0.35 * tone))
    wet_rim = (1 - is_upper) * np.exp(-((below / 0.45) ** 2)) * (1 - made_up)
    paint = mix(paint, pink, wet_rim * (0.15 + 0.45 * tone))
    linear = mix(linear, paint, soft * (0.86 + 0.1 * made_up))
    linear = _darken_seam(c, seam, linear)
    wet = 0.40 + 0.30 * np.exp(-(((below - 0.45) / 0.3) ** 2)) * (1 - is_upper) + 0.05 * creases
    wet = wet * (0.75 + 0.45 * made_up) * (1 - 0.35 * tone)
    return linear, gloss + red * (wet - gloss)


def _lip_creases(c, rng, distance):
    """Draws creases (N, N) that fan out with the distance (N, N) from the seam."""
    middle = np.float32(c.at(13)[0])
    fan = (middle + (c.x - middle) / (1 + 0.25 * distance)).astype(np.float32)
    grooves = cv2.GaussianBlur(rng.standard_normal((1, c.size), np.float32), (0, 0), 1.1) * 2.2
    grooves = grooves + smooth_noise(rng, c.size, 90, 3)[:1] * 0.6
    creases = cv2.remap(
        np.repeat(grooves, 3, 0).astype(np.float32),
        fan,
        np.ones_like(fan),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return creases * (0.5 + 0.5 * np.clip(smooth_noise(rng, c.size, 40), -1, 1))


def _darken_seam(c, seam, linear):
    dark = np.array([0.55, 1.0, 1.0], np.float32)
    corner = c.blob(seam[0], 0.05, 0.035) + c.blob(seam[-1], 0.05, 0.035)
    density = 1.25 * c.line(seam, 0.030, 0.008, taper=False) + 0.5 * c.line(seam, 0.06, 0.02)
    density += 0.45 * corner
    return linear * np.exp(-density[..., None] * dark)


def paint_lids(appearance: Appearance, c: Canvas, rng: np.random.Generator, linear):
    """Paints lashes, creases and make-up of the eyelids; arguments are as in `paint_lips`."""
    lash = np.array([0.02, 0.015, 0.012], np.float32)
    if max(appearance.hair_colour) > 0.45 and appearance.eye_liner == 0:
        lash = lash * 2.5
    curves, strengths = [], []
    for side in (0, 1):
        up, low = catmull_rom(c.path(_UPPER_LID, side)), catmull_rom(c.path(_LOWER_LID, side))
        linear = _paint_lid_skin(appearance, c, side, up, low, linear)
        linear = _paint_lash_line(appearance, c, rng, up, low, linear, lash)
        for curve, strength in _draw_lashes(appearance, c, rng, side, up, low):
            curves.append(curve)
            strengths.append(np.full(len(curve), strength))
    mask = c.strokes(np.concatenate(curves), np.concatenate(strengths))
    return mix(linear, lash, 0.9 * mask)


def _paint_lid_skin(appearance, c, side, up, low, linear):
    """Paints eye shadow, the creases of the lids and the skin behind the opening of one eye."""
    crease = catmull_rom(c.path(_CREASE, side))
    shares = np.linspace(0, 1, 40)
    upper = points_along(crease, np.linspace(0.1, 1, 40))
    inner = 0.42 * upper + 0.58 * points_along(up, np.linspace(0.06, 0.98, 40))
    middle = points_along(crease, np.linspace(0.03, 0.97, 40))
    fold = middle * 0.72 + points_along(up, shares) * 0.28
    shadow, amount = to_linear(appearance.eye_shadow), appearance.eye_shadow_amount
    lid = c.fill(np.concatenate([up, fold[::-1]]), 0.02)
    linear = mix(linear, shadow, 0.6 * amount * lid)
    wide = c.fill(np.concatenate([up, (crease - np.array([0, 0.05 * c.unit]))[::-1]]), 0.05)
    linear = mix(linear, shadow, 0.3 * amount * wide)
    density = 0.55 * c.line(fold, 0.028, 0.012) + 0.22 * c.line(fold, 0.07, 0.03)
    density += 0.10 * c.line(inner, 0.05, 0.03)
    rim = c.line(low, 0.045, 0.014)
    density += 0.22 * rim + 0.5 * c.blob(c.path((133,), side)[0], 0.045, 0.03)
    linear = linear * np.exp(-density[..., None] * np.array([0.8, 1.05, 1.1], np.float32))
    opening = c.fill(np.concatenate([up, low[::-1]]), 0.006)
    return mix(linear, to_linear((0.45, 0.22, 0.2)) * (1 - 0.5 * appearance.tone), opening)


def _paint_lash_line(appearance, c, rng, up, low, linear, lash):
    """Paints the roots of the lashes, or eye liner, which are thicker at the outer corner."""
    liner = appearance.eye_liner
    t = np.linspace(0, 1, 40)
    edge = points_along(up, t) - np.array([0, 0.010 * c.unit])
    strong = 0.55 + 0.35 * appearance.lashes
    linear = mix(linear, lash, strong * c.line(edge, 0.040 + 0.014 * liner, 0.007))
    outer = edge[:22] + np.stack([0 * t[:22], -0.006 * c.unit * (1 - t[:22] / 0.55)], 1)
    linear = mix(linear, lash, strong * c.line(outer, 0.035 + 0.02 * liner, 0.007))
    below = 0.22 * appearance.lashes + 0.4 * liner * rng.uniform(0, 1)
    line = c.line(low[:40] + np.array([0, 0.012 * c.unit]), 0.022, 0.008)
    return mix(linear, lash, below * line)


def _draw_lashes(appearance, c, rng, side, up, low):
    """Yields the upper and the lower lashes of one eye, (M, 5, 2), each with its strength."""
    flip = -1 + 2 * side  # The direction outwards.
    s = np.linspace(0, 1, 5)[None, :, None]
    count = int(26 + 24 * appearance.lashes)
    t = np.sort(rng.uniform(0.02, 0.9, count))
    length = (0.055 + 0.055 * appearance.lashes) * (1.15 - 0.7 * t)
    length = length * rng.uniform(0.7, 1.1, count)
    lean = flip * (0.75 - 1.15 * t) + rng.normal(0, 0.12, count)
    way = np.stack([lean, -np.ones(count)], 1)[:, None]
    bend = np.stack([0.35 * lean, 0.25 + 0 * t], 1)[:, None]
    upper = points_along(up, t)[:, None] + c.unit * length[:, None, None] * (way * s + bend * s**2)
    yield upper, 0.5 + 0.4 * appearance.lashes
    count = 22
    t = rng.uniform(0.02, 0.8, count)
    way = np.stack([flip * (0.7 - 0.9 * t), np.ones(count)], 1)[:, None]
    yield points_along(low, t)[:, None] + c.unit * 0.045 * way * s, 0.32 * appearance.lashes


def paint_nostrils(c: Canvas, linear: np.ndarray) -> np.ndarray:
    """Paints the nostrils and the edges of the nose's wings; arguments are as in `paint_lips`."""
    warm = np.array([0.72, 1.05, 1.1], np.float32)
    hole = c.pair((79, 20, 60, 238, 99), 0.060, 0.030, -0.22, (0.012, 0.010))
    density = 2.1 * np.clip(1.5 * hole, 0, 1) + 0.35 * c.pair((60, 99, 20), 0.11, 0.06, -0.2)
    for side in (0, 1):
        wing = catmull_rom(c.path((49, 48, 64, 98, 97), side))
        density += 0.46 * c.line(wing[:-4], 0.030, 0.014) + 0.18 * c.line(wing, 0.08, 0.03)
        column = catmull_rom(c.path((2, 97), side))
        density += 0.18 * c.line(column, 0.03, 0.014)
    return linear * np.exp(-density[..., None] * warm)


def paint_eye(appearance: Appearance, rng: np.random.Generator, size: int = 64) -> np.ndarray:
    """Paints an eyeball from the front, without reflections: (size, size, 3) float32 sRGB."""
    big = size * 4
    y, x = (np.mgrid[:big, :big].astype(np.float32) + 0.5) / big * 2 - 1
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    white = np.array([0.68, 0.645, 0.61]) * (1 - 0.24 * appearance.tone) * rng.uniform(0.95, 1.02)
    image = np.zeros((big, big, 3), np.float32) + white.astype(np.float32)
    veins = cv2.GaussianBlur(np.abs(smooth_noise(rng, big, 24)), (0, 0), 2)
    pink = np.clip((np.abs(x) - 0.40) / 0.5, 0, 1) * (0.55 + 0.25 * veins)
    image = mix(image, (0.66, 0.42, 0.39), pink)
    iris = 0.352 * 0.98
    u = r / iris
    fibre = np.zeros_like(r)
    for waves in (17, 29, 43, 61):
        fibre += np.sin(
            waves * angle + rng.uniform(0, 6.3) + 2.0 * np.sin(3 * u + rng.uniform(0, 6.3))
        )
    fibre = 0.10 * fibre * np.clip(u * 2 - 0.5, 0, 1)
    colour = np.asarray(appearance.iris_colour, np.float32)
    warm = colour * (1.12, 1.0, 0.8) if colour[2] < 0.35 else colour * (1.05, 0.92, 0.7)
    ring = np.exp(-(((u - 0.52) / 0.18) ** 2))[..., None]
    body = colour * (1 - ring) + warm * ring
    body = (
        body
        * (1 + fibre + 0.28 * np.clip(0.9 - u, 0, 1) + 0.18 * np.clip(y / iris, -1, 1))[..., None]
    )
    limbal = np.clip((u - 0.72) / 0.28, 0, 1) ** 1.5
    body = body * (1 - 0.68 * limbal)[..., None]
    pupil = np.clip((rng.uniform(0.36, 0.46) - u) * 14 + 0.5, 0, 1)
    body = mix(body.astype(np.float32), (0.018, 0.015, 0.015), pupil)
    image = mix(image, (0.42, 0.36, 0.34), 0.5 * np.exp(-(((u - 1.02) / 0.10) ** 2)))
    image = mix(image, body, np.clip((1 - u) * 12 + 0.5, 0, 1))
    shade = 1 - 0.36 * np.clip(-y / 0.45, 0, 1) ** 1.2  # The shadow of the upper lid.
    image = to_srgb(to_linear(image * shade[..., None]))
    return np.clip(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), 0, 1)
