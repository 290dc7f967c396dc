"""Spectacle frames: rims, bridge and temples, fitted to a head. The lenses are invisible."""

from dataclasses import dataclass

import numpy as np

from .face_model import IRISES
from .mesh import MeshPart, grid_triangles, orient_outwards

FRAME = "frame"
_CLEARANCE = 0.035  # Distance between frame and skin.
_TILT = 0.12  # Slope of the lenses: their lower edges are nearer to the cheeks.
_WRAP = 0.10  # Curvature of the front around the face.
_AROUND = 40  # Number of points along a rim.


@dataclass(frozen=True)
class GlassesFrame:
    """A kind of frame. Lengths are in interocular distances.

    Attributes:
      half_width, half_height: Half size of a lens.
      corners: Exponent of the outline, a superellipse; 2 is an ellipse, more is squarer.
      rim, depth: Half thickness of the rim, seen from the front and from the side.
      gloss: Gloss of the material, from 0 to 1.
    """

    half_width: float
    half_height: float
    corners: float
    rim: float
    depth: float
    gloss: float


FRAMES = {
    "round": GlassesFrame(0.36, 0.335, 2.0, 0.018, 0.020, 0.9),
    "rectangular": GlassesFrame(0.43, 0.28, 4.0, 0.034, 0.032, 0.5),
    "thin": GlassesFrame(0.42, 0.25, 2.8, 0.018, 0.020, 1.0),
}


def make_glasses(kind: str, points: np.ndarray, surface: np.ndarray) -> list[MeshPart]:
    """Makes a frame that rests on the nose and the ears.

    Args:
      kind: A key of `FRAMES`; any other value means no glasses.
      points: The face's landmarks at rest, (478, 3).
      surface: The head's skin, which the frame must not touch, (V, 3).
    """
    if kind not in FRAMES:
        return []
    frame = FRAMES[kind]
    irises = points[list(IRISES)]
    middle = irises[:, 0].mean()
    apart = 1.09 * np.abs(irises[:, 0] - middle).mean()
    level = irises[:, 1].mean() + 0.035
    half = min(frame.half_width, apart - 0.13 - frame.rim)
    front = _Front(middle, apart, level, half, frame, surface)
    angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
    parts = []
    for side in (-1, 1):
        outline = front.outline(side, angle)
        radial = np.gradient(np.concatenate([outline[-1:], outline, outline[:1]]), axis=0)[1:-1]
        radial = radial[:, [1, 0, 2]] * (1, -1, 0)
        parts.append(_make_bar(outline, radial, frame, closed=True))
        parts.append(_make_temple(front, side, points, surface))
    parts.append(_make_bridge(front, surface))
    return parts


class _Front:
    """The curved surface that holds both rims."""

    def __init__(self, middle, apart, level, half, frame, surface):
        self.middle, self.apart, self.level = middle, apart, level
        self.half, self.frame = half, frame
        self.near = 0.0
        u = (np.abs(surface[:, 0] - middle) - apart) / half
        v = (surface[:, 1] - level) / frame.half_height
        reach = (np.abs(u) ** frame.corners + np.abs(v) ** frame.corners) ** (1 / frame.corners)
        under = surface[(np.abs(reach - 1) < 0.14) & (surface[:, 2] < 0.6)]
        self.near = (under[:, 2] - self.z(under[:, 0], under[:, 1])).min()
        self.near -= _CLEARANCE + frame.depth

    def z(self, x, y):
        return self.near + _WRAP * (x - self.middle) ** 2 + _TILT * (y - self.level)

    def outline(self, side, angle):
        power = 2 / self.frame.corners
        c, s = np.cos(angle), np.sin(angle)
        x = self.middle + side * self.apart + self.half * np.sign(c) * np.abs(c) ** power
        y = self.level + self.frame.half_height * np.sign(s) * np.abs(s) ** power
        return np.stack([x, y, self.z(x, y)], 1)


def _make_bar(path, across, frame, closed=False, wide=1.0):
    """Makes a bar along a path (N, 3), where `across` (N, 3) is one axis of its cross-section."""
    ahead = np.gradient(path, axis=0)
    if closed:
        ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    across = across / np.linalg.norm(across, axis=1, keepdims=True)
    third = np.cross(ahead, across)
    third /= np.linalg.norm(third, axis=1, keepdims=True)
    angle = np.linspace(0, 2 * np.pi, 6, endpoint=False)[None, :, None]
    offset = frame.rim * wide * np.cos(angle) * across[:, None]
    offset = offset + frame.depth * np.sin(angle) * third[:, None]
    flat = (path[:, None] + offset).reshape(-1, 3)
    triangles = grid_triangles(len(path) + closed, 6, closed=True) % len(flat)
    # Triangles on the inside of a closed bar face its middle, so a short piece is checked.
    piece = triangles[: 2 * 6]
    facing = orient_outwards(flat, piece, path[:2].mean(0))
    triangles = triangles if np.array_equal(facing, piece) else triangles[:, ::-1]
    return MeshPart(flat, triangles, FRAME, np.full((len(flat), 2), 0.5))


def _make_bridge(front, surface):
    t = np.linspace(-1, 1, 9)
    inner = front.apart - front.half
    x = front.middle + t * inner
    y = front.level - front.frame.half_height * (0.30 + 0.12 * np.cos(t * np.pi / 2))
    z = front.z(x, y) - 0.03 * np.cos(t * np.pi / 2)
    nose = surface[np.hypot(surface[:, 0] - front.middle, surface[:, 1] - y[4]) < 0.08]
    clear = nose[:, 2].min() - _CLEARANCE
    z += np.cos(t * np.pi / 2) * min(clear - z[4], 0.0)
    path = np.stack([x, y, z], 1)
    return _make_bar(path, np.tile([0.0, 1.0, 0.0], (9, 1)), front.frame)


def _make_temple(front, side, points, surface):
    ear = points[234 if side < 0 else 454]
    x0 = front.middle + side * (front.apart + front.half)
    y0 = front.level - 0.38 * front.frame.half_height
    z0 = front.z(x0, y0)
    y1, z1 = ear[1] - 0.22, ear[2] + 0.20
    share = np.linspace(0, 1, 24)
    y, z = y0 + share * (y1 - y0), z0 + share * (z1 - z0)
    # A lug takes the hinge outwards; from there the temple runs like a taut string to the ear.
    out = np.full(24, x0 * side)
    out[2] += 0.09
    near = surface[surface[:, 0] * side > 0.6]
    for i in range(3, 24):
        here = (np.abs(near[:, 2] - z[i]) < 0.08) & (np.abs(near[:, 1] - y[i]) < 0.06)
        skin = (near[here, 0] * side).max(initial=0.0)
        out[i] = max(skin + _CLEARANCE, out[0])
    out[2:] = _upper_hull(share[2:], out[2:])
    out[1] = out[0] + 0.8 * (out[2] - out[0])
    path = np.stack([out * side, y, z], 1)
    return _make_bar(path, np.tile([0.0, 1.0, 0.0], (24, 1)), front.frame, wide=1.1)


def _upper_hull(t, height):
    """Returns the lowest concave curve over points, like a taut string."""
    out = height.copy()
    for i in range(len(t)):
        for j in range(i + 2, len(t)):
            line = np.interp(t[i : j + 1], t[[i, j]], height[[i, j]])
            out[i : j + 1] = np.maximum(out[i : j + 1], line)
    return out
