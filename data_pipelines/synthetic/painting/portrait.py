"""All textures of a person."""

from dataclasses import dataclass

import numpy as np

from . import features, hair, skin, tileable
from .appearance import Appearance
from .canvas import Canvas
from .textures import to_srgb


@dataclass(frozen=True)
class Textures:
    """Textures of a person. Colours are float32 sRGB in [0, 1].

    Attributes:
      face: Face over the model's texture coordinates, (N, N, 3).
      gloss: Gloss of the face, (N, N) float32 in [0, 1].
      eye: Eyeball from the front, (64, 64, 3).
      hair: Tileable strands, which run downwards, (M, M, 3).
      cloth: Tileable cloth of the garment, (K, K, 3).
      trim: Tileable cloth of collars, (K, K, 3).
      neckwear: Tileable cloth of a tie or a scarf, (K, K, 3).
      beard: Where a beard grows, (N, N) float32 in [0, 1].
    """

    face: np.ndarray
    gloss: np.ndarray
    eye: np.ndarray
    hair: np.ndarray
    cloth: np.ndarray
    trim: np.ndarray
    neckwear: np.ndarray
    beard: np.ndarray


def paint_portrait(
    appearance: Appearance, uv: np.ndarray, rng: np.random.Generator, size: int = 512
) -> Textures:
    """Paints a person.

    The textures hold no light, except that folds are darkened.

    Args:
      appearance: Appearance of the person.
      uv: Texture coordinates of the landmarks in [0, 1], (478, 2).
      rng: Generator that draws the details.
      size: Side of the face texture in pixels.
    """
    canvas = Canvas(uv, size)
    linear, gloss = skin.paint_skin(appearance, uv, rng, canvas)
    linear, gloss = features.paint_lips(appearance, canvas, rng, linear, gloss)
    linear = features.paint_lids(appearance, canvas, rng, linear)
    linear = features.paint_nostrils(canvas, linear)
    linear, gloss = hair.paint_scalp(appearance, canvas, rng, linear, gloss)
    linear, gloss = hair.paint_beard(appearance, canvas, rng, linear, gloss)
    linear = hair.paint_brows(appearance, canvas, rng, linear)
    worn = appearance.outfit
    return Textures(
        face=to_srgb(linear),
        gloss=np.clip(gloss, 0, 1).astype(np.float32),
        eye=features.paint_eye(appearance, rng),
        hair=tileable.paint_strands(appearance, rng),
        cloth=tileable.paint_cloth(appearance, rng),
        trim=tileable.paint_fabric(worn.trim_colour, worn.trim_second, worn.trim_fabric, rng),
        neckwear=tileable.paint_fabric(
            worn.neckwear_colour, worn.neckwear_second, worn.neckwear_fabric, rng
        ),
        beard=hair.paint_beard_mask(appearance, canvas, rng),
    )
