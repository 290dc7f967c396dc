"""A person before a camera: everything put together and drawn."""

import zlib
from dataclasses import dataclass, fields

import cv2
import numpy as np

from data_pipelines.synthetic import raster, shadow
from data_pipelines.synthetic.assemble import Assembly
from data_pipelines.synthetic.geometry import FaceGeometry, place, project, to_landmarks
from data_pipelines.synthetic.shape import Shape

_MAP = 112  # side of the shadow map, texels
_MAP_CENTRE, _MAP_REACH = np.array([0.0, 0.45, 0.7]), 2.7
_FLAT = np.array([1.0, 1.0, 0.0])


@dataclass(frozen=True)
class Pose:
    """One frame of a performance.

    Attributes:
      yaw, pitch, roll: radians; positive turns the face to the image's right, down, clockwise.
      x, y, z: shift of the person in interocular units.
      visemes: (7,) channels of `visemes.CHANNELS`, each in [0, 1].
      blink: 0 open to 1 shut.
      brow: -1 frown to 1 raised.
      gaze: (2,) radians right and down.
      breath: 0 to 1, how far the shoulders are raised.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    visemes: tuple[float, ...] = (0.0,) * 7
    blink: float = 0.0
    brow: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    breath: float = 0.0


@dataclass(frozen=True)
class Light:
    """Key, fill and rim light, and what comes from everywhere.

    Attributes:
      key, fill, rim: azimuth (radians, positive from the image's right) and elevation.
      key_power, fill_power, rim_power, ambient_power: linear.
      warmth: -1 bluish to 1 yellowish key.
    """

    key: tuple[float, float] = (0.6, 0.5)
    fill: tuple[float, float] = (-0.8, 0.1)
    rim: tuple[float, float] = (2.6, 0.5)
    key_power: float = 0.75
    fill_power: float = 0.25
    rim_power: float = 0.3
    ambient_power: float = 0.42
    warmth: float = 0.1


@dataclass(frozen=True)
class Camera:
    """Where the camera is and how good.

    Attributes:
      scale: the distance between the eyes as a share of the picture's width.
      centre: where the point between the eyes is, as shares of width and height.
      distance: from the face in interocular units; near ones distort.
      blur: standard deviation of the lens's blur, px at 256.
      grain: standard deviation of the sensor's noise in 8-bit steps.
      seed: of the grain.
    """

    scale: float = 0.2
    centre: tuple[float, float] = (0.5, 0.42)
    distance: float = 12.0
    blur: float = 0.45
    grain: float = 1.2
    seed: int = 0


def sample_light(rng: np.random.Generator) -> Light:
    """Light of a room, a studio or a window."""
    side = rng.choice((-1.0, 1.0))
    return Light(
        key=(float(side * rng.uniform(0.15, 0.9)), float(rng.uniform(0.25, 0.75))),
        fill=(float(-side * rng.uniform(0.4, 1.2)), float(rng.uniform(-0.1, 0.4))),
        rim=(float(-side * rng.uniform(2.2, 2.8)), float(rng.uniform(0.2, 0.8))),
        key_power=float(rng.uniform(0.55, 0.95)),
        fill_power=float(rng.uniform(0.12, 0.38)),
        rim_power=float(rng.uniform(0.0, 0.6)),
        ambient_power=float(rng.uniform(0.32, 0.5)),
        warmth=float(rng.uniform(-0.7, 1.0)),
    )


def sample_camera(rng: np.random.Generator) -> Camera:
    """A camera that shows head and shoulders; faces are 90 to 150 px of 256 wide."""
    scale = float(rng.uniform(0.165, 0.235))
    return Camera(
        scale=scale,
        centre=(float(rng.normal(0.5, 0.025)), float(rng.uniform(0.39, 0.45))),
        distance=float(rng.uniform(9.0, 16.0)),
        blur=float(rng.uniform(0.3, 0.65)),
        grain=float(rng.uniform(0.5, 2.0)),
        seed=int(rng.integers(1 << 31)),
    )


def to_linear(srgb):
    """SRGB values in [0, 1] to linear light."""
    return np.clip(srgb, 0, 1) ** 2.2


def _direction(angles):
    azimuth, elevation = angles
    return np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            -np.sin(elevation),
            -np.cos(azimuth) * np.cos(elevation),
        ]
    )


def _number(pose: Pose) -> int:
    """A number that differs from frame to frame and depends on nothing but the pose."""
    values = [np.ravel(np.asarray(getattr(pose, f.name), np.float64)) for f in fields(pose)]
    return zlib.crc32(np.concatenate(values).tobytes())


class Avatar:
    """One identity in one setting.

    Args:
      look: its `Look`.
      shape: its `Shape`.
      textures: its `Textures`.
      background: (size, size, 3) float32 in [0, 1].
      light: the setting's light.
      camera: the setting's camera.
      size: of the frames, px.
    """

    def __init__(self, look, shape: Shape, textures, background, light, camera, size: int = 256):
        self.size, self.camera = size, camera
        self.face = FaceGeometry(shape)
        self.assembly = Assembly(look, self.face, textures, camera.scale * size)
        self._lights(light)
        rng = np.random.default_rng(camera.seed)
        background = to_linear(np.asarray(background, np.float32))
        if background.shape != (size, size, 3):
            background = cv2.resize(background, (size, size), interpolation=cv2.INTER_AREA)
        self.background = np.ascontiguousarray(background, np.float32)
        grain = rng.normal(0, 1, (size, size, 3)) * 0.5 + rng.normal(0, 1, (size, size, 1))
        grain = cv2.GaussianBlur(grain, (0, 0), 0.6) * 2
        self.noise = (grain * camera.grain).astype(np.float32)
        value = np.linspace(0, 1, 4096)
        # The camera exposes for the face, but not fully: dark skin stays dark.
        skin = float(to_linear(np.asarray(textures.face)[::8, ::8]).mean())
        total = 0.8 * light.key_power + 0.4 * light.fill_power + 0.85 * light.ambient_power
        ratio = 0.36 / (skin * total)
        exposure = ratio**0.42 if ratio < 1 else min(ratio**0.28, 1.5)
        self.lights[:, 3:6] *= exposure
        self.ambient *= exposure
        # A soft shoulder instead of clipped highlights.
        value = np.where(value < 0.6, value, 0.6 + 0.4 * np.tanh((value - 0.6) / 0.4))
        self.curve = (255 * value ** (1 / 2.2)).astype(np.float32)
        count = len(self.assembly.tint)
        self._normal = np.zeros((count, 3), np.float32)
        self._depth = np.zeros((2 * size, 2 * size), np.float32)
        self._index = np.zeros((2 * size, 2 * size), np.int32)
        self._shadow = np.zeros((_MAP, _MAP), np.float32)
        self._linear = np.zeros((size, size, 3), np.float32)

    def _lights(self, light):
        warm = np.array([1 + 0.10 * light.warmth, 1.0, 1 - 0.16 * light.warmth])
        cool = np.array([1 - 0.06 * light.warmth, 1.0, 1 + 0.08 * light.warmth])
        rows = []
        for angles, power, colour in (
            (light.key, light.key_power, warm),
            (light.fill, light.fill_power, cool),
            (light.rim, light.rim_power, np.ones(3)),
        ):
            to = _direction(angles)
            half = to + np.array([0, 0, -1.0])
            rows.append(np.concatenate([to, colour * power, half / np.linalg.norm(half)]))
        self.lights = np.array(rows, np.float32)
        to = rows[0][:3]
        across = np.cross(to, (0, 1, 0)) / np.hypot(to[0], to[2])
        scale = _MAP / (2 * _MAP_REACH)
        self._to_map = np.stack([across * scale, np.cross(across, to) * scale, to], 1)
        above, below = light.ambient_power * cool * 1.15, light.ambient_power * warm * 0.55
        self.ambient = np.array([above, below], np.float32)

    def render(self, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Draws one frame; the same pose always gives the same frame.

        Returns:
          (size, size, 3) uint8, and the exact (478, 3) float32 landmarks in pixels (0 is the
          frame's edge), z at x's scale.
        """
        mesh = self.assembly
        local, landmarks = mesh.deform(self.face.move(pose), self.face.expression, pose)
        world = place(local, mesh.follow, pose)
        screen = project(world, self.camera, self.size)
        raster.vertex_normals(world.astype(np.float32), mesh.triangles, self._normal)
        arguments = (mesh.triangles, mesh.material, mesh.materials, mesh.atlas)
        raster.scan(screen, mesh.uv, mesh.fringe, *arguments, self._depth, self._index)
        space = ((world - _MAP_CENTRE) @ self._to_map + _MAP / 2 * _FLAT).astype(np.float32)
        shadow.cast(space, mesh.fringe, mesh.casting, self._shadow)
        raster.shade(
            screen, self._normal, mesh.uv, mesh.tint, *arguments, self.lights, self.ambient,
            space, self._shadow, self._depth, self._index, self.background, self._linear,
        )  # fmt: skip
        linear = cv2.GaussianBlur(self._linear, (0, 0), self.camera.blur * self.size / 256)
        shift = np.array(divmod(_number(pose) % self.size**2, self.size))
        frame = np.empty((self.size, self.size, 3), np.uint8)
        raster.develop(linear, self.curve, self.noise, shift, frame)
        placed = place(landmarks, None, pose)
        return frame, to_landmarks(placed, pose, self.camera, self.size)
