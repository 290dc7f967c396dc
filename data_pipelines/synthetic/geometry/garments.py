"""Garments: layers on the torso, collars, ties, scarves, hoods and necklaces."""

import numpy as np

from ..outfit import Outfit
from .mesh import MeshPart, grid_triangles
from .solids import MATT, SHINY, make_ellipsoid, make_revolved, make_tube
from .torso import CLOTH, Torso, make_chest, make_layer

TRIM, NECKWEAR = "trim", "neckwear"  # Materials.
_RIB = 0.10  # Width of the band at a neckline.


def make_garments(outfit: Outfit, torso: Torso) -> list[MeshPart]:
    """Makes all that a person wears at the neck."""
    rng = np.random.default_rng(outfit.seed)
    parts = _MAKERS[outfit.collar](outfit, torso, rng)
    if outfit.neckwear == "tie":
        parts += _make_tie(outfit, torso, rng)
    elif outfit.neckwear == "scarf":
        parts += _make_scarf(outfit, torso, rng)
    elif outfit.neckwear != "none":
        parts += _make_necklace(outfit, torso)
    for part in parts:  # All of it stays with the shoulders.
        part.head_weight = np.zeros(len(part.vertices))
    return parts


def _vee(apex, slope, width=0.0):
    """Returns the signed distance from a neckline that falls to (0, apex), for `make_layer`."""

    def inside(points):
        x, y = np.abs(points[..., 0]), points[..., 1]
        line = apex - slope * np.maximum(x - width, 0)
        front = points[..., 2] < 1.3
        return np.where(front, (y - line) / np.hypot(1, slope), 1.0)

    return inside


def _make_band(path, rng, width):
    """Makes the band along a neckline (N, 3)."""
    radius = _RIB * width * rng.uniform(0.5, 1.5)
    tube = make_tube(path, radius, TRIM, sides=10, flat=0.35)
    tube.uv = tube.uv * (0.06, 2.5)
    return tube


def _trace_vee(torso, apex, slope, width=0.0):
    """Returns points (N, 3) along the neckline of `_vee`."""
    x = np.linspace(-1.0, 1.0, 41) * (width + (apex + torso.rise - 2.58) / slope)
    y = apex - slope * np.maximum(np.abs(x) - width, 0)
    return torso.front(x, y, 0.02)


def _make_crew(outfit, torso, rng):
    angle = np.linspace(0, 2 * np.pi, 61)
    band = _make_band(torso.points(angle, 1.1, 0.01), rng, 0.8)
    return [make_layer(torso, CLOTH), band]


def _make_vneck(outfit, torso, rng):
    return _make_open(outfit, torso, rng, 2.95 + 0.75 * outfit.opening, rng.uniform(0.9, 1.9), 0.0)


def _make_scoop(outfit, torso, rng):
    wide = rng.uniform(0.2, 0.9)
    return _make_open(outfit, torso, rng, 2.9 + 0.4 * outfit.opening, rng.uniform(0.7, 2.0), wide)


def _make_open(outfit, torso, rng, apex, slope, width):
    neckline = (apex - torso.rise, slope, width)
    return [
        make_chest(torso),
        make_layer(torso, CLOTH, 0.0, _vee(*neckline)),
        _make_band(_trace_vee(torso, *neckline), rng, 0.6),
    ]


def _make_leaf(outfit, torso, rng, material, opening):
    """Makes the collar of a shirt: a stand and a leaf that falls over it to two points."""
    gap = 0.06 + 0.3 * opening
    angle = np.linspace(gap, 2 * np.pi - gap, 61)
    front = 0.5 + 0.5 * np.cos(angle)
    near = np.clip(1 - np.minimum(angle, 2 * np.pi - angle) / 1.1, 0, 1)  # 1 at the points.
    high = 0.12 * outfit.collar_height
    top = 2.20 + 0.40 * front**1.5 - high - torso.rise + 0.12 * opening * near
    leaf = rng.uniform(0.26, 0.36) + rng.uniform(0.12, 0.42) * near**2
    lean = rng.normal(0, 0.01, 61).cumsum() * 0.1
    out = rng.uniform(0.0, 0.12) + 0.25 * opening
    rows = []
    for down, outwards in (
        (0.30, 0.0), (0.02, 0.045), (-0.01, 0.075), (0.03, 0.11), (0.45, 0.15), (0.8, 0.18),
        (1.0, 0.19), (0.98, 0.165),
    ):  # fmt: skip
        spread = outwards + near * max(down, 0) * (0.14 + out) + 0.04 * opening
        rows.append(torso.ring(angle, top + leaf * down, spread + lean * max(down, 0)))
        # The points swing outwards, away from the middle.
        rows[-1][:, 0] *= 1 + near**2 * max(down, 0) * (0.5 + 1.2 * opening)
    shade = np.repeat([0.55, 0.7, 0.95, 1.0, 1.0, 1.0, 0.97, 0.6], 61)
    return _make_sheet(np.stack(rows), material, shade, around=1.0)


