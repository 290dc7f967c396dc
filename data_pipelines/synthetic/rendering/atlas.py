"""Materials and the texture atlas of an avatar's mesh."""

from typing import NamedTuple

import cv2
import numpy as np

from ..geometry import eyes, garments, glasses, hair, mouth, rims, solids, torso
from ..painting import skin, teeth, tileable
from ..painting.appearance import Appearance
from ..painting.canvas import UNITS
from ..painting.portrait import Textures
from ..painting.textures import to_linear
from .rasterizer import CUTOUT, INNER, MATERIAL_FIELDS, OPAQUE

FACE = "face"
_NECK_STREAM = 0x4EC4
_EDGE = 0.5  # Opacity at which a garment ends, see `torso`.


class _Shading(NamedTuple):
    """How a material reflects light.

    Attributes:
      highlight: Strength of the highlight at full gloss.
      exponent: Binary logarithm of the highlight's exponent.
      wrap: How far diffuse light wraps around the edges in red, green and blue.
      two_sided: Whether back faces are visible.
    """

    highlight: float
    exponent: int
    wrap: tuple[float, float, float]
    two_sided: bool = True


_SKIN_WRAP = (0.40, 0.22, 0.16)  # Red light travels furthest in skin.
_SHADING = {
    FACE: _Shading(0.34, 4, _SKIN_WRAP, two_sided=False),
    torso.SKIN: _Shading(0.10, 4, _SKIN_WRAP),
    torso.NECK: _Shading(0.10, 4, _SKIN_WRAP),
    eyes.EYE: _Shading(0.9, 8, (0.3, 0.3, 0.3), two_sided=False),
    hair.HAIR: _Shading(0.16, 4, (0.25, 0.25, 0.25)),
    torso.CLOTH: _Shading(0.03, 3, (0.2, 0.2, 0.2)),
    mouth.TEETH: _Shading(0.30, 6, (0.5, 0.45, 0.45)),
    mouth.FLESH: _Shading(0.25, 5, (0.6, 0.4, 0.4)),
    rims.RIM: _Shading(0.25, 5, (0.5, 0.3, 0.3)),
    glasses.FRAME: _Shading(0.6, 6, (0.2, 0.2, 0.2)),
    garments.TRIM: _Shading(0.03, 3, (0.2, 0.2, 0.2)),
    garments.NECKWEAR: _Shading(0.08, 4, (0.2, 0.2, 0.2)),
    solids.MATT: _Shading(0.10, 3, (0.2, 0.2, 0.2)),
    solids.SHINY: _Shading(0.6, 6, (0.2, 0.2, 0.2)),
}
# Materials that cast no shadow; glasses are finer than the texels of the shadow map.
NOT_CASTING = (mouth.FLESH, rims.RIM, eyes.EYE, glasses.FRAME)


class TextureAtlas:
    """Packs textures below each other; see `rasterizer` for the rows of materials."""

    def __init__(self):
        self.images, self.rows, self.height = [], {}, 0

    def add(self, material, rgb, gloss, tileable=False, kind=OPAQUE):
        """Adds a material with a texture of its own: sRGB (H, W, 3) and gloss (H, W) or one."""
        gloss = np.broadcast_to(np.asarray(gloss, np.float32), rgb.shape[:2])
        image = np.dstack([to_linear(rgb), gloss]).astype(np.float32)
        height, width = image.shape[:2]
        self._add_row(material, (0, self.height, width, height, tileable, kind))
        self.images.append(image)
        self.height += height

    def share(self, material, other):
        """Adds a material with the texture of another one."""
        self._add_row(material, self.rows[other][:6])

    def _add_row(self, material, rectangle):
        shading = _SHADING[material]
        self.rows[material] = (
            *rectangle, shading.highlight, shading.exponent, *shading.wrap, shading.two_sided
        )  # fmt: skip

    def pack(self):
        """Returns the (H, W, 4) atlas and the (M, 12) materials, both float32."""
        atlas = np.zeros((self.height, max(i.shape[1] for i in self.images), 4), np.float32)
        y = 0
        for image in self.images:
            atlas[y : y + image.shape[0], : image.shape[1]] = image
            y += image.shape[0]
        materials = np.array(list(self.rows.values()), np.float32)
        assert materials.shape[1] == MATERIAL_FIELDS
        return atlas, materials


def _shrink(image, scale):
    """Shrinks a texture to the resolution that an image can show."""
    size = max(8, round(image.shape[0] * min(1.0, scale)))
    if size == image.shape[0]:
        return image.astype(np.float32)
    width = max(8, round(image.shape[1] * min(1.0, scale)))
    return cv2.resize(image.astype(np.float32), (width, size), interpolation=cv2.INTER_AREA)


def paint_atlas(
    appearance: Appearance, textures: Textures, unit: float, seed: int, rng: np.random.Generator
) -> TextureAtlas:
    """Collects the textures of all materials of a person.

    Args:
      appearance: Appearance of the person.
      textures: Textures of the person.
      unit: Interocular distance in pixels, to which the face texture is shrunk.
      seed: Seed of the neck's mottling.
      rng: Generator that draws teeth and the tips of the hair.
    """
    atlas = TextureAtlas()
    detail = 1.35 * unit * UNITS / textures.face.shape[0]
    atlas.add(FACE, _shrink(textures.face, detail), _shrink(textures.gloss, detail))
    atlas.share(torso.SKIN, FACE)
    neck = skin.paint_neck(textures.face, np.random.default_rng([_NECK_STREAM, seed]))
    atlas.add(torso.NECK, neck, 0.3)
    atlas.add(eyes.EYE, textures.eye, 1.0, kind=INNER)
    tips = tileable.paint_tips(textures.hair.shape[:2], rng)
    atlas.add(hair.HAIR, textures.hair, tips, tileable=True, kind=CUTOUT)
    atlas.add(torso.CLOTH, textures.cloth, _EDGE, tileable=True, kind=CUTOUT)
    rows = teeth.paint_teeth(rng)
    atlas.add(mouth.TEETH, rows[..., :3], rows[..., 3], kind=INNER)
    atlas.add(mouth.FLESH, np.full((8, 8, 3), 0.87, np.float32), 0.6, kind=INNER)
    atlas.share(rims.RIM, mouth.FLESH)
    if appearance.glasses in glasses.FRAMES:
        colour = np.broadcast_to(np.float32(appearance.glasses_colour), (8, 8, 3))
        atlas.add(glasses.FRAME, colour, glasses.FRAMES[appearance.glasses].gloss)
    atlas.add(garments.TRIM, textures.trim, _EDGE, tileable=True, kind=CUTOUT)
    atlas.add(garments.NECKWEAR, textures.neckwear, _EDGE, tileable=True, kind=CUTOUT)
    atlas.add(solids.MATT, np.ones((8, 8, 3), np.float32), 0.4)
    atlas.share(solids.SHINY, solids.MATT)
    return atlas
