"""Hair as shells around the skull, whose edges dissolve into strands."""

from dataclasses import dataclass

import numpy as np

from .head import CENTRE, HeadSurface
from .mesh import MeshPart, grid_triangles, orient_outwards

HAIR = "hair"  # The material.

# End of the hair on a head: azimuth from the front and polar angle from the top, in degrees.
_HAIRLINE = np.array(
    [(0, 66), (18, 66), (34, 69), (50, 83), (62, 98), (72, 112), (80, 118), (87, 104), (100, 106),
     (112, 128), (125, 140), (150, 146), (180, 148)], float
)  # fmt: skip
_TILT = 0.62  # Radians by which the crown, from which the strands fall, is tilted backwards.


@dataclass(frozen=True)
class Haircut:
    """A haircut.

    Attributes:
      top, sides: Thickness at the crown and around the ears, in interocular distances.
      bangs: How far hair falls over the forehead, in degrees.
      fall: How far hair hangs down at the sides and the back, from 0 (not) to 1 (the shoulders).
      rough: Unevenness of the outline.
      edge: Share of a strand's length over which the tips thin out.
      bun: Whether there is a bun on top.
    """

    top: float
    sides: float
    bangs: float = 0.0
    fall: float = 0.0
    rough: float = 0.012
    edge: float = 0.05
    bun: bool = False


HAIRCUTS = {
    "short": Haircut(0.17, 0.08, rough=0.02),
    "crop": Haircut(0.05, 0.035, rough=0.004, edge=0.07),
    "quiff": Haircut(0.26, 0.07, rough=0.03),
    "fringe": Haircut(0.16, 0.11, bangs=13.0, rough=0.02, edge=0.10),
    "long": Haircut(0.14, 0.13, fall=1.0, rough=0.02),
    "long_fringe": Haircut(0.15, 0.14, bangs=15.0, fall=0.95, rough=0.02, edge=0.10),
    "bob": Haircut(0.16, 0.17, bangs=4.0, fall=0.5, rough=0.02, edge=0.08),
    "bun": Haircut(0.07, 0.055, rough=0.006, bun=True),
    "curly": Haircut(0.34, 0.30, bangs=4.0, rough=0.07, edge=0.12),
    "long_curly": Haircut(0.30, 0.34, bangs=3.0, fall=0.6, rough=0.06, edge=0.16),
    "wild": Haircut(0.22, 0.24, bangs=14.0, fall=0.8, rough=0.045, edge=0.14),
    "afro": Haircut(0.55, 0.50, rough=0.05, edge=0.12),
}

_VARIANTS = {
    "short": ("short", "quiff", "fringe"),
    "long": ("long", "long", "long_fringe", "wild"),
    "curly": ("curly", "afro", "long_curly", "long_curly"),
}


def choose_haircut(style: str, rng: np.random.Generator) -> str:
    """Chooses one of the haircuts of a style of `Appearance`."""
    return str(rng.choice(_VARIANTS.get(style, (style,))))


def _noise(rng, azimuth, polar, waves, count=10):
    """Draws smooth noise of unit variance, periodic in azimuth."""
    out = 0
    for _ in range(count):
        a, b = rng.integers(1, waves + 1), rng.normal(0, waves * 0.6)
        out = out + np.sin(a * azimuth + b * polar + rng.uniform(0, 6.28))
    return out * np.sqrt(2 / count)


def _directions(azimuth, polar):
    """Returns unit vectors from angles in the frame of the tilted crown."""
    x = np.sin(polar) * np.sin(azimuth)
    y = -np.cos(polar)
    z = -np.sin(polar) * np.cos(azimuth)
    c, s = np.cos(_TILT), np.sin(_TILT)
    return np.stack([x, c * y + s * z, -s * y + c * z], -1)


def _hairline(azimuth, bangs, receding):
    """Returns the polar angle in radians at which hair ends, for each azimuth."""
    polar = np.linspace(0.1, 3.0, 300)
    d = _directions(azimuth[:, None], polar[None])
    around = np.degrees(np.abs(np.arctan2(d[..., 0], -d[..., 2])))
    height = np.degrees(np.arccos(np.clip(-d[..., 1], -1, 1)))
    limit = np.interp(around, _HAIRLINE[:, 0], _HAIRLINE[:, 1])
    limit += bangs * np.clip(1 - (around / 62) ** 4, 0, 1)
    limit -= 12 * receding * np.exp(-(((around - 30) / 22) ** 2))
    return polar[np.argmax(height > limit, 1)]


def count_repeats(texels: int) -> int:
    """Returns how often a hair texture of a width in texels is repeated around the head."""
    return max(1, round(700 / texels))


