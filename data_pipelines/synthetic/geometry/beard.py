"""The volume of a beard: shells over the lower face that move with the skin below them."""

from dataclasses import dataclass

import numpy as np

from ..outfit import Grooming
from .hair import HAIR
from .mesh import MeshPart, smoothstep

_SHELLS = (0.45, 1.0)  # Distances of the shells, as shares of the outermost one.
_LEAST = 0.08  # Density of the beard at which it begins.


@dataclass(frozen=True, eq=False)
class Beard:
    """One shell.

    Attributes:
      part: Its mesh at rest.
      skin: Vertices of the head's surface above which its vertices are, (N,).
      offset: Their distance from these vertices, (N, 3).
    """

    part: MeshPart
    skin: np.ndarray
    offset: np.ndarray

    def deform(self, surface: np.ndarray) -> np.ndarray:
        """Computes the (N, 3) vertices from the head's surface (V, 3)."""
        return surface[self.skin] + self.offset


def make_beard(
    grooming: Grooming,
    mask: np.ndarray,
    surface: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray,
    chin: np.ndarray,
) -> list[Beard]:
    """Makes the shells of a beard.

    Args:
      grooming: Lengths of beard and moustache.
      mask: Where hair grows on the face texture, (N, N) in [0, 1].
      surface, triangles, uv: The head's surface at rest: (V, 3), (T, 3) and (V, 2).
      chin: The chin's landmark at rest, (3,).

    Returns:
      The shells, none if neither beard nor moustache is long.
    """
    if not (grooming.beard_length or grooming.moustache_length):
        return []
    size = len(mask)
    place = np.clip((uv * size).astype(int), 0, size - 1)
    dense = mask[place[:, 1], place[:, 0]]
    dense = dense * (surface[:, 2] < 1.3)
    used = (dense[triangles] > _LEAST).any(1)
    skin = np.unique(triangles[used])
    index = np.zeros(len(surface), int)
    index[skin] = np.arange(len(skin))
    x, y = surface[skin, 0], surface[skin, 1] - chin[1]
    grows = dense[skin] * smoothstep(dense[skin], 0, 0.6)
    # Longest at the chin, short on the cheeks; above the lip it is the moustache.
    low = smoothstep(y, -0.75, 0.05) * (1 - 0.35 * smoothstep(np.abs(x), 0.3, 0.9))
    lip = smoothstep(y, -0.55, -0.75) * smoothstep(np.abs(x), 0.6, 0.35)
    length = grooming.beard_length * low**1.5 * grows
    hang = 0.11 * grooming.moustache_length * lip * grows
    rng = np.random.default_rng(grooming.seed)
    waves = np.sin(rng.uniform(4, 9) * x + rng.uniform(0, 6)) * np.sin(rng.uniform(3, 7) * y)
    length = length * (1 + 0.15 * waves)
    normals = _normals(surface, triangles)[skin]
    out = (0.035 * grows + 0.28 * length + 0.5 * hang)[:, None] * normals
    # Below the jaw normals point down; hair there falls forwards of the throat.
    droop = np.stack([0.05 * x * length, 0.75 * length + hang, -0.12 * length], 1)
    texture = np.stack([uv[skin, 0] * 6, (uv[skin, 1] + 0.3 * length) * 3], 1)
    parts = []
    for number, share in enumerate(_SHELLS):
        offset = share * (out + droop)
        shade = (0.65 + 0.35 * share) * (1 - 0.2 * smoothstep(length, 0.0, 0.8) * (1 - share))
        opacity = np.clip(dense[skin] * (1.9 - 0.7 * share) - 0.12, 0, 1)
        part = MeshPart(
            surface[skin] + offset,
            index[triangles[used]],
            HAIR,
            texture + 0.37 * number,
            np.repeat(shade[:, None], 3, 1),
            opacity,
        )
        parts.append(Beard(part, skin, offset))
    return parts


def _normals(points, triangles):
    """Returns the unit normals of the vertices, (V, 3)."""
    a, b, c = points[triangles].swapaxes(0, 1)
    face = np.cross(b - a, c - a)
    out = np.zeros_like(points)
    for corner in triangles.T:
        np.add.at(out, corner, face)
    return out / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-12)
