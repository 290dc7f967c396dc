"""Backgrounds: rooms, studios, windows, plants and structures, in and out of focus."""

import cv2
import numpy as np

from . import structures

_SHARES = {
    "studio": 0.10, "wall": 0.10, "room": 0.14, "shelf": 0.10, "window": 0.08, "bokeh": 0.06,
    "plant": 0.07, "vivid": 0.11, "blinds": 0.05, "tiles": 0.05, "crowd": 0.04, "text": 0.05,
    "clutter": 0.05,
}  # fmt: skip


def paint_background(rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """Paints a random background.

    Args:
      rng: Generator that draws the background.
      size: Side of the image in pixels.

    Returns:
      (size, size, 3) float32 sRGB in [0, 1].
    """
    kind = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    n = 256
    y, x = (np.mgrid[:n, :n].astype(np.float32) + 0.5) / n
    image = _PAINTERS[kind](rng, x, y)
    image = image * (1 - rng.uniform(0.05, 0.3) * ((x - 0.5) ** 2 + (y - 0.45) ** 2) * 2)[..., None]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 4.0))
    image = image + rng.normal(0, 0.004, (n, n, 1))
    image = np.clip(image, 0, 1).astype(np.float32)
    if size != n:
        image = cv2.resize(
            image, (size, size), interpolation=cv2.INTER_AREA if size < n else cv2.INTER_CUBIC
        )
    return np.clip(image, 0, 1)


def _sample_colour(rng, low=0.35, high=0.9, colour=0.10):
    value = rng.uniform(low, high)
    warm = rng.normal(0, colour)
    return np.clip(
        value * np.array([1 + warm, 1 + rng.normal(0, colour / 3), 1 - warm]), 0.02, 0.97
    )


def _paint_gradient(rng, x, y):
    a = _sample_colour(rng)
    b = a * rng.uniform(0.5, 0.9)
    angle = rng.uniform(0, 2 * np.pi)
    t = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    return (a * (1 - t) + b * t).astype(np.float32)


def _paint_studio(rng, x, y):
    a = _sample_colour(rng, 0.2, 0.9, 0.12)
    centre, width = rng.uniform(0.2, 0.8, 2), rng.uniform(0.4, 0.9)
    glow = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / width**2)[..., None]
    return (a * (0.35 + 0.75 * glow)).astype(np.float32)


def _add_smudges(rng, image, amount):
    n = len(image)
    low = cv2.resize(rng.standard_normal((6, 6), np.float32), (n, n), interpolation=cv2.INTER_CUBIC)
    return image * (1 + amount * low)[..., None]


def _paint_wall(rng, x, y):
    image = _add_smudges(rng, _paint_gradient(rng, x, y), 0.03)
    # Light falls across the wall, sometimes through the frame of a window.
    edge = rng.uniform(0.1, 0.9)
    slope = rng.normal(0, 0.5)
    soft = rng.uniform(0.03, 0.2)
    beam = 1 / (1 + np.exp(-(x - edge + slope * (y - 0.5)) / soft))
    if rng.random() < 0.4:
        beam = beam * (0.6 + 0.4 * np.clip(np.sin(20 * (y + 0.4 * x)) * 2 + 1, 0, 1))
    return image * (0.82 + rng.uniform(0.1, 0.35) * beam)[..., None]


def _paint_box(image, x, y, box, colour, soft=0.004):
    x0, y0, x1, y1 = box
    inside = np.clip((x - x0) / soft, 0, 1) * np.clip((x1 - x) / soft, 0, 1)
    inside = inside * np.clip((y - y0) / soft, 0, 1) * np.clip((y1 - y) / soft, 0, 1)
    return image + inside[..., None] * (np.asarray(colour, np.float32) - image)


