"""The avatar's mesh: the vertex arrays, materials and texture atlas that the rasterizer needs."""

import numpy as np

from ..geometry import (
    beard,
    expression,
    eyes,
    face,
    face_model,
    garments,
    glasses,
    hair,
    head,
    locks,
    mouth,
    rims,
    things,
    torso,
)
from ..geometry.mesh import MeshPart, smoothstep
from ..painting.appearance import Appearance
from ..painting.portrait import Textures
from ..props import Props
from ..scene import Pose
from .atlas import FACE, NOT_CASTING, paint_atlas


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
      props: Things at the face.

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
        props: Props,
    ):
        self.topology = face.head_topology()
        shape, points = geometry.shape, geometry.points
        surface = self.topology.matrix @ geometry.control
        rng = np.random.default_rng(shape.seed + 1)
        atlas = paint_atlas(appearance, textures, unit, shape.seed, rng)
        parts = [
            *self._make_rigid_parts(
                appearance, shape, points, surface, textures.hair.shape[1], rng
            ),
            *_make_things(props, geometry),
        ]
        cover = things.make_cover(props, points[152])
        self.rigid = _stack_vertices(parts)
        self._cover = _stack_vertices(cover)
        self.beards = beard.make_beard(
            appearance.grooming,
            textures.beard,
            surface,
            self.topology.triangles,
            np.clip(self.topology.uv, 0.004, 0.996),
            points[152],
        )
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
                *(eye.part for eye in self.eyes), *(shell.part for shell in self.beards), *parts,
                *cover,
            ],
            list(atlas.rows),
        )  # fmt: skip
        self._find_seam_shadow(len(geometry.control))

    @staticmethod
    def _make_rigid_parts(appearance, shape, points, surface, hair_width, rng):
        """Makes the parts that no expression moves."""
        body = torso.Torso(shape.neck, points[152, 1])
        haircut = hair.choose_haircut(appearance.hair_style, rng)
        skull = head.HeadSurface(surface)
        sides = hair.HAIRCUTS[haircut].sides if haircut in hair.HAIRCUTS else 0.0
        return [
            *torso.make_neck(body),
            *garments.make_garments(appearance.outfit, body),
            *head.make_ears(points),
            *hair.make_hair(haircut, skull, rng, appearance.hairline, hair_width),
            *locks.make_locks(appearance.grooming, skull, sides, hair.count_repeats(hair_width)),
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
        casting = [i for i, name in enumerate(names) if name not in NOT_CASTING]
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
            *(shell.deform(surface) for shell in self.beards),
            self.rigid,
            self._cover + (1 - pose.reach) * things.AWAY,
        ]
        landmarks = np.concatenate([surface[: face_model.SURFACE], *irises])
        return np.concatenate(vertices), landmarks


def _stack_vertices(parts):
    """Returns the vertices of all parts, (N, 3)."""
    return np.concatenate([np.zeros((0, 3)), *(part.vertices for part in parts)])


def _make_things(props, geometry):
    """Makes what is at the face all the time."""
    points = geometry.points
    body = torso.Torso(geometry.shape.neck, points[152, 1])
    return [
        *things.make_headset(props, points, points[10, 1] - 0.75),
        *things.make_microphone(props, points[152], body),
    ]