def make_hair(
    style: str, surface: HeadSurface, rng: np.random.Generator, receding: float, texels: int
) -> list[MeshPart]:
    """Makes the hair of a head.

    Args:
      style: A key of `HAIRCUTS`; any other value is bald.
      surface: The head's skin.
      rng: Generator that draws the irregularities.
      receding: How far the hairline has receded, from 0 to 1.
      texels: Width of the hair texture, which is repeated to cover the head.
    """
    if style not in HAIRCUTS:
        return []
    cut = HAIRCUTS[style]
    rows, cols = 30, 96
    azimuth = np.linspace(-np.pi, np.pi, cols, endpoint=False)
    limit = _hairline(azimuth, cut.bangs, receding)
    limit = limit + 0.012 * _noise(rng, azimuth, 0, 12)
    t = np.linspace(0, 1, rows)[:, None] ** 0.8
    polar = t * limit[None]
    theta = np.broadcast_to(azimuth[None], polar.shape)
    d = _directions(theta, polar)
    skin = surface(d)
    # Hair rises quickly from the hairline to its full thickness.
    rise = np.clip((limit[None] - polar) / (0.10 + 0.5 * cut.top), 0, 1)
    body = np.sqrt(np.clip(1 - (1 - rise) ** 2, 0, 1))
    down = np.clip((d[..., 1] + 0.75) / 1.1, 0, 1)
    thick = cut.top + (cut.sides - cut.top) * down * down * (3 - 2 * down)
    parting = rng.uniform(-0.6, 0.6)
    front = np.exp(-(((theta - parting) / 0.2) ** 2)) * np.clip((polar - 0.3) / 0.4, 0, 1)
    thick = thick * (1 - 0.3 * front * (cut.bangs == 0))
    thick = thick + cut.rough * _noise(rng, theta, polar * 2, 8 + round(120 * cut.rough))
    radius = skin + 0.010 + np.maximum(thick, 0.02) * body
    points = d * radius[..., None] + CENTRE
    repeats = count_repeats(texels)
    uv = np.stack([theta / (2 * np.pi) * repeats, polar * 0.9], -1)
    opacity = np.clip((limit[None] - polar) / (cut.edge * limit[None]), 0, 1) * 1.05 + 0.02
    shade = 0.62 + 0.38 * body
    shade = shade * (1 + 0.09 * _noise(rng, theta, polar * 1.5, 22))
    parts = []
    if cut.fall:
        parts.append(_make_curtain(cut, surface, rng, repeats))
    parts.append(_make_part(points, uv, opacity, shade, rows, cols))
    if cut.bun:
        parts.append(_make_bun(rng))
    return parts


def _make_part(points, uv, opacity, shade, rows, cols, closed=True):
    flat = points.reshape(-1, 3)
    triangles = orient_outwards(flat, grid_triangles(rows, cols, closed=closed), CENTRE)
    colours = np.repeat(shade.reshape(-1, 1), 3, 1)
    return MeshPart(flat, triangles, HAIR, uv.reshape(-1, 2), colours, np.ravel(opacity))


def _make_curtain(cut, surface, rng, repeats):
    """Makes the hair that hangs at the sides and the back, starting below the cap."""
    rows, cols = 32, 76
    azimuth = np.linspace(np.radians(58), 2 * np.pi - np.radians(58), cols)[None]
    t = np.linspace(0, 1, rows)[:, None]
    start, level = np.radians(50), np.radians(98)
    share = 0.3  # Share of each strand that lies on the head.
    polar = start + (level - start) * np.clip(t / share, 0, 1) + 0 * azimuth
    across = azimuth + 0 * t
    d = np.stack(
        [np.sin(polar) * np.sin(across), -np.cos(polar), -np.sin(polar) * np.cos(across)], -1
    )
    radius = surface(d) + 0.03 + (cut.sides + 0.03) * np.clip(t * 5, 0.3, 1)
    points = d * radius[..., None] + CENTRE
    drop = np.clip((t - share) / (1 - share), 0, 1)
    ends = 1.2 + 2.1 * cut.fall + 0.07 * _noise(rng, across[:1], 0, 12)
    points[..., 1] += drop * ends
    wave = cut.rough * 1.2 * _noise(rng, across, drop * 4, 7) * drop
    # Hair falls inwards to the neck, then over the shoulders.
    shape = 1 - 0.10 * np.sin(np.pi * np.clip(drop * 1.25, 0, 1)) ** 2 + 0.06 * drop + wave
    points[..., 0] *= shape
    points[..., 2] += 0.12 * drop * (np.cos(across) > -0.3)
    rim = np.minimum(np.arange(cols), np.arange(cols)[::-1])[None]
    opacity = np.clip((1 - t) / 0.10, 0, 1) + 0 * across
    opacity = np.minimum(opacity, np.clip(rim / 2.0 + 0.3, 0, 1)) * 1.05 + 0.02
    uv = np.stack([across / (2 * np.pi) * repeats, t * 2.4 + 0 * across], -1)
    shade = 0.80 + 0.09 * _noise(rng, across, t * 0.5, 30)
    shade = shade * (1 - 0.30 * np.clip(drop * 2, 0, 1) * np.clip(rim / 8.0, 0, 1))
    part = _make_part(points, uv, opacity, shade, rows, cols, closed=False)
    part.head_weight = np.broadcast_to(1 - 0.6 * drop, across.shape).ravel().copy()
    return part


def _make_bun(rng):
    """Makes a bun on top of the head."""
    rows, cols = 10, 24
    a = np.linspace(0, 2 * np.pi, cols, endpoint=False)[None]
    b = np.linspace(0.05, np.pi, rows)[:, None]
    r = 0.40 * (1 + 0.04 * _noise(rng, a + 0 * b, b + 0 * a, 8))
    offset = np.stack(
        [r * np.sin(b) * np.sin(a), -r * np.cos(b) * 0.85, -r * np.sin(b) * np.cos(a)], -1
    )
    flat = (offset + CENTRE + np.array([0, -1.52, 0.45])).reshape(-1, 3)
    triangles = orient_outwards(flat, grid_triangles(rows, cols, closed=True), flat.mean(0))
    uv = np.stack([a / 3 + 0 * b, b / 3 + 0 * a], -1).reshape(-1, 2)
    return MeshPart(flat, triangles, HAIR, uv, np.full((len(flat), 3), 0.92))
