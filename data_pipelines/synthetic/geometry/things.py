"""Things at the face: headphones, microphones, hands and cups."""

import numpy as np

from ..props import Props
from .mesh import MeshPart
from .solids import MATT, SHINY, make_ellipsoid, make_revolved, make_tube
from .torso import SKIN, Torso

AWAY = np.array([0.5, 2.6, -0.3])  # Where a hand comes from, relative to its place.
_CHEEK = (0.31, 0.47)  # Place of the skin's colour on the face texture.


def _move(points, right, down, away):
    """Moves points (..., 3)."""
    return np.asarray(points) + np.array([right, down, away])


def make_headset(props: Props, points: np.ndarray, top: float) -> list[MeshPart]:
    """Makes headphones, a headset with a boom, or earbuds; they turn with the head.

    Args:
      props: The things of the clip.
      points: The face's landmarks at rest, (478, 3).
      top: y of the top of the hair.
    """
    if props.headset == "none":
        return []
    ears = [points[i] + (side * 0.16, 0.1, 0.22) for i, side in ((234, -1), (454, 1))]
    colour, second = props.headset_colour, props.headset_second
    parts = []
    if props.headset == "earbuds":
        for ear, side in zip(ears, (-1, 1), strict=True):
            bud = _move(ear, side * 0.02, 0.03, -0.08)
            parts.append(make_ellipsoid(bud, (0.08, 0.08, 0.08), SHINY, second))
            path = [bud, _move(bud, side * 0.01, 0.25, -0.04), _move(bud, -side * 0.2, 2.4, -0.2)]
            end = 2 if second[0] > colour[0] else 3  # Without or with a cable.
            parts.append(make_tube(np.array(path[:end]), 0.03, SHINY, second))
        return parts
    wide = abs(ears[1][0] - ears[0][0]) / 2 + 0.08
    middle = (ears[0] + ears[1]) / 2
    angle = np.linspace(-np.pi / 2, np.pi / 2, 25)
    rise = middle[1] - top + 0.05
    band = middle + np.stack([wide * np.sin(angle), -rise * np.cos(angle), 0 * angle], 1)
    parts.append(make_tube(band, 0.07, MATT, colour, flat=2.2))
    for ear, side in zip(ears, (-1, 1), strict=True):
        base = _move(ear, -side * 0.06, 0, 0)
        rings = ((0, 0.34), (0.35, 0.42), (0.5, 0.38), (0.9, 0.34), (1.0, 0.02))
        parts.append(make_revolved(base, (side * 0.3, 0, 0), rings, MATT, second))
        rings = ((0.6, 0.3), (1.05, 0.26), (1.1, 0.02))
        parts.append(make_revolved(base, (side * 0.3, 0, 0), rings, SHINY, colour))
    if props.headset == "headset":
        side = 1 if props.microphone_at[0] > 0 else -1
        ear = ears[(side + 1) // 2]
        corner = points[291 if side > 0 else 61] + (side * 0.22, 0.12, -0.16)
        t = np.linspace(0, 1, 12)[:, None]
        path = ear + (side * 0.15, 0.2, 0) + t * (corner - ear - (side * 0.15, 0.2, 0))
        path[:, 0] += side * 0.3 * np.sin(np.pi * t[:, 0])
        path[:, 1] += 0.22 * np.sin(np.pi * t[:, 0])
        parts.append(make_tube(path, 0.025, MATT, colour))
        parts.append(make_ellipsoid(corner, (0.13, 0.1, 0.1), MATT, colour))
    return parts


def make_microphone(props: Props, chin: np.ndarray, torso: Torso) -> list[MeshPart]:
    """Makes a microphone on a stand or clipped to the clothes; it does not turn with the head."""
    parts = _make_microphone(props, chin, torso)
    for part in parts:
        part.head_weight = np.zeros(len(part.vertices))
    return parts


def _make_microphone(props, chin, torso):
    colour = props.microphone_colour
    if props.microphone == "none":
        return []
    if props.microphone == "lapel":
        at = torso.front(0.5 * props.microphone_at[0], 3.1 - torso.rise, 0.12)
        cable = torso.front(at[0] + np.linspace(0, 0.1, 8), at[1] + np.linspace(0, 1.2, 8), 0.09)
        return [
            make_ellipsoid(at, (0.07, 0.11, 0.07), MATT, colour),
            make_tube(cable, 0.015, MATT, colour),
        ]
    head = _move(chin, *props.microphone_at, -0.9)
    lean = 0.35 * props.microphone_at[0]
    axis = np.array([lean, 2.2, -0.6])
    if props.microphone == "ball":
        grey = tuple(min(1.0, 0.35 + 0.6 * v) for v in colour)
        rings = ((0.0, 0.11), (0.5, 0.09), (1.2, 0.07), (1.6, 0.06))
        return [
            make_ellipsoid(head, (0.24, 0.24, 0.24), MATT, grey, 10, 16),
            make_revolved(head + 0.08 * axis, axis, rings, SHINY, colour),
        ]
    if props.microphone == "studio":
        rings = ((-0.14, 0.01), (-0.13, 0.2), (0.0, 0.27), (0.2, 0.27), (0.21, 0.24), (0.4, 0.22),
                 (0.41, 0.02))  # fmt: skip
        boom = head + np.linspace(0, 1, 6)[:, None] * (2.6 * np.sign(lean or 1), 1.0, 0.2)
        return [
            make_revolved(head, axis, rings, SHINY, colour, 20),
            make_tube(_move(boom, 0, 0.5, 0.1), 0.06, MATT, colour),
        ]
    rings = ((-0.04, 0.02), (-0.03, 0.1), (0.14, 0.12), (0.15, 0.09), (0.2, 0.05), (1.6, 0.045))
    return [make_revolved(head, axis, rings, SHINY, colour)]


def make_cover(props: Props, chin: np.ndarray) -> list[MeshPart]:
    """Makes the hand or the cup at the chin, in its place; away from it, it is moved by `AWAY`."""
    if props.cover == "none":
        return []
    place = _move(chin, *props.cover_at, -0.42)
    side = 1 if props.cover_at[0] >= 0 else -1
    if props.cover == "cup":
        rings = ((0, 0.02), (0.01, 0.27), (0.1, 0.32), (1.0, 0.4), (1.0, 0.36), (0.7, 0.33))
        cup = _move(place, 0, 0.35, -0.25)
        handle = np.linspace(-np.pi / 2, np.pi / 2, 9)
        loop = cup + np.stack(
            [side * (0.34 + 0.22 * np.cos(handle)), -0.35 + 0.22 * np.sin(handle), 0 * handle], 1
        )
        parts = [
            make_revolved(cup, (0, -0.8, 0.05), rings, SHINY, props.cover_colour, 20),
            make_tube(loop, 0.05, SHINY, props.cover_colour),
            *_make_hand(_move(cup, side * 0.42, -0.1, -0.05), side, 0.7, props.cover_colour),
        ]
    else:
        bent = 1.0 if props.cover == "fist" else 0.25
        parts = _make_hand(_move(place, side * 0.25, 0.35, 0), side, bent, props.cover_colour)
    c, s = np.cos(props.cover_tilt), np.sin(props.cover_tilt)
    for part in parts:
        away = part.vertices - place
        turned = np.stack([c * away[:, 0] - s * away[:, 1], s * away[:, 0] + c * away[:, 1]], 1)
        part.vertices[:, :2] = place[:2] + turned
        part.head_weight = np.full(len(part.vertices), 0.3)
    return parts


def _make_hand(palm, side, bent, sleeve):
    """Makes a hand whose fingers point up and inwards, around its palm (3,)."""
    parts = [
        make_ellipsoid(palm, (0.30, 0.36, 0.15), SKIN, None, 10, 16),
        make_tube(palm + np.array([(0, 0.15, 0.05), (side * 0.25, 1.0, 0.1)]), 0.22, SKIN),
        make_tube(
            palm + np.array([(side * 0.2, 0.8, 0.1), (side * 0.9, 3.0, 0.4)]), 0.34, MATT, sleeve
        ),
    ]
    length = np.array([0.42, 0.48, 0.46, 0.36])
    for number in range(4):
        place = number - 1.5
        start = _move(palm, side * 0.18 * place, -0.25 + 0.03 * abs(place), -0.02)
        s = np.linspace(0, 1, 8)[:, None]
        curl = bent * 2.6 * s
        step = np.concatenate([-side * 0.25 * np.ones_like(s), -np.cos(curl), -np.sin(curl)], 1)
        path = start + np.cumsum(step, 0) * length[number] / 7
        radius = 0.095 * np.linspace(1, 0.8, 8) * np.sqrt(np.clip(1.05 - s[:, 0] ** 8, 0, 1))
        parts.append(make_tube(path, radius, SKIN))
    t = np.linspace(0, 1, 6)[:, None]
    thumb = _move(palm, -side * 0.2, 0.1, -0.05) + t * (-side * 0.3, -0.42, -0.05 + 0.2 * bent)
    parts.append(make_tube(thumb, 0.1, SKIN))
    for part in parts:
        if part.material == SKIN:
            part.uv = np.tile(_CHEEK, (len(part.vertices), 1))
            # Hands are a little redder than cheeks.
            part.colours = part.colours * (1, 0.93, 0.92)
    return parts
