"""The inside of the mouth: teeth, tongue and throat."""

import numpy as np

from ..animation.visemes import JAW, ROUND, TONGUE
from .expression import rotate_jaw
from .mesh import MeshPart, grid_triangles, orient_outwards, smoothstep

TEETH, FLESH = "teeth", "flesh"
ARCH_REACH = 0.44  # Position of the texture's edge along the dental arch.


def make_teeth(seam: np.ndarray, width: float) -> tuple[MeshPart, MeshPart]:
    """Makes the upper and the lower row of teeth at rest.

    Args:
      seam: Middle of the closed lips, (3,).
      width: Factor of the dental arch's width.
    """
    out = []
    for upper in (True, False):
        s = np.linspace(-ARCH_REACH, ARCH_REACH, 33)
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
        uv = np.stack(np.broadcast_arrays((s / ARCH_REACH + 1) / 2, texture), -1)
        dark = 1 - 0.62 * np.abs(s / ARCH_REACH) ** 1.6
        dark = dark * (0.96 if upper else 0.84) * (1 - 0.25 * (1 - v if upper else v))
        flat = points.reshape(-1, 3)
        triangles = orient_outwards(
            flat, grid_triangles(6, 33), np.array([0, seam[1], seam[2] + 1])
        )
        out.append(
            MeshPart(
                flat, triangles, TEETH, uv.reshape(-1, 2), np.repeat(dark.reshape(-1, 1), 3, 1)
            )
        )
    return out[0], out[1]


def make_tongue(seam: np.ndarray) -> MeshPart:
    """Makes the tongue at rest, behind the lower teeth; `seam` is as in `make_teeth`."""
    a = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    rows = []
    for t in np.linspace(0, 1, 9):
        r = np.sqrt(np.clip(1 - (1 - t) ** 2.2, 0, 1)) + 0.02
        x, y = 0.27 * r * np.cos(a), 0.085 * r * np.sin(a)
        y = y - 0.035 * np.exp(-((x / 0.05) ** 2)) * (y < 0) * -0.5  # The groove.
        rows.append(np.stack([x, y + 0.02 - 0.05 * t, np.full(20, 0.62 * t)], 1))
    flat = np.concatenate(rows) + seam + np.array([0, 0.135, 0.19])
    triangles = orient_outwards(flat, grid_triangles(9, 20, closed=True), flat.mean(0))
    depth = np.repeat(1 - 0.85 * np.linspace(0, 1, 9), 20)
    colours = depth[:, None] * np.array([0.60, 0.285, 0.265])
    return MeshPart(flat, triangles, FLESH, np.full((len(flat), 2), 0.5), colours)


def make_throat(seam: np.ndarray) -> MeshPart:
    """Makes the dark bowl behind teeth and tongue; `seam` is as in `make_teeth`."""
    a = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    rows, tones = [], []
    for t in np.linspace(0, 1, 5):
        r = np.cos(t * np.pi / 2)
        rows.append(
            np.stack(
                [0.40 * r * np.cos(a), 0.25 * r * np.sin(a) + 0.09, np.full(20, 0.2 + 0.5 * t)], 1
            )
        )
        tones.append(np.full(20, 0.16 * (1 - t) ** 1.5 + 0.012))
    flat = np.concatenate(rows) + seam
    triangles = orient_outwards(flat, grid_triangles(5, 20, closed=True), flat.mean(0))[:, ::-1]
    colours = np.concatenate(tones)[:, None] * np.array([1.0, 0.35, 0.32])
    return MeshPart(flat, triangles, FLESH, np.full((len(flat), 2), 0.5), colours)


def deform_throat(throat: np.ndarray, visemes: np.ndarray) -> np.ndarray:
    """Lowers the throat's vertices (V, 3) with the jaw; visemes are (7,) channels."""
    return throat + np.array([0, 0.16 * visemes[JAW], 0])


def deform_tongue(tongue: np.ndarray, seam: np.ndarray, visemes: np.ndarray) -> np.ndarray:
    """Moves the tongue's vertices (V, 3) with the jaw, and its tip up to the teeth.

    Args:
      tongue: Vertices at rest, (V, 3).
      seam: Middle of the closed lips, (3,).
      visemes: Channels in the order of `visemes.CHANNELS`, (7,).
    """
    jaw, rounding, lift = visemes[JAW], visemes[ROUND], visemes[TONGUE]
    out = rotate_jaw(tongue, visemes)
    tip = 1 - smoothstep(tongue[:, 2] - seam[2] - 0.19, 0.0, 0.45)
    out[:, 1] -= (0.07 * jaw + (0.05 + 0.14 * jaw) * lift) * tip
    out[:, 2] -= 0.05 * lift * tip
    back = rounding * (1 - lift)  # Rounded vowels draw the tongue back.
    out += np.array([0, 0.035 * back, 0.10 * back])
    out[:, 0] *= 1 - 0.25 * rounding
    return out
