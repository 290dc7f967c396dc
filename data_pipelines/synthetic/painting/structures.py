"""Backgrounds with structure: blinds, tiles, crowds, text, clutter and plain vivid colour.

Every painter takes a generator and the coordinates x and y in [0, 1], (N, N), and returns float32
sRGB, (N, N, 3).
"""

import cv2
import numpy as np


def _sample_colour(rng, vivid=0.6):
    """Draws a colour of any hue."""
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (rng.uniform(0, 1) + np.array([0, 1 / 3, 2 / 3])))
    amount = rng.uniform(0, vivid)
    return (rng.uniform(0.08, 0.95) * (1 - amount + amount * wheel)).astype(np.float32)


def _mix(image, colour, amount):
    return image + amount[..., None].astype(np.float32) * (np.float32(colour) - image)


def paint_vivid(rng, x, y):
    """Paints a screen of saturated colour under uneven light."""
    colour = _sample_colour(rng, 1.0)
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.7)
    slope = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    spot = np.exp(-((x - rng.uniform(0, 1)) ** 2 + (y - rng.uniform(0, 1)) ** 2) / 0.2)
    light = 1 + reach * (slope + rng.uniform(-0.3, 0.5) * spot)
    return (colour * light[..., None]).astype(np.float32)


def paint_blinds(rng, x, y):
    """Paints the slats of blinds, lit from behind or from the room."""
    count, lean = rng.integers(8, 40), rng.normal(0, 0.06)
    along = (y + lean * x) if rng.random() < 0.75 else (x + lean * y)
    phase = (along * count + rng.uniform(0, 1)) % 1
    slat = np.clip((phase - rng.uniform(0.1, 0.45)) * 8, 0, 1) * np.clip((0.98 - phase) * 20, 0, 1)
    behind, front = _sample_colour(rng, 0.4), _sample_colour(rng, 0.4)
    image = np.zeros((*x.shape, 3), np.float32) + behind
    return _mix(image, front, slat * (0.7 + 0.3 * phase))


def paint_tiles(rng, x, y):
    """Paints bricks, tiles or panels with joints."""
    rows = int(rng.integers(4, 16))
    cols = max(2, round(rows / rng.uniform(0.7, 3.0)))
    row = np.floor(y * rows).astype(int)
    across = x * cols + (0.5 * (row % 2) if rng.random() < 0.6 else 0) + rng.uniform(0, 1)
    col = np.floor(across).astype(int)
    tone = rng.normal(1, rng.uniform(0.0, 0.2), (rows + 2, cols + 3))[row, col % (cols + 3)]
    image = _sample_colour(rng, 0.7) * np.clip(tone, 0.3, 1.7)[..., None]
    u, v = across % 1, (y * rows) % 1
    joint = np.minimum(np.minimum(u, 1 - u) * rows / cols * 2, np.minimum(v, 1 - v) * 2)
    width = rng.uniform(0.03, 0.14)
    return _mix(
        image.astype(np.float32), _sample_colour(rng, 0.2), np.clip(2 - joint / width, 0, 1)
    )


def paint_crowd(rng, x, y):
    """Paints heads and shoulders as blobs, in rows that come nearer."""
    n = len(x)
    image = np.zeros((n, n, 3), np.float32) + _sample_colour(rng, 0.4) * 0.7
    for depth in np.linspace(0.3, 1, int(rng.integers(2, 5))):
        size = depth * rng.uniform(0.05, 0.1)
        for at in np.arange(-size, 1 + size, 3.2 * size):
            cx, cy = at + rng.normal(0, size / 2), 0.25 + 0.45 * depth + rng.normal(0, size / 2)
            skin = np.array([0.82, 0.62, 0.5]) * rng.uniform(0.35, 1.1)
            centre, unit = (round(cx * n), round(cy * n)), max(1, round(size * n))
            body = (centre[0], centre[1] + round(2.6 * unit))
            tones = [(_sample_colour(rng) * depth).tolist(), (skin * depth).tolist()]
            hair = (np.array([0.3, 0.22, 0.16]) * rng.uniform(0.2, 2.0) * depth).tolist()
            axes = (round(1.7 * unit), round(1.9 * unit))
            cv2.ellipse(image, body, axes, 0, 0, 360, tones[0], -1, cv2.LINE_AA)
            cv2.ellipse(image, centre, (unit, round(1.25 * unit)), 0, 0, 360, hair, -1)
            low = (centre[0], centre[1] + round(0.35 * unit))
            cv2.ellipse(image, low, (round(0.8 * unit), unit), 0, 0, 360, tones[1], -1)
    return image


def paint_text(rng, x, y):
    """Paints strokes like those of writing on posters, screens and captions."""
    n = len(x)
    image = np.zeros((n, n, 3), np.float32) + _sample_colour(rng, 0.8)
    for _ in range(int(rng.integers(1, 6))):  # Sheets.
        a = (rng.uniform(-0.2, 0.9, 2) * n).astype(int)
        b = a + (rng.uniform(0.15, 0.8, 2) * n).astype(int)
        corners = [tuple(int(v) for v in p) for p in (a, b)]
        cv2.rectangle(image, *corners, _sample_colour(rng, 0.7).tolist(), -1)
        ink, high = _sample_colour(rng, 0.7).tolist(), rng.uniform(0.015, 0.09) * n
        thick = max(1, round(high * rng.uniform(0.08, 0.3)))
        for line in np.arange(a[1] + high, b[1] - high, 1.8 * high):
            at = a[0] + high
            while at < b[0] - high:
                strokes = rng.uniform(-0.5, 0.5, (int(rng.integers(2, 5)), 2)) * high
                stroke = np.round(strokes * (0.8, 1.4) + (at, line)).astype(np.int32)
                cv2.polylines(image, [stroke], False, ink, thick, cv2.LINE_AA)
                at += high * (0.9 if rng.random() < 0.84 else 1.8)
    return image


def paint_clutter(rng, x, y):
    """Paints random shapes with sharp edges, before and behind each other."""
    n = len(x)
    image = np.zeros((n, n, 3), np.float32) + _sample_colour(rng)
    for _ in range(int(rng.integers(10, 60))):
        centre, size = rng.uniform(0, 1, 2) * n, rng.uniform(0.03, 0.35) * n
        corners = int(rng.integers(3, 9))
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        shape = centre + size * rng.uniform(0.4, 1, (corners, 1)) * np.stack(
            [np.cos(angle), np.sin(angle)], 1
        )
        cv2.fillPoly(
            image,
            [np.round(shape).astype(np.int32)],
            _sample_colour(rng, 0.8).tolist(),
            cv2.LINE_AA,
        )
    return image


PAINTERS = {
    "vivid": paint_vivid,
    "blinds": paint_blinds,
    "tiles": paint_tiles,
    "crowd": paint_crowd,
    "text": paint_text,
    "clutter": paint_clutter,
}
