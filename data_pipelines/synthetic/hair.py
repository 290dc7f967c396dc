"""Hair as shells around the skull, with strands at their edges."""

from dataclasses import dataclass

import numpy as np

from data_pipelines.synthetic.head import CENTRE, HAIR, Part, Surface, grid, outwards

# Azimuth from the front and polar angle from the top (degrees) where hair ends on a head.
_HAIRLINE = np.array(
    [(0, 66), (18, 66), (34, 69), (50, 83), (62, 98), (72, 112), (80, 118), (87, 104), (100, 106),
     (112, 128), (125, 140), (150, 146), (180, 148)], float
)  # fmt: skip
_TILT = 0.62  # radians, of the crown, from which the strands fall, towards the back


@dataclass(frozen=True)
class Style:
    """A cut.

    Attributes:
      top, sides: thickness above the skull at the crown and around the ears, interocular units.
      bangs: how far hair falls over the forehead, degrees.
      fall: how far it hangs down at the sides and back; 0 not at all, 1 over the shoulders.
      rough: unevenness of the outline.
      edge: share of a strand's length over which tips thin out.
      bun: whether there is a knot on top.
    """

    top: float
    sides: float
    bangs: float = 0.0
    fall: float = 0.0
    rough: float = 0.012
    edge: float = 0.05
    bun: bool = False


STYLES = {
    "short": Style(0.17, 0.08, rough=0.02),
    "crop": Style(0.05, 0.035, rough=0.004, edge=0.07),
    "quiff": Style(0.26, 0.07, rough=0.03),
    "fringe": Style(0.16, 0.11, bangs=13.0, rough=0.02, edge=0.10),
    "long": Style(0.14, 0.13, fall=1.0, rough=0.02),
    "long_fringe": Style(0.15, 0.14, bangs=15.0, fall=0.95, rough=0.02, edge=0.10),
    "bob": Style(0.16, 0.17, bangs=4.0, fall=0.5, rough=0.02, edge=0.08),
    "bun": Style(0.07, 0.055, rough=0.006, bun=True),
    "curly": Style(0.34, 0.30, bangs=4.0, rough=0.07, edge=0.12),
    "afro": Style(0.55, 0.50, rough=0.05, edge=0.12),
}

_VARIANTS = {"short": ("short", "quiff", "fringe"), "long": ("long", "long_fringe")}


def variant(style: str, rng: np.random.Generator) -> str:
    """One of the cuts that go by a `Look`'s style."""
    return str(rng.choice(_VARIANTS.get(style, (style,))))


def _noise(rng, azimuth, polar, waves, count=10):
    """Smooth noise of unit variance, periodic in azimuth."""
    out = 0
    for _ in range(count):
        a, b = rng.integers(1, waves + 1), rng.normal(0, waves * 0.6)
        out = out + np.sin(a * azimuth + b * polar + rng.uniform(0, 6.28))
    return out * np.sqrt(2 / count)


def _directions(azimuth, polar):
    """Unit vectors in the frame of the tilted crown."""
    x = np.sin(polar) * np.sin(azimuth)
    y = -np.cos(polar)
    z = -np.sin(polar) * np.cos(azimuth)
    c, s = np.cos(_TILT), np.sin(_TILT)
    return np.stack([x, c * y + s * z, -s * y + c * z], -1)


def _limits(azimuth, bangs, receding):
    """How far from the crown each strand reaches, radians."""
    polar = np.linspace(0.1, 3.0, 300)
    d = _directions(azimuth[:, None], polar[None])
    around = np.degrees(np.abs(np.arctan2(d[..., 0], -d[..., 2])))
    height = np.degrees(np.arccos(np.clip(-d[..., 1], -1, 1)))
    limit = np.interp(around, _HAIRLINE[:, 0], _HAIRLINE[:, 1])
    limit += bangs * np.clip(1 - (around / 62) ** 4, 0, 1)
    limit -= 12 * receding * np.exp(-(((around - 30) / 22) ** 2))
    return polar[np.argmax(height > limit, 1)]


