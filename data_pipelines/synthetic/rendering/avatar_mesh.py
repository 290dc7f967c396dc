"""The avatar's mesh: the vertex arrays, materials and texture atlas that the rasterizer needs."""

from typing import NamedTuple

import cv2
import numpy as np

from ..geometry import (
    expression,
    eyes,
    face,
    face_model,
    glasses,
    hair,
    head,
    mouth,
    rims,
)
from ..geometry.mesh import MeshPart, smoothstep
from ..painting import skin, teeth, tileable
from ..painting.appearance import Appearance
from ..painting.canvas import UNITS
from ..painting.portrait import Textures
from ..painting.textures import to_linear
from ..scene import Pose
from .rasterizer import CUTOUT, INNER, MATERIAL_FIELDS, OPAQUE

FACE = "face"
_NECK_STREAM = 0x4EC4


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
    head.SKIN: _Shading(0.10, 4, _SKIN_WRAP),
    head.NECK: _Shading(0.10, 4, _SKIN_WRAP),
    eyes.EYE: _Shading(0.9, 8, (0.3, 0.3, 0.3), two_sided=False),
    hair.HAIR: _Shading(0.16, 4, (0.25, 0.25, 0.25)),
    head.CLOTH: _Shading(0.03, 3, (0.2, 0.2, 0.2)),
    mouth.TEETH: _Shading(0.30, 6, (0.5, 0.45, 0.45)),
    mouth.FLESH: _Shading(0.25, 5, (0.6, 0.4, 0.4)),
    rims.RIM: _Shading(0.25, 5, (0.5, 0.3, 0.3)),
    glasses.FRAME: _Shading(0.6, 6, (0.2, 0.2, 0.2)),
}
# Materials that cast no shadow; glasses are finer than the texels of the shadow map.
_NOT_CASTING = (mouth.FLESH, rims.RIM, eyes.EYE, glasses.FRAME)


class _TextureAtlas:
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


def _ambient_occlusion(matrix, jaw):
    """Returns (V, 3) vertex colours that darken skin where little light arrives."""
    mean = face_model.load_face_model().points
    x, y = np.abs(mean[: face_model.SURFACE, 0]), mean[: face_model.SURFACE, 1]
    front = np.zeros(face_model.SURFACE)
    for cx, cy, rx, ry, amount in (
        (0.24, -0.02, 0.13, 0.13, 0.22),  # Beside the root of the nose.
        (0.5, -0.14, 0.28, 0.07, 0.14),  # Below the brow.
        (0.0, 0.90, 0.24, 0.07, 0.20),  # Below the nose.
        (0.27, 0.80, 0.07, 0.10, 0.16),  # The crease of the nose's wings.
        (0.0, 1.47, 0.24, 0.05, 0.20),  # Below the lower lip.
        (0.40, 1.23, 0.06, 0.05, 0.20),  # The corners of the mouth.
    ):
        front += amount * np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
    back = 0.55 * np.minimum(jaw * 2.5, 1)  # Below the jaw.
    dark = np.clip(matrix @ np.concatenate([front, back]), 0, 0.8)
    # Light that arrives there has passed through skin, which reddens it.
    return 1 - dark[:, None] * np.array([0.85, 1.0, 1.05])


