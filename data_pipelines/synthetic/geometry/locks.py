"""Hair that falls beside the jaw and before the shoulders."""

import numpy as np

from ..outfit import Grooming
from .hair import HAIR
from .head import CENTRE, HeadSurface
from .mesh import MeshPart, grid_triangles, orient_outwards

_ROWS, _COLS = 28, 9
_ON_HEAD = 0.3  # Share of each strand that lies on the head.


def make_locks(
    grooming: Grooming, surface: HeadSurface, thickness: float, repeats: int
) -> list[MeshPart]:
    """Makes the hair before both shoulders, and loose strands.

    Args:
      grooming: How the hair is worn.
      surface: The head's skin.
      thickness: Thickness of the hair around the ears.
      repeats: How often the texture is repeated around the head.
    """
    rng = np.random.default_rng(grooming.seed)
    parts = []
    for side, length in zip((-1, 1), grooming.locks, strict=True):
        if length == 0:
            continue
        for layer in range(2 + round(2 * grooming.wave)):
            inner = rng.uniform(40, 58) + 8 * layer
            around = (inner, inner + rng.uniform(30, 55))
            fall = (length * rng.uniform(0.85, 1.1), grooming.inward - 0.25 * layer, grooming.wave)
            thick = thickness + 0.03 + 0.05 * layer * (0.3 + grooming.wave)
            parts.append(_make_sheet(rng, surface, side, around, fall, thick, repeats))
    for _ in range(grooming.loose):
        side = int(rng.choice((-1, 1)))
        inner = rng.uniform(30, 70)
        around = (inner, inner + rng.uniform(1.5, 6))
        inward = grooming.inward + rng.normal(0, 0.4)
        fall = (rng.uniform(0.15, 0.9), inward, grooming.wave)
        thick = thickness + rng.uniform(0.0, 0.08)
        parts.append(_make_sheet(rng, surface, side, around, fall, thick, repeats))
    return parts


def _make_sheet(rng, surface, side, around, fall, thickness, repeats):
    """Makes strands at one side.

    Args:
      rng, surface: As in `make_locks`.
      side: -1 for the left and 1 for the right side of the image.
      around: Azimuths in degrees between which the strands start.
      fall: Their length, how far they are inwards, and how wavy they are, see `Grooming`.
      thickness: Distance from the skin.
      repeats: As in `make_locks`.
    """
    length, inward, wave = fall
    across = np.linspace(0, 1, _COLS)[None]
    t = np.linspace(0, 1, _ROWS)[:, None]
    azimuth = np.radians(around[0] + across * (around[1] - around[0]))
    azimuth = azimuth + np.radians(10) * np.clip(t / _ON_HEAD, 0, 1) * (1 - across)
    start, level = np.radians(rng.uniform(28, 45)), np.radians(rng.uniform(84, 96))
    polar = start + (level - start) * np.clip(t / _ON_HEAD, 0, 1)
    d = np.stack(
        np.broadcast_arrays(
            side * np.sin(polar) * np.sin(azimuth), -np.cos(polar) + 0 * azimuth,
            -np.sin(polar) * np.cos(azimuth),
        ),
        -1,
    )  # fmt: skip
    radius = surface(d) + 0.02 + thickness * np.clip(t * 6, 0.2, 1)
    points = d * radius[..., None] + CENTRE
    drop = np.clip((t - _ON_HEAD) / (1 - _ON_HEAD), 0, 1)
    end = 1.1 + 2.3 * length
    points[..., 1] += drop * (end + 0.12 * rng.normal(0, 1, _COLS)[None])
    y = points[..., 1]
    # Beside the jaw hair falls inwards; on the shoulders it spreads and lies before the chest.
    jaw = np.exp(-(((y - 1.3) / 0.9) ** 2)) * drop**0.3 * (drop > 0)
    points[..., 0] -= side * jaw * (0.14 + 0.20 * inward) * (1.2 - 0.5 * across)
    chest = np.clip((y - 1.9) / 1.0, 0, 1)
    points[..., 0] += side * chest * (0.02 + 0.16 * across)
    target = 0.30 + 0.28 * across - 0.08 * chest
    ahead = np.clip(drop * 2.2, 0, 1) * np.clip(0.6 + 0.4 * inward, 0.25, 1)
    points[..., 2] += np.maximum(ahead, chest) * np.minimum(target - points[..., 2], 0)
    phase, turns = rng.uniform(0, 6.28), 1.0 + 3.5 * wave * rng.uniform(0.6, 1.3)
    angle = 2 * np.pi * turns * drop * (0.5 + length) + phase + 2.5 * across * wave
    swing = (0.02 + 0.10 * wave) * np.clip(drop * 3, 0, 1)
    points[..., 0] += swing * np.sin(angle)
    points[..., 2] += 0.7 * swing * np.cos(angle)
    rim = np.minimum(np.arange(_COLS), np.arange(_COLS)[::-1])[None]
    opacity = np.minimum(np.clip((1 - t) / 0.16, 0, 1), np.clip(rim / 2.0 + 0.45, 0, 1))
    opacity = np.minimum(opacity, np.clip(t / 0.04 + 0.2, 0, 1)) * 1.05 + 0.02
    turn = (azimuth / (2 * np.pi) + rng.uniform(0, 1)) * repeats
    uv = np.stack(np.broadcast_arrays(turn, t * 2.4), -1)
    shade = 0.78 + 0.12 * np.sin(angle + 1.0) * wave + 0.10 * rng.normal(0, 1, _COLS)[None]
    shade = np.clip(shade + 0 * t, 0.4, 1.15)
    flat = points.reshape(-1, 3)
    triangles = orient_outwards(flat, grid_triangles(_ROWS, _COLS), CENTRE)
    return MeshPart(
        flat,
        triangles,
        HAIR,
        uv.reshape(-1, 2),
        np.repeat(shade.reshape(-1, 1), 3, 1),
        np.ravel(opacity),
        np.broadcast_to(1 - 0.65 * drop, shade.shape).ravel().copy(),
    )