def _make_sheet(points, material, shade, around=1.0, along=0.22):
    """Makes a sheet of rows (R, C, 3) whose uv follows its length."""
    rows, cols = points.shape[:2]
    length = np.linalg.norm(np.diff(points, axis=0, prepend=points[:1]), axis=-1).cumsum(0)
    u = np.broadcast_to(np.linspace(0, around, cols), (rows, cols))
    flat = points.reshape(-1, 3)
    uv = np.stack([u.ravel(), (length * along).ravel()], 1)
    colours = np.repeat(np.reshape(shade, (-1, 1)), 3, 1)
    return MeshPart(flat, grid_triangles(rows, cols), material, uv, colours)


def _make_shirt(outfit, torso, rng, material=CLOTH, cloth=CLOTH, outwards=0.0):
    opening = outfit.opening
    parts = []
    placket = rng.uniform(0.06, 0.11)
    edge = None
    if opening > 0.05:
        parts.append(make_chest(torso))
        edge = _vee(2.75 + 0.75 * opening - torso.rise, rng.uniform(1.5, 3.0))
    parts.append(make_layer(torso, cloth, outwards, edge))

    def strip(points):
        inside = placket - np.abs(points[..., 0])
        return inside if edge is None else np.minimum(inside, edge(points))

    shade = 0.93 * np.ones((24, 61))
    parts.append(make_layer(torso, cloth, outwards + 0.015, strip, shade))
    buttons = np.arange(2.98 + 0.7 * opening, 4.2, 0.38) - torso.rise
    pale = np.clip(np.array(outfit.trim_second) * 0.3 + 0.65 * rng.integers(0, 2), 0, 1)
    for point in torso.front(np.zeros(len(buttons)), buttons, outwards + 0.02):
        parts.append(make_ellipsoid(point, (0.035, 0.035, 0.015), SHINY, pale, 4, 8))
    parts.append(_make_leaf(outfit, torso, rng, material, opening))
    return parts


def _make_plain_shirt(outfit, torso, rng):
    return _make_shirt(outfit, torso, rng, TRIM if rng.random() < 0.2 else CLOTH)


def _make_polo(outfit, torso, rng):
    return _make_shirt(outfit, torso, rng, TRIM)


def _make_turtleneck(outfit, torso, rng):
    angle = np.linspace(0, 2 * np.pi, 73)
    front = 0.5 + 0.5 * np.cos(angle)
    # From the middle of the neck to the chin.
    top = torso.chin + 0.62 - 0.45 * outfit.collar_height - 0.22 * (1 - front)
    loose = rng.uniform(0.0, 0.16)
    wrinkle = rng.normal(0, 1, 73)
    wrinkle = 0.012 * np.convolve(np.tile(wrinkle, 3), np.hanning(9) / 4.5, "same")[73:146]
    wrinkle[-1] = wrinkle[0]
    end = 2.78 - torso.rise - 0.25 * (1 - front)
    rows = []
    for share, outwards in (
        (0.5, 0.0), (0.10, 0.03), (0.0, 0.06), (0.02, 0.11), (0.15, 0.14), (0.45, 0.15),
        (0.75, 0.14), (0.9, 0.13), (1.0, 0.12), (1.2, 0.05),
    ):  # fmt: skip
        y = top + share * (end - top)
        rows.append(torso.ring(angle, y + wrinkle, outwards + loose * (outwards > 0.02) + wrinkle))
    shade = np.repeat([0.4, 0.6, 0.85, 1, 1, 1, 0.97, 0.9, 0.85, 0.95], 73)
    sheet = _make_sheet(np.stack(rows), TRIM, shade, around=3.0)
    return [make_layer(torso, CLOTH), sheet]


