"""Lips, lids, nostrils and eyeballs."""

import cv2
import numpy as np

from data_pipelines.synthetic.look import Look
from data_pipelines.synthetic.textures import Canvas, along, noise, spline, to_linear, to_srgb

OUTER_UPPER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
OUTER_LOWER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
INNER_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
INNER_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
UPPER_LID = (33, 246, 161, 160, 159, 158, 157, 173, 133)
LOWER_LID = (33, 7, 163, 144, 145, 153, 154, 155, 133)
CREASE = (130, 247, 30, 29, 27, 28, 56, 190)


def mix(image: np.ndarray, colour, amount: np.ndarray) -> np.ndarray:
    """(N, N, 3) an image in which `amount` (N, N) of a colour (3,) or (N, N, 3) covers it."""
    return image + np.clip(amount, 0, 1)[..., None] * (np.asarray(colour, np.float32) - image)


def lips(look: Look, c: Canvas, rng: np.random.Generator, linear, gloss):
    """Paints the lips over linear colour (N, N, 3) and gloss (N, N), which it returns."""
    upper, lower = spline(c.path(OUTER_UPPER)), spline(c.path(OUTER_LOWER))
    seam = (spline(c.path(INNER_UPPER)) + spline(c.path(INNER_LOWER))) / 2
    outline = np.concatenate([upper, lower[::-1]])
    solid = c.fill(outline)
    red = cv2.GaussianBlur(solid, (0, 0), 0.010 * c.unit)
    made_up = look.lipstick_amount
    # The edge of unpainted lips is soft; its rim catches a little light from above.
    soft = red if made_up > 0.5 else 0.6 * red + 0.4 * c.fill(outline, 0.022)
    ridge = c.line(upper[8:-8], 0.03, 0.012) * (1 - solid)
    linear = linear * (1 + 0.10 * (1 - 0.5 * look.tone) * ridge[..., None])
    colour = to_linear(look.lip_colour)
    colour = colour + made_up * (to_linear(look.lipstick) - colour)
    # Above or below the seam, and how far from it.
    line_y = np.interp(c.x[0], seam[:, 0], seam[:, 1]).astype(np.float32)[None]
    top = np.interp(c.x[0], upper[:, 0], upper[:, 1]).astype(np.float32)[None]
    bottom = np.interp(c.x[0], lower[:, 0], lower[:, 1]).astype(np.float32)[None]
    above = np.clip((line_y - c.y) / np.maximum(line_y - top, 1), 0, 1)
    below = np.clip((c.y - line_y) / np.maximum(bottom - line_y, 1), 0, 1)
    is_upper = (c.y < line_y).astype(np.float32)
    # Creases fan out from the seam.
    middle = c.at(13)[0]
    fan = (
        np.float32(middle) + (c.x - np.float32(middle)) / (1 + 0.25 * np.maximum(above, below))
    ).astype(np.float32)
    grooves = cv2.GaussianBlur(rng.standard_normal((1, c.size), np.float32), (0, 0), 1.1) * 2.2
    grooves = grooves + noise(rng, c.size, 90, 3)[:1] * 0.6
    creases = cv2.remap(
        np.repeat(grooves, 3, 0).astype(np.float32),
        fan,
        np.ones_like(fan),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    creases = creases * (0.5 + 0.5 * np.clip(noise(rng, c.size, 40), -1, 1))
    density = 0.055 * creases * (1 - 0.4 * made_up) * (0.5 + 0.5 * np.maximum(above, below))
    density += 0.05 * noise(rng, c.size, 40) + 0.03 * noise(rng, c.size, 110)
    density += is_upper * (0.20 + 0.12 * (1 - above))  # it faces the floor
    density += (1 - is_upper) * (
        0.20 * (1 - below) ** 3 - 0.16 * np.exp(-(((below - 0.5) / 0.3) ** 2))
    )
    side = np.abs(c.x - middle) / (0.5 * (upper[-1, 0] - upper[0, 0]))
    density += 0.20 * np.clip(side - 0.5, 0, 0.6) + 0.12 * np.exp(-((below - 1) ** 2) / 0.02) * (
        1 - is_upper
    )
    tint = np.array([0.8, 1.05, 1.05], np.float32)
    paint = colour * np.exp(-density[..., None] * tint)
    wet_rim = (
        (1 - is_upper) * np.exp(-((below / 0.45) ** 2)) * (1 - made_up) * (0.15 + 0.45 * look.tone)
    )
    paint = mix(paint, to_linear(np.array((0.74, 0.42, 0.41)) * (1 - 0.35 * look.tone)), wet_rim)
    linear = mix(linear, paint, soft * (0.86 + 0.1 * made_up))
    linear = _seam(c, seam, linear)
    wet = 0.40 + 0.30 * np.exp(-(((below - 0.45) / 0.3) ** 2)) * (1 - is_upper) + 0.05 * creases
    wet = wet * (0.75 + 0.45 * made_up) * (1 - 0.35 * look.tone)
    return linear, gloss + red * (wet - gloss)


def _seam(c, seam, linear):
    dark = np.array([0.55, 1.0, 1.0], np.float32)
    corner = c.blob(seam[0], 0.05, 0.035) + c.blob(seam[-1], 0.05, 0.035)
    density = 1.25 * c.line(seam, 0.030, 0.008, taper=False) + 0.5 * c.line(seam, 0.06, 0.02)
    density += 0.45 * corner
    return linear * np.exp(-density[..., None] * dark)


def lids(look: Look, c: Canvas, rng: np.random.Generator, linear: np.ndarray) -> np.ndarray:
    """Lashes, creases and shadow around the eyes, on linear colour (N, N, 3)."""
    warm = np.array([0.8, 1.05, 1.1], np.float32)
    lash = np.array([0.02, 0.015, 0.012], np.float32)
    if max(look.hair_colour) > 0.45 and look.eye_liner == 0:
        lash = lash * 2.5
    curves, strengths = [], []
    for side in (0, 1):
        flip = -1 + 2 * side  # outwards
        up, low = spline(c.path(UPPER_LID, side)), spline(c.path(LOWER_LID, side))
        crease = spline(c.path(CREASE, side))
        inner = 0.42 * along(crease, np.linspace(0.1, 1, 40)) + 0.58 * along(
            up, np.linspace(0.06, 0.98, 40)
        )
        fold = (
            along(crease, np.linspace(0.03, 0.97, 40)) * 0.72
            + along(up, np.linspace(0, 1, 40)) * 0.28
        )
        lid = c.fill(np.concatenate([up, fold[::-1]]), 0.02)
        linear = mix(linear, to_linear(look.eye_shadow), 0.6 * look.eye_shadow_amount * lid)
        wide = c.fill(np.concatenate([up, (crease - np.array([0, 0.05 * c.unit]))[::-1]]), 0.05)
        linear = mix(linear, to_linear(look.eye_shadow), 0.3 * look.eye_shadow_amount * wide)
        density = 0.55 * c.line(fold, 0.028, 0.012) + 0.22 * c.line(fold, 0.07, 0.03)
        density += 0.10 * c.line(inner, 0.05, 0.03)
        rim = c.line(low, 0.045, 0.014)
        density += 0.22 * rim + 0.5 * c.blob(c.path((133,), side)[0], 0.045, 0.03)
        linear = linear * np.exp(-density[..., None] * warm)
        opening = c.fill(np.concatenate([up, low[::-1]]), 0.006)
        linear = mix(linear, to_linear((0.45, 0.22, 0.2)) * (1 - 0.5 * look.tone), opening)
        # The lash line grows towards the outer corner.
        t = np.linspace(0, 1, 40)
        edge = along(up, t) - np.array([0, 0.010 * c.unit])
        strong = 0.55 + 0.35 * look.lashes
        linear = mix(linear, lash, strong * c.line(edge, 0.040 + 0.014 * look.eye_liner, 0.007))
        outer = edge[:22] + np.stack([0 * t[:22], -0.006 * c.unit * (1 - t[:22] / 0.55)], 1)
        linear = mix(linear, lash, strong * c.line(outer, 0.035 + 0.02 * look.eye_liner, 0.007))
        below = 0.22 * look.lashes + 0.4 * look.eye_liner * rng.uniform(0, 1)
        linear = mix(
            linear, lash, below * c.line(low[:40] + np.array([0, 0.012 * c.unit]), 0.022, 0.008)
        )
        count = int(26 + 24 * look.lashes)
        t = np.sort(rng.uniform(0.02, 0.9, count))
        root = along(up, t)
        length = (0.055 + 0.055 * look.lashes) * (1.15 - 0.7 * t) * rng.uniform(0.7, 1.1, count)
        lean = flip * (0.75 - 1.15 * t) + rng.normal(0, 0.12, count)
        s = np.linspace(0, 1, 5)[None, :, None]
        way = np.stack([lean, -np.ones(count)], 1)[:, None]
        bend = np.stack([0.35 * lean, 0.25 + 0 * t], 1)[:, None]
        curves.append(root[:, None] + c.unit * length[:, None, None] * (way * s + bend * s**2))
        strengths.append(np.full(count, 0.5 + 0.4 * look.lashes))
        count = 22
        t = rng.uniform(0.02, 0.8, count)
        way = np.stack([flip * (0.7 - 0.9 * t), np.ones(count)], 1)[:, None]
        curves.append(along(low, t)[:, None] + c.unit * 0.045 * way * s)
        strengths.append(np.full(count, 0.32 * look.lashes))
    mask = c.strokes(np.concatenate(curves), np.concatenate(strengths))
    return mix(linear, lash, 0.9 * mask)


def nostrils(c: Canvas, linear: np.ndarray) -> np.ndarray:
    """The nostrils and the wings' edges, on linear colour (N, N, 3)."""
    warm = np.array([0.72, 1.05, 1.1], np.float32)
    hole = c.pair((79, 20, 60, 238, 99), 0.060, 0.030, -0.22, (0.012, 0.010))
    density = 2.1 * np.clip(1.5 * hole, 0, 1) + 0.35 * c.pair((60, 99, 20), 0.11, 0.06, -0.2)
    for side in (0, 1):
        wing = spline(c.path((49, 48, 64, 98, 97), side))
        density += 0.46 * c.line(wing[:-4], 0.030, 0.014) + 0.18 * c.line(wing, 0.08, 0.03)
        column = spline(c.path((2, 97), side))
        density += 0.18 * c.line(column, 0.03, 0.014)
    return linear * np.exp(-density[..., None] * warm)


def eye(look: Look, rng: np.random.Generator, size: int = 64) -> np.ndarray:
    """(size, size, 3) float32 sRGB of an eyeball from the front, without a catchlight."""
    big = size * 4
    y, x = (np.mgrid[:big, :big].astype(np.float32) + 0.5) / big * 2 - 1
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    white = np.array([0.68, 0.645, 0.61]) * (1 - 0.24 * look.tone) * rng.uniform(0.95, 1.02)
    image = np.zeros((big, big, 3), np.float32) + white.astype(np.float32)
    veins = cv2.GaussianBlur(np.abs(noise(rng, big, 24)), (0, 0), 2)
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
    colour = np.asarray(look.iris_colour, np.float32)
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
    shade = 1 - 0.36 * np.clip(-y / 0.45, 0, 1) ** 1.2  # under the upper lid
    image = to_srgb(to_linear(image * shade[..., None]))
    return np.clip(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), 0, 1)