def _paint_picture(rng, image, x, y, box):
    image = _paint_box(image, x, y, box, _sample_colour(rng, 0.05, 0.5))
    x0, y0, x1, y1 = box
    m = 0.012
    image = _paint_box(image, x, y, (x0 + m, y0 + m, x1 - m, y1 - m), _sample_colour(rng, 0.5, 0.9))
    for _ in range(3):
        a, b = rng.uniform(x0 + m, x1 - 2 * m), rng.uniform(y0 + m, y1 - 2 * m)
        image = _paint_box(
            image,
            x,
            y,
            (a, b, min(a + 0.1, x1 - m), min(b + 0.1, y1 - m)),
            _sample_colour(rng, 0.2, 0.8, 0.3),
            0.02,
        )
    return image


def _paint_room(rng, x, y):
    image = _paint_wall(rng, x, y)
    for side in (0, 1):
        kind = rng.integers(5)
        left = rng.uniform(-0.1, 0.08) if side == 0 else rng.uniform(0.68, 0.85)
        if kind == 0:  # A door.
            tone = _sample_colour(rng, 0.3, 0.8)
            image = _paint_box(image, x, y, (left, 0.05, left + 0.26, 1.2), tone)
            image = _paint_box(image, x, y, (left + 0.015, 0.07, left + 0.245, 1.2), tone * 0.9)
        elif kind == 1:
            top = rng.uniform(0.05, 0.35)
            image = _paint_picture(
                rng,
                image,
                x,
                y,
                (left, top, left + rng.uniform(0.15, 0.3), top + rng.uniform(0.15, 0.3)),
            )
        elif kind == 2:  # A lamp.
            cx, cy = left + 0.12, rng.uniform(0.3, 0.55)
            glow = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.05)[..., None]
            image = image + 0.28 * glow * np.array([1.0, 0.85, 0.6], np.float32)
            image = _paint_box(
                image, x, y, (cx - 0.06, cy - 0.06, cx + 0.06, cy + 0.05), (1.0, 0.93, 0.78), 0.02
            )
            image = _paint_box(
                image, x, y, (cx - 0.006, cy + 0.05, cx + 0.006, 1.2), (0.2, 0.18, 0.16)
            )
        elif kind == 3:  # A cupboard.
            image = _paint_box(
                image, x, y, (left, 0.55, left + 0.4, 1.2), _sample_colour(rng, 0.15, 0.5)
            )
    if rng.random() < 0.4:
        image = _paint_box(
            image, x, y, (-1, rng.uniform(0.7, 0.85), 2, 2), _sample_colour(rng, 0.15, 0.5)
        )
    return image


def _paint_shelf(rng, x, y):
    wood = _sample_colour(rng, 0.2, 0.7, 0.2)
    image = np.zeros((*x.shape, 3), np.float32) + (wood * 0.6).astype(np.float32)
    shelves = int(rng.integers(3, 5))
    for k in range(shelves):
        base = (k + 1) / shelves
        at = -0.02
        while at < 1:
            width = rng.uniform(0.018, 0.05)
            height = rng.uniform(0.5, 0.85) / shelves
            if rng.random() < 0.82:
                book = _sample_colour(rng, 0.15, 0.75, 0.2)
                image = _paint_box(image, x, y, (at, base - height, at + width, base), book)
            at += width + (rng.uniform(0, 0.12) if rng.random() < 0.12 else 0.002)
        image = _paint_box(image, x, y, (-1, base - 0.02, 2, base), wood)
    image = _add_smudges(rng, image, 0.05)
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(1.5, 3.5)) * rng.uniform(0.7, 1.0)