def _make_hood(outfit, torso, rng):
    parts = _make_crew(outfit, torso, rng)
    gap = rng.uniform(0.15, 0.5)
    angle = np.linspace(gap, 2 * np.pi - gap, 49)
    back = 0.5 - 0.5 * np.cos(angle)
    size = rng.uniform(0.8, 1.3)
    middle = torso.ring(angle, 2.72 - 0.42 * back - torso.rise, 0.13 + 0.22 * back)
    fold = 1 + 0.12 * np.sin(angle * rng.uniform(3, 7) + rng.uniform(0, 6))
    tube = make_tube(middle, size * fold * (0.08 + 0.19 * back**0.6), CLOTH, sides=14)
    tube.uv = tube.uv * (1.0, 3.0)
    parts.append(tube)
    lining = middle + np.array([0, -0.05, 0]) - 0.10 * (middle - middle.mean(0)) * (1, 0, 1)
    parts.append(make_tube(lining, size * (0.06 + 0.12 * back), TRIM, sides=10))
    length = rng.uniform(0.5, 1.4)
    for side in (-1, 1):
        y = np.linspace(2.84 - torso.rise, 2.84 - torso.rise + length, 9)
        x = side * (0.26 + 0.05 * np.sin(np.linspace(0, rng.uniform(1, 5), 9)))
        path = torso.front(x, y, 0.05)
        parts.append(make_tube(path, 0.022, MATT, outfit.trim_second))
    return parts


def _make_suit(outfit, torso, rng):
    apex, slope = 3.6 + 0.5 * rng.random() - torso.rise, rng.uniform(1.3, 2.2)
    parts = _make_shirt(outfit, torso, rng, TRIM, TRIM, -0.02)
    parts.append(make_layer(torso, CLOTH, 0.06, _vee(apex, slope, 0.02)))
    # Lapels follow the edge, wide in the middle, with a notch below the collar.
    share, across = np.linspace(0, 1, 25), np.linspace(-0.1, 1, 7)
    top = 2.45 - torso.rise
    y = top + share * (apex - top)
    width = rng.uniform(0.3, 0.6) * np.minimum(1.1 - share, 0.35 + 1.2 * share) / 0.75
    notch = rng.uniform(0.28, 0.45)
    width = width * (1 - 0.75 * np.exp(-(((share - notch) / 0.03) ** 2)))
    shade = rng.choice((0.72, 0.85, 1.25)) * np.repeat(np.where(across < 0, 0.8, 1.0)[None], 25, 0)
    for side in (-1, 1):
        edge = 0.02 + (apex - y) / slope
        x = side * (edge[:, None] + width[:, None] * across)
        points = torso.front(x, y[:, None] - 0.25 * width[:, None] * across, 0.0)
        points[..., 2] -= 0.11 + 0.05 * np.sin(np.pi * np.clip(across, 0, 1))
        parts.append(_make_sheet(points, CLOTH, shade.ravel(), around=0.15))
    return parts


def _make_tie(outfit, torso, rng):
    top = 2.70 - 0.10 * outfit.collar_height - torso.rise
    if rng.random() < 0.2:  # A bow.
        wing = rng.uniform(0.28, 0.4)
        parts = []
        for side in (-1, 1):
            x = side * np.linspace(0.02, wing, 6)
            path = torso.front(x, np.full(6, top + 0.02), 0.13)
            parts.append(make_tube(path, np.linspace(0.06, 0.16, 6), NECKWEAR, sides=10, flat=0.4))
        parts.append(make_ellipsoid(path[0] * (0, 1, 1), (0.07, 0.08, 0.07), NECKWEAR))
    else:
        knot = rng.uniform(0.09, 0.14)
        y = np.concatenate([[top - 0.03, top + 0.03, top + 0.17], np.linspace(top + 0.2, 5.2, 10)])
        half = np.concatenate(
            [[knot, 1.1 * knot, 0.7 * knot], np.linspace(0.75 * knot, rng.uniform(0.2, 0.34), 10)]
        )
        lift = np.concatenate([[0.16, 0.18, 0.15], np.full(10, 0.10)])
        across = np.linspace(-1, 1, 7)
        points = torso.front(half[:, None] * across, y[:, None] + 0 * across, 0.0)
        points[..., 2] -= lift[:, None] * np.sqrt(1.15 - 0.6 * across**2)
        shade = np.repeat(np.concatenate([[0.9, 1, 0.75, 0.7], np.ones(9)]), 7)
        parts = [_make_sheet(points, NECKWEAR, shade, around=0.12)]
    return parts


