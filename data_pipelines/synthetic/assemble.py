"""All meshes and textures of one avatar as the flat arrays the renderer wants."""

import cv2
import numpy as np

from data_pipelines.synthetic import face_model, geometry, glasses, hair, head, mouth
from data_pipelines.synthetic.expression import JAW_ANGLE, smoothstep
from data_pipelines.synthetic.raster import MATERIAL_FIELDS

FACE, EYE, LINING = "face", "eye", "lining"
_NECK_STREAM = 0x4EC4
# Strength and log2 exponent of the highlight; light's wrap in R, G, B; two-sided.
_SURFACES = {
    FACE: (0.34, 4, 0.40, 0.22, 0.16, 0),
    head.SKIN: (0.10, 4, 0.40, 0.22, 0.16, 1),
    head.NECK: (0.10, 4, 0.40, 0.22, 0.16, 1),
    EYE: (0.9, 8, 0.3, 0.3, 0.3, 0),
    head.HAIR: (0.16, 4, 0.25, 0.25, 0.25, 1),
    head.CLOTH: (0.03, 3, 0.2, 0.2, 0.2, 1),
    mouth.TEETH: (0.30, 6, 0.5, 0.45, 0.45, 1),
    mouth.FLESH: (0.25, 5, 0.6, 0.4, 0.4, 1),
    LINING: (0.25, 5, 0.5, 0.3, 0.3, 1),
    glasses.FRAME: (0.6, 6, 0.2, 0.2, 0.2, 1),
}


class _Atlas:
    """Packs textures below each other."""

    def __init__(self):
        self.images, self.rows, self.y = [], {}, 0

    def add(self, name, rgb, gloss, repeats=0, holes=0):
        gloss = np.broadcast_to(np.asarray(gloss, np.float32), rgb.shape[:2])
        image = np.dstack([np.clip(rgb, 0, 1) ** 2.2, gloss]).astype(np.float32)
        height, width = image.shape[:2]
        surface = _SURFACES[name]
        self.rows[name] = (0, self.y, width, height, repeats, holes, *surface)
        self.images.append(image)
        self.y += height

    def pack(self):
        width = max(image.shape[1] for image in self.images)
        atlas = np.zeros((self.y, width, 4), np.float32)
        y = 0
        for image in self.images:
            atlas[y : y + image.shape[0], : image.shape[1]] = image
            y += image.shape[0]
        materials = np.array(list(self.rows.values()), np.float32)
        assert materials.shape[1] == MATERIAL_FIELDS
        return atlas, materials


def _fit(image, scale):
    """Shrinks a texture to what a picture can show of it."""
    size = max(8, round(image.shape[0] * min(1.0, scale)))
    if size == image.shape[0]:
        return image.astype(np.float32)
    width = max(8, round(image.shape[1] * min(1.0, scale)))
    return cv2.resize(image.astype(np.float32), (width, size), interpolation=cv2.INTER_AREA)


def _occlusion(matrix, jaw):
    """(V, 3) tints of the skin where little light gets: under the jaw, in the sockets' corners."""
    mean = face_model.load().points
    dark = np.zeros(matrix.shape[1])
    dark[face_model.SURFACE :] = 0.55 * np.minimum(jaw * 2.5, 1)
    x, y = np.abs(mean[: face_model.SURFACE, 0]), mean[: face_model.SURFACE, 1]
    front = np.zeros(face_model.SURFACE)
    for cx, cy, rx, ry, amount in (
        (0.24, -0.02, 0.13, 0.13, 0.22),  # beside the nose's root
        (0.5, -0.14, 0.28, 0.07, 0.14),  # under the brow
        (0.0, 0.90, 0.24, 0.07, 0.20),  # under the nose
        (0.27, 0.80, 0.07, 0.10, 0.16),  # the wings' crease
        (0.0, 1.47, 0.24, 0.05, 0.20),  # under the lower lip
        (0.40, 1.23, 0.06, 0.05, 0.20),  # the mouth's corners
    ):
        front += amount * np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
    dark[: face_model.SURFACE] = front
    dark = np.clip(matrix @ dark, 0, 0.8)
    # What light reaches such places has been through skin: redder.
    return 1 - dark[:, None] * np.array([0.85, 1.0, 1.05])