def _paint_window(rng, x, y):
    image = _paint_wall(rng, x, y) * 0.8
    left = rng.uniform(-0.2, 0.05) if rng.random() < 0.5 else rng.uniform(0.6, 0.75)
    right, top, bottom = (
        left + rng.uniform(0.35, 0.5),
        rng.uniform(-0.1, 0.1),
        rng.uniform(0.55, 0.85),
    )
    sky = np.array([0.86, 0.92, 0.98]) * rng.uniform(0.85, 1.0)
    image = _paint_box(image, x, y, (left, top, right, bottom), (0.88, 0.86, 0.83))
    image = _paint_box(image, x, y, (left + 0.02, top + 0.02, right - 0.02, bottom - 0.02), sky)
    for _ in range(14):  # Trees.
        cx, cy = rng.uniform(left, right), rng.uniform(0.35, 1) * bottom
        r = rng.uniform(0.02, 0.06)
        spot = (
            np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / r**2)
            * (x > left + 0.02)
            * (x < right - 0.02)
            * (y < bottom - 0.02)
        )
        image = image + 0.7 * spot[..., None] * (np.array([0.45, 0.58, 0.38], np.float32) - image)
    middle = (left + right) / 2
    image = _paint_box(
        image, x, y, (middle - 0.012, top, middle + 0.012, bottom), (0.85, 0.83, 0.8)
    )
    if rng.random() < 0.6:
        curtain = _sample_colour(rng, 0.4, 0.85)
        fold = 0.85 + 0.15 * np.sin(x * 140 + 3 * np.sin(y * 5))
        inside = np.clip((left + 0.1 - x) / 0.01, 0, 1) * np.clip((x - left + 0.05) / 0.01, 0, 1)
        image = image + inside[..., None] * ((curtain * fold[..., None]).astype(np.float32) - image)
    return image


def _paint_bokeh(rng, x, y):
    image = _paint_studio(rng, x, y) * 0.8
    colours = np.array(
        [(1.0, 0.8, 0.5), (1.0, 0.9, 0.8), (0.6, 0.75, 1.0), (1.0, 0.6, 0.4), (0.6, 0.9, 0.7)]
    )
    for _ in range(int(rng.integers(15, 45))):
        cx, cy, r = rng.uniform(0, 1), rng.uniform(0, 0.9), rng.uniform(0.015, 0.06)
        disc = np.clip((r - np.hypot(x - cx, y - cy)) / 0.008, 0, 1)
        colour = colours[rng.integers(len(colours))]
        image = image + (rng.uniform(0.08, 0.35) * disc)[..., None] * colour.astype(np.float32)
    return cv2.GaussianBlur(np.clip(image, 0, 1), (0, 0), rng.uniform(1, 4))


def _paint_plant(rng, x, y):
    image = _paint_wall(rng, x, y)
    n = len(image)
    big = np.clip(image * 255, 0, 255).astype(np.uint8)
    for side in (0, 1) if rng.random() < 0.4 else (int(rng.integers(2)),):
        root = (
            np.array(
                [
                    rng.uniform(0.02, 0.16) if side == 0 else rng.uniform(0.84, 0.98),
                    rng.uniform(0.75, 1.0),
                ]
            )
            * n
        )
        green = np.array([0.22, 0.38, 0.2]) * rng.uniform(0.7, 1.4)
        for _ in range(int(rng.integers(16, 34))):
            angle = rng.normal(-np.pi / 2, 0.7)
            length, width = rng.uniform(0.15, 0.55) * n, rng.uniform(0.012, 0.035) * n
            t = np.linspace(0, 1, 16)[:, None]
            way = np.array([np.cos(angle), np.sin(angle)])
            curve = root + length * (way * t + np.array([0.35 * np.cos(angle), 0.25]) * t**2)
            half = width * np.sin(np.pi * np.clip(t, 0.02, 1)) ** 0.7 * np.array([-way[1], way[0]])
            leaf = np.round(np.concatenate([curve + half, (curve - half)[::-1]]) * 16).astype(
                np.int32
            )
            tone = np.clip(255 * green * rng.uniform(0.5, 1.5), 0, 255)
            cv2.fillPoly(big, [leaf], tone.tolist(), cv2.LINE_AA, 4)
    return cv2.GaussianBlur(big.astype(np.float32) / 255, (0, 0), rng.uniform(1.5, 3.5))


_PAINTERS = {
    "studio": _paint_studio,
    "wall": _paint_wall,
    "room": _paint_room,
    "shelf": _paint_shelf,
    "window": _paint_window,
    "bokeh": _paint_bokeh,
    "plant": _paint_plant,
    **structures.PAINTERS,
}