def _make_scarf(outfit, torso, rng):
    angle = np.linspace(0, 2 * np.pi, 49)
    back = 0.5 - 0.5 * np.cos(angle)
    thick = rng.uniform(0.14, 0.24)
    parts = []
    for turn in range(int(rng.integers(1, 4))):
        tilt, phase = rng.normal(0, 0.09), rng.uniform(0, 6.28)
        y = 2.62 - 0.18 * turn - 0.28 * back - torso.rise + tilt * np.sin(angle)
        fold = 1 + 0.2 * np.sin(angle * rng.integers(2, 6) + phase)
        path = torso.ring(angle, y, thick * 0.9 + 0.04 * turn + 0.03 * np.sin(3 * angle + phase))
        tube = make_tube(path, thick * fold, NECKWEAR, sides=16)
        tube.uv = tube.uv * (0.6, 2.0)
        tube.colours = tube.colours * (0.92 + 0.08 * np.sin(tube.uv[:, :1] * 40 + phase))
        parts.append(tube)
    if rng.random() < 0.7:
        side = rng.choice((-1.0, 1.0)) * rng.uniform(0.1, 0.5)
        y = np.linspace(2.75 - torso.rise, 3.4 + 1.2 * outfit.drop, 10)
        path = torso.front(side * np.linspace(1, 1.3, 10), y, 0.16)
        end = make_tube(path, rng.uniform(0.2, 0.34), NECKWEAR, sides=12, flat=0.35)
        end.uv = end.uv * (0.6, 1.0)
        parts.append(end)
    return parts


def _make_necklace(outfit, torso):
    angle = np.linspace(-1.5, 1.5, 60)
    fall = np.cos(angle) ** 2
    y = 2.5 + (0.22 + 0.8 * outfit.drop) * fall - torso.rise
    # Around the neck it lies on the neck, further down on the chest.
    ring, x = torso.ring(angle, y, 0.05), np.sin(angle) * (0.62 + 0.25 * outfit.drop)
    chest = torso.front(x, y, 0.04)
    share = np.clip((y + torso.rise - 2.6) / 0.15, 0, 1)[:, None]
    path = ring + share * (chest - ring)
    colour = outfit.neckwear_colour
    if outfit.neckwear == "beads":
        step = np.linspace(0, len(path) - 1, 31).round().astype(int)
        radius = 0.035 + 0.03 * outfit.collar_height
        parts = [make_ellipsoid(p, (radius,) * 3, SHINY, colour, 6, 8) for p in path[step]]
    else:
        parts = [make_tube(path, 0.012 + 0.02 * outfit.collar_height, SHINY, colour, 6)]
        if outfit.opening > 0.2 or outfit.drop > 0.5:
            low = path[len(path) // 2]
            size = 0.05 + 0.06 * outfit.drop
            stone = np.array(outfit.neckwear_second)
            base, axis = low + np.array([0, 0.01, -0.03]), np.array([0, 2.6 * size, 0])
            profile = ((0, 0.2 * size), (0.35, size), (0.7, size), (1.0, 0.02))
            parts.append(make_revolved(base, axis, profile, SHINY, stone, 10))
    return parts


_MAKERS = {
    "crew": _make_crew,
    "vneck": _make_vneck,
    "scoop": _make_scoop,
    "shirt": _make_plain_shirt,
    "polo": _make_polo,
    "turtleneck": _make_turtleneck,
    "hood": _make_hood,
    "suit": _make_suit,
}