class AvatarMesh:
    """The mesh of one identity.

    Args:
      appearance: Appearance of the identity.
      geometry: Geometry of its face.
      textures: Its textures.
      unit: Interocular distance in pixels, to which the face texture is shrunk.

    Attributes:
      uv, colours, opacity, triangles, material, materials, atlas: See `rasterizer`.
      head_weight: Skinning weights of the vertices, see `MeshPart`, (V,).
      casting: Triangles that cast shadows, (C, 3).
    """

    def __init__(
        self,
        appearance: Appearance,
        geometry: face.FaceGeometry,
        textures: Textures,
        unit: float,
    ):
        self.topology = face.head_topology()
        shape, points = geometry.shape, geometry.points
        surface = self.topology.matrix @ geometry.control
        rng = np.random.default_rng(shape.seed + 1)
        atlas = self._paint_atlas(appearance, textures, unit, shape.seed, rng)
        parts = self._make_rigid_parts(
            appearance, shape, points, surface, textures.hair.shape[1], rng
        )
        self.rigid = np.concatenate([part.vertices for part in parts])
        self.seam = (points[13] + points[14]) / 2
        self.upper_teeth, self.lower_teeth = mouth.make_teeth(self.seam, 1 + 0.05 * shape.lip_width)
        self.tongue, self.throat = mouth.make_tongue(self.seam), mouth.make_throat(self.seam)
        self.eyes = [eyes.make_eyeball(points, side, shape.droop) for side in (0, 1)]
        skin_part = MeshPart(
            surface,
            self.topology.triangles,
            FACE,
            np.clip(self.topology.uv, 0.004, 0.996),
            _ambient_occlusion(self.topology.matrix, self.topology.jaw),
        )
        self.atlas, self.materials = atlas.pack()
        # `deform` returns the vertices in this order.
        self._join(
            [
                skin_part, self.upper_teeth, self.throat, self.lower_teeth, self.tongue,
                *(rims.make_rim(*boundary) for boundary in self._boundaries(surface)),
                *(eye.part for eye in self.eyes), *parts,
            ],
            list(atlas.rows),
        )  # fmt: skip
        self._find_seam_shadow(len(geometry.control))

    @staticmethod
    def _paint_atlas(appearance, textures, unit, seed, rng):
        atlas = _TextureAtlas()
        detail = 1.35 * unit * UNITS / textures.face.shape[0]
        atlas.add(FACE, _shrink(textures.face, detail), _shrink(textures.gloss, detail))
        atlas.share(head.SKIN, FACE)
        neck = skin.paint_neck(textures.face, np.random.default_rng([_NECK_STREAM, seed]))
        atlas.add(head.NECK, neck, 0.3)
        atlas.add(eyes.EYE, textures.eye, 1.0, kind=INNER)
        tips = tileable.paint_tips(textures.hair.shape[:2], rng)
        atlas.add(hair.HAIR, textures.hair, tips, tileable=True, kind=CUTOUT)
        atlas.add(head.CLOTH, textures.cloth, 0.5, tileable=True)
        rows = teeth.paint_teeth(rng)
        atlas.add(mouth.TEETH, rows[..., :3], rows[..., 3], kind=INNER)
        atlas.add(mouth.FLESH, np.full((8, 8, 3), 0.87, np.float32), 0.6, kind=INNER)
        atlas.share(rims.RIM, mouth.FLESH)
        if appearance.glasses in glasses.FRAMES:
            colour = np.broadcast_to(np.float32(appearance.glasses_colour), (8, 8, 3))
            atlas.add(glasses.FRAME, colour, glasses.FRAMES[appearance.glasses].gloss)
        return atlas

    @staticmethod
    def _make_rigid_parts(appearance, shape, points, surface, hair_width, rng):
        """Makes the parts that no expression moves."""
        chin = points[152, 1]
        haircut = hair.choose_haircut(appearance.hair_style, rng)
        return [
            *head.make_neck(1 + 0.09 * shape.neck, chin),
            head.make_torso(shape.neck, chin),
            *head.make_ears(points),
            *hair.make_hair(
                haircut, head.HeadSurface(surface), rng, appearance.hairline, hair_width
            ),
            *glasses.make_glasses(appearance.glasses, points, surface),
        ]

    def _boundaries(self, surface):
        """Lists the boundaries (n, 3) of mouth and eyes, each with whether it is the mouth."""
        return [(surface[loop], i == 0) for i, loop in enumerate(self.topology.boundaries)]

    def _join(self, parts, names):
        """Joins the parts' vertex arrays."""
        rows = [names.index(part.material) for part in parts]
        starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
        self.uv = np.concatenate(
            [part.uv * self.materials[row, 2:4] for part, row in zip(parts, rows, strict=True)]
        ).astype(np.float32)
        self.colours = np.concatenate([part.colours for part in parts]).astype(np.float32)
        self.opacity = np.concatenate([part.opacity for part in parts]).astype(np.float32)
        self.head_weight = np.concatenate([part.head_weight for part in parts])
        self.material = np.repeat(rows, [len(part.triangles) for part in parts]).astype(np.int32)
        self.triangles = np.concatenate(
            [part.triangles + start for part, start in zip(parts, starts, strict=True)]
        ).astype(np.int32)
        casting = [i for i, name in enumerate(names) if name not in _NOT_CASTING]
        self.casting = self.triangles[np.isin(self.material, casting)]

    def _find_seam_shadow(self, control_points):
        """Finds the vertices near the seam of the lips, which shade each other when they meet."""
        near = np.zeros(control_points)
        near[[*face_model.UPPER_SEAM, *face_model.LOWER_SEAM, *face_model.CORNERS]] = 1.0
        near[[*face_model.UPPER_ROWS[2], *face_model.LOWER_ROWS[2]]] = 0.30
        near = self.topology.matrix @ near
        self._seam_vertices = np.nonzero(near > 0.01)[0]
        self._seam_shadow = near[self._seam_vertices, None] * np.array([0.85, 1.0, 1.0])
        self._seam_colours = self.colours[self._seam_vertices].copy()

    def deform(self, control: np.ndarray, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Computes all vertices of an expression, and updates `colours` near the lips.

        Args:
          control: Control points of `FaceGeometry.deform`, (N, 3).
          pose: Pose that they were computed for.

        Returns:
          (V, 3) vertices and (478, 3) landmarks, both in the neutral head's frame.
        """
        surface = self.topology.matrix @ control
        visemes = np.clip(np.asarray(pose.visemes, float), 0, 1)
        gap = np.linalg.norm(control[13] - control[14])
        # Open lips lose most of the dark line that is painted where they meet.
        touch = 0.45 - 1.35 * smoothstep(gap, 0.0, 0.15)
        self.colours[self._seam_vertices] = self._seam_colours * (1 - touch * self._seam_shadow)
        eyeballs, irises = zip(*(eye.rotate(pose.gaze) for eye in self.eyes), strict=True)
        vertices = [
            surface,
            self.upper_teeth.vertices,
            mouth.deform_throat(self.throat.vertices, visemes),
            expression.rotate_jaw(self.lower_teeth.vertices, visemes),
            mouth.deform_tongue(self.tongue.vertices, self.seam, visemes),
            *(rims.rim_vertices(*boundary) for boundary in self._boundaries(surface)),
            *eyeballs,
            self.rigid,
        ]
        landmarks = np.concatenate([surface[: face_model.SURFACE], *irises])
        return np.concatenate(vertices), landmarks
