"""The inside of the mouth: teeth, tongue, gums, and the dark behind them."""

import cv2
import numpy as np

from data_pipelines.synthetic.head import Part, grid, outwards

TEETH, FLESH = "teeth", "flesh"
_WIDTH, _HEIGHT = 320, 64  # of one row of teeth in the texture
# Half widths from the middle outwards: incisors, canine, premolars, molar.
_UPPER = (0.082, 0.066, 0.072, 0.066, 0.064, 0.09)
_LOWER = (0.052, 0.058, 0.066, 0.066, 0.066, 0.10)
_REACH = 0.44  # along the arch, of the texture's edge


def paint_teeth(rng: np.random.Generator) -> np.ndarray:
    """Both rows, upper above lower: (2 * 64, 320, 4) float32 sRGB colour and gloss."""
    shade = rng.uniform(0.74, 0.9) * np.array([1.0, 0.955, rng.uniform(0.80, 0.90)])
    gum = np.array([0.62, 0.30, 0.29]) * rng.uniform(0.8, 1.1)
    return np.concatenate(
        [_row(_UPPER, shade, gum, rng), _row(_LOWER, shade * 0.94, gum, rng)[::-1]]
    ).astype(np.float32)


def _row(widths, shade, gum, rng):
    """One row of teeth that hang from the top of the picture."""
    big = 4
    h, w = _HEIGHT * big, _WIDTH * big
    y, x = np.mgrid[:h, :w].astype(np.float32)
    v = (y + 0.5) / h
    s = ((x + 0.5) / w - 0.5) * 2 * _REACH
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


def teeth(seam: np.ndarray, width: float) -> tuple[Part, Part]:
    """Upper and lower row at rest.

    Args:
      seam: (3,) the middle of the closed lips.
      width: factor to the arch.
    """
    out = []
    for upper in (True, False):
        s = np.linspace(-_REACH, _REACH, 33)
        arch = s * 1.55
        x = 0.50 * np.sin(arch) * width * 0.94
        z = seam[2] + 0.105 + 0.50 * (1 - np.cos(arch)) + (0.0 if upper else 0.035)
        v = np.linspace(0, 1, 6)[:, None]
        if upper:
            y = seam[1] - 0.185 + 0.215 * v - 0.05 * s**2 * v
            texture = 0.5 * v
        else:
            y = seam[1] + 0.028 + 0.20 * v + 0 * s
            texture = 0.5 + 0.5 * v
        points = np.stack(np.broadcast_arrays(x, y, z + 0.02 * (v if not upper else 1 - v)), -1)
        uv = np.stack(np.broadcast_arrays((s / _REACH + 1) / 2, texture), -1)
        dark = 1 - 0.62 * np.abs(s / _REACH) ** 1.6
        dark = dark * (0.96 if upper else 0.84) * (1 - 0.25 * (1 - v if upper else v))
        flat = points.reshape(-1, 3)
        triangles = outwards(flat, grid(6, 33), np.array([0, seam[1], seam[2] + 1]))
        out.append(
            Part(flat, triangles, TEETH, uv.reshape(-1, 2), np.repeat(dark.reshape(-1, 1), 3, 1))
        )
    return out[0], out[1]


def tongue(seam: np.ndarray) -> Part:
    """The tongue at rest behind the lower teeth."""
    a = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    rows = []
    for t in np.linspace(0, 1, 9):
        r = np.sqrt(np.clip(1 - (1 - t) ** 2.2, 0, 1)) + 0.02
        x, y = 0.27 * r * np.cos(a), 0.085 * r * np.sin(a)
        y = y - 0.035 * np.exp(-((x / 0.05) ** 2)) * (y < 0) * -0.5  # the groove
        rows.append(np.stack([x, y + 0.02 - 0.05 * t, np.full(20, 0.62 * t)], 1))
    flat = np.concatenate(rows) + seam + np.array([0, 0.135, 0.19])
    triangles = outwards(flat, grid(9, 20, closed=True), flat.mean(0))
    depth = np.repeat(1 - 0.85 * np.linspace(0, 1, 9), 20)
    tint = depth[:, None] * np.array([0.60, 0.285, 0.265])
    return Part(flat, triangles, FLESH, np.full((len(flat), 2), 0.5), tint)


def throat(seam: np.ndarray) -> Part:
    """A dark bowl behind everything."""
    a = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    rows, tints = [], []
    for t in np.linspace(0, 1, 5):
        r = np.cos(t * np.pi / 2)
        rows.append(
            np.stack(
                [0.40 * r * np.cos(a), 0.25 * r * np.sin(a) + 0.09, np.full(20, 0.2 + 0.5 * t)], 1
            )
        )
        tints.append(np.full(20, 0.16 * (1 - t) ** 1.5 + 0.012))
    flat = np.concatenate(rows) + seam
    triangles = outwards(flat, grid(5, 20, closed=True), flat.mean(0))[:, ::-1]
    tint = np.concatenate(tints)[:, None] * np.array([1.0, 0.35, 0.32])
    return Part(flat, triangles, FLESH, np.full((len(flat), 2), 0.5), tint)