class Assembly:
    """The avatar's mesh.

    Args:
      look: the identity's `Look`.
      face: its geometry.
      textures: its `Textures`.
      unit: pixels of the interocular distance; textures are shrunk to match.

    Attributes:
      uv, tint, fringe, follow, triangles, material, materials, atlas: see `raster`.
      casting: (C, 3) the triangles that cast shadows.
    """

    def __init__(self, look, face: geometry.FaceGeometry, textures, unit):
        self.matrix, refined, self.rims, uv, jaw = geometry.topology()
        shape, points = face.shape, face.points
        surface = self.matrix @ face.control
        rng = np.random.default_rng(shape.seed + 1)
        self.seam = (points[13] + points[14]) / 2
        atlas = _Atlas()
        detail = 1.35 * unit * 4.2 / textures.face.shape[0]
        atlas.add(FACE, _fit(textures.face, detail), _fit(textures.gloss, detail))
        atlas.rows[head.SKIN] = (*atlas.rows[FACE][:6], *_SURFACES[head.SKIN])
        skin = head.neck_skin(textures.face, np.random.default_rng([_NECK_STREAM, shape.seed]))
        atlas.add(head.NECK, skin, 0.3)
        atlas.add(EYE, textures.eye, 1.0, holes=2)
        strands = textures.hair.astype(np.float32)
        atlas.add(head.HAIR, strands, hair.tips(strands.shape[:2], rng), repeats=1, holes=1)
        atlas.add(head.CLOTH, textures.cloth, 0.5, repeats=1)
        row = mouth.paint_teeth(rng)
        atlas.add(mouth.TEETH, row[..., :3], row[..., 3], holes=2)
        atlas.add(mouth.FLESH, np.full((8, 8, 3), 0.87, np.float32), 0.6, holes=2)
        atlas.rows[LINING] = (*atlas.rows[mouth.FLESH][:6], *_SURFACES[LINING])
        parts = head.neck(1 + 0.09 * shape.neck, points[152, 1])
        parts.append(head.torso(shape.neck, points[152, 1]))
        parts += head.ears(points)
        style = hair.variant(str(getattr(look, "hair_style", "short")), rng)
        receding = float(getattr(look, "hairline", 0.0))
        parts += hair.hair(style, head.Surface(surface), rng, receding, strands.shape[1])
        kind = str(getattr(look, "glasses", "none"))
        if kind in glasses.FRAMES:
            atlas.add(glasses.FRAME, *glasses.texture(look))
            parts += glasses.glasses(kind, points, surface)
        self.static = np.concatenate([part.points for part in parts])
        self.upper_teeth, self.lower_teeth = mouth.teeth(self.seam, 1 + 0.05 * shape.lip_width)
        self.tongue, self.throat = mouth.tongue(self.seam), mouth.throat(self.seam)
        inner = [self.upper_teeth, self.throat, self.lower_teeth, self.tongue]
        self.eyes = [self._eyeball(points, i, shape.droop) for i in (0, 1)]
        linings = [self._lining(surface, i) for i in range(3)]
        everything = [
            head.Part(
                surface, refined, FACE, np.clip(uv, 0.004, 0.996), _occlusion(self.matrix, jaw)
            ), *inner, *linings,
            *(eye["part"] for eye in self.eyes), *parts,
        ]  # fmt: skip
        close = np.zeros(len(face.control))
        close[[*face_model.UPPER_SEAM, *face_model.LOWER_SEAM, *face_model.CORNERS]] = 1.0
        close[[*face_model.UPPER_ROWS[2], *face_model.LOWER_ROWS[2]]] = 0.30
        close = self.matrix @ close
        self._near_seam = np.nonzero(close > 0.01)[0]
        self._seam_shadow = close[self._near_seam, None] * np.array([0.85, 1.0, 1.0])
        self.atlas, self.materials = atlas.pack()
        self._join(everything, list(atlas.rows))

    def _join(self, parts, names):
        uv, material, triangles, start = [], [], [], 0
        for part in parts:
            number = names.index(part.material)
            row = self.materials[number]
            uv.append(part.uv * row[2:4] + (0 if row[4] else row[0:2] * 0))
            material.append(np.full(len(part.triangles), number))
            triangles.append(part.triangles + start)
            start += len(part.points)
        self.uv = np.concatenate(uv).astype(np.float32)
        self.tint = np.concatenate([part.tint for part in parts]).astype(np.float32)
        self.fringe = np.concatenate([part.fringe for part in parts]).astype(np.float32)
        self._seam_tint = self.tint[self._near_seam].copy()
        self.follow = np.concatenate([part.follow for part in parts])
        self.material = np.concatenate(material).astype(np.int32)
        self.triangles = np.concatenate(triangles).astype(np.int32)
        # A frame is finer than the shadow map's texels.
        not_casting = (mouth.FLESH, LINING, EYE, glasses.FRAME)
        solid = [i for i, name in enumerate(names) if name not in not_casting]
        self.casting = self.triangles[np.isin(self.material, solid)]

    def _eyeball(self, points, i, droop):
        up, low = face_model.UPPER_LIDS[i], face_model.LOWER_LIDS[i]
        rim = points[list(up + low)]
        width = abs(points[up[0], 0] - points[up[-1], 0])
        radius = 0.55 * width
        middle = rim.mean(0)
        front = points[[up[4], low[4]], 2].mean() + 0.012
        centre = np.array([(points[up[0], 0] + points[up[-1], 0]) / 2, middle[1], front + radius])
        rings, columns = 11, 24
        polar = np.linspace(0, 1.45, rings)[:, None]
        around = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
        offset = np.stack(
            [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around),
             -np.cos(polar) + 0 * around], -1
        ).reshape(-1, 3)  # fmt: skip
        triangles = head.outwards(offset, head.grid(rings, columns, closed=True), np.zeros(3))
        uv = 0.5 + 0.5 * offset[:, :2] * 0.98
        part = head.Part(centre + radius * offset, triangles, EYE, uv)
        # The upper lid and its lashes shade the ball, its round edge gets less light.
        edge = rim[:, 1].min() + 0.82 * droop * np.ptp(rim[:, 1])
        height = (radius * offset[:, 1] - (edge - centre[1])) / np.ptp(rim[:, 1])
        shade = 0.36 + 0.50 * smoothstep(height, 0.0, 0.6)
        shade = shade * (1 - 0.35 * smoothstep(np.abs(offset[:, 0]), 0.45, 0.95))
        part.tint = np.repeat(shade[:, None], 3, 1)
        return {"part": part, "centre": centre, "radius": radius, "offset": offset}

    def _lining(self, surface, i):
        """The skin that turns inwards at the mouth's and the eyes' rims."""
        loop = self.rims[i]
        n = len(loop)
        points = self._lined(surface, i)
        triangles = head.grid(3, n, closed=True)
        tone = (0.55, 0.22, 0.03) if i == 0 else (0.85, 0.6, 0.3)
        tint = np.repeat(np.array(tone), n)[:, None]
        tint = tint * (np.array([0.72, 0.30, 0.28]) if i == 0 else np.array([0.62, 0.36, 0.32]))
        part = head.Part(points, triangles, LINING, np.full((3 * n, 2), 0.5), tint)
        return part

    def _lined(self, surface, i):
        rim = surface[self.rims[i]]
        middle = rim.mean(0)
        outward = rim - middle
        outward[:, 2] = 0
        length = np.linalg.norm(outward, axis=1, keepdims=True) + 1e-6
        if i == 0:
            side = np.clip(outward[:, 1:2] / 0.05, -1, 1) * np.array([[0, 1, 0]])
            inwards = -outward / length * np.array([1, 0, 0])
            first = rim + np.array([0, 0, 0.04]) + 0.012 * side + 0.01 * inwards
            second = rim + np.array([0, 0, 0.15]) + 0.08 * side + 0.04 * inwards
        else:
            first = rim + np.array([0, 0, 0.012]) - 0.010 * outward / length
            second = rim + np.array([0, 0, 0.09]) + 0.02 * outward / length
        return np.concatenate([rim, first, second])

    def deform(self, control, expression, pose):
        """All vertices of an expression, and the landmarks.

        Args:
          control: (N, 3) of `Expression.move`.

        Returns:
          (V, 3) vertices and (478, 3) landmarks, both in the neutral head's frame.
        """
        surface = self.matrix @ control
        visemes = np.clip(np.asarray(pose.visemes, float), 0, 1)
        jaw = expression.jaw_rotation(JAW_ANGLE * visemes[0] * (1 - 0.25 * visemes[3]))
        hinge = np.array([0.0, 0.45, 1.0])
        turned = [(p.points - hinge) @ jaw.T + hinge for p in (self.lower_teeth, self.tongue)]
        lick = visemes[6]
        tip = 1 - smoothstep(self.tongue.points[:, 2] - self.seam[2] - 0.19, 0.0, 0.45)
        turned[1][:, 1] -= (0.07 * visemes[0] + (0.05 + 0.14 * visemes[0]) * lick) * tip
        turned[1][:, 2] -= 0.05 * lick * tip
        back = visemes[3] * (1 - lick)  # rounded vowels draw the tongue back
        turned[1] += np.array([0, 0.035 * back, 0.10 * back])
        turned[1][:, 0] *= 1 - 0.25 * visemes[3]
        gap = np.linalg.norm(control[13] - control[14])
        # Lips that meet shade each other; open ones lose most of the dark line painted there.
        touch = 0.45 - 1.35 * smoothstep(gap, 0.0, 0.15)
        self.tint[self._near_seam] = self._seam_tint * (1 - touch * self._seam_shadow)
        throat = self.throat.points + np.array([0, 0.16 * visemes[0], 0])
        pieces = [surface, self.upper_teeth.points, throat, *turned]
        pieces += [self._lined(surface, i) for i in range(3)]
        irises = []
        look = _gaze(*pose.gaze)
        for eye in self.eyes:
            pieces.append(eye["centre"] + eye["radius"] * (eye["offset"] @ look.T))
            angle = 0.36
            ring = np.array(
                [(0, 0, -1), (1, 0, -1), (0, -1, -1), (-1, 0, -1), (0, 1, -1)], float
            ) * (np.sin(angle), np.sin(angle), np.cos(angle))
            irises.append(eye["centre"] + eye["radius"] * (ring @ look.T))
        pieces.append(self.static)
        landmarks = np.concatenate([surface[: face_model.SURFACE], *irises])
        return np.concatenate(pieces), landmarks


def _gaze(right, down):
    c, s = np.cos(right), np.sin(right)
    turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    c, s = np.cos(down), np.sin(down)
    return turn @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