def hair(
    style: str, surface: Surface, rng: np.random.Generator, receding: float, texels: int
) -> list[Part]:
    """The hair of a style.

    Args:
      style: a key of `STYLES`; anything else is bald.
      surface: the head it grows on.
      receding: how far the hairline has drawn back, 0 to 1.
      texels: across the hair's texture, which is repeated to cover the head.
    """
    if style not in STYLES:
        return []
    cut = STYLES[style]
    rows, cols = 30, 96
    azimuth = np.linspace(-np.pi, np.pi, cols, endpoint=False)
    limit = _limits(azimuth, cut.bangs, receding)
    limit = limit + 0.012 * _noise(rng, azimuth, 0, 12)
    t = np.linspace(0, 1, rows)[:, None] ** 0.8
    polar = t * limit[None]
    theta = np.broadcast_to(azimuth[None], polar.shape)
    d = _directions(theta, polar)
    skin = surface(d)
    # From the hairline the hair rises quickly to its full height.
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
    repeats = max(1, round(700 / texels))
    uv = np.stack([theta / (2 * np.pi) * repeats, polar * 0.9], -1)
    fringe = np.clip((limit[None] - polar) / (cut.edge * limit[None]), 0, 1) * 1.05 + 0.02
    shade = 0.62 + 0.38 * body
    shade = shade * (1 + 0.09 * _noise(rng, theta, polar * 1.5, 22))
    parts = []
    if cut.fall:
        parts.append(_curtain(cut, surface, rng, repeats))
    parts.append(_part(points, uv, fringe, shade, rows, cols))
    if cut.bun:
        parts.append(_knot(rng))
    return parts


def tips(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 in (0, 1): how soon each strand of a tileable texture ends."""
    clump = _smooth(rng.normal(size=shape[1]), 3.0)
    fine = _smooth(rng.normal(size=shape), 0.7, axis=1)
    fine = _smooth(fine, 6.0, axis=0)
    total = 0.6 * clump[None] + fine / fine.std()
    order = np.argsort(np.argsort(total.ravel())).reshape(shape)
    return (0.02 + 0.96 * order / order.size).astype(np.float32)


def _smooth(values, sigma, axis=-1):
    """Periodic Gaussian filter; a vector comes out with unit variance."""
    frequency = np.fft.fftfreq(values.shape[axis])
    gain = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
    gain = gain if axis in (-1, values.ndim - 1) else gain[:, None]
    out = np.fft.ifft(np.fft.fft(values, axis=axis) * gain, axis=axis).real
    return out / out.std() if values.ndim == 1 else out


def _part(points, uv, fringe, shade, rows, cols, closed=True):
    flat = points.reshape(-1, 3)
    triangles = outwards(flat, grid(rows, cols, closed=closed), CENTRE)
    tint = np.repeat(shade.reshape(-1, 1), 3, 1)
    return Part(flat, triangles, HAIR, uv.reshape(-1, 2), tint, np.ravel(fringe))


def _curtain(cut, surface, rng, repeats):
    """Hair that hangs from the sides and the back of the head, beginning under the cap."""
    rows, cols = 32, 76
    azimuth = np.linspace(np.radians(58), 2 * np.pi - np.radians(58), cols)[None]
    t = np.linspace(0, 1, rows)[:, None]
    start, level = np.radians(50), np.radians(98)
    share = 0.3  # of the strands, that lies on the head
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
    # Falls inwards to the neck, then over the shoulders.
    shape = 1 - 0.10 * np.sin(np.pi * np.clip(drop * 1.25, 0, 1)) ** 2 + 0.06 * drop + wave
    points[..., 0] *= shape
    points[..., 2] += 0.12 * drop * (np.cos(across) > -0.3)
    rim = np.minimum(np.arange(cols), np.arange(cols)[::-1])[None]
    fringe = np.clip((1 - t) / 0.10, 0, 1) + 0 * across
    fringe = np.minimum(fringe, np.clip(rim / 2.0 + 0.3, 0, 1)) * 1.05 + 0.02
    uv = np.stack([across / (2 * np.pi) * repeats, t * 2.4 + 0 * across], -1)
    shade = 0.80 + 0.09 * _noise(rng, across, t * 0.5, 30)
    shade = shade * (1 - 0.30 * np.clip(drop * 2, 0, 1) * np.clip(rim / 8.0, 0, 1))
    part = _part(points, uv, fringe, shade, rows, cols, closed=False)
    part.follow = np.broadcast_to(1 - 0.6 * drop, across.shape).ravel().copy()
    return part


def _knot(rng):
    """A knot of hair on top."""
    rows, cols = 10, 24
    a = np.linspace(0, 2 * np.pi, cols, endpoint=False)[None]
    b = np.linspace(0.05, np.pi, rows)[:, None]
    r = 0.40 * (1 + 0.04 * _noise(rng, a + 0 * b, b + 0 * a, 8))
    offset = np.stack(
        [r * np.sin(b) * np.sin(a), -r * np.cos(b) * 0.85, -r * np.sin(b) * np.cos(a)], -1
    )
    flat = (offset + CENTRE + np.array([0, -1.52, 0.45])).reshape(-1, 3)
    triangles = outwards(flat, grid(rows, cols, closed=True), flat.mean(0))
    uv = np.stack([a / 3 + 0 * b, b / 3 + 0 * a], -1).reshape(-1, 2)
    return Part(flat, triangles, HAIR, uv, np.full((len(flat), 3), 0.92))
