"""Renders an avatar: one identity with its background, lights and camera."""

import zlib
from dataclasses import fields

import cv2
import numpy as np

from ..geometry.face import FaceGeometry
from ..geometry.shape import Shape
from ..painting.appearance import Appearance
from ..painting.portrait import Textures
from ..painting.textures import to_linear
from ..props import Props
from ..scene import Camera, Light, Pose, apply_head_pose, project, project_landmarks
from . import rasterizer, shadow_map
from .avatar_mesh import AvatarMesh

_MAP_SIZE = 112  # Side of the shadow map in texels.
_MAP_CENTRE, _MAP_REACH = np.array([0.0, 0.45, 0.7]), 2.7  # What the map covers.


def _light_direction(angles):
    """Returns the unit vector towards a light at (azimuth, elevation)."""
    azimuth, elevation = angles
    return np.array(
        [
            np.sin(azimuth) * np.cos(elevation),
            -np.sin(elevation),
            -np.cos(azimuth) * np.cos(elevation),
        ]
    )


def _light_arrays(light: Light) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the rasterizer's lights (3, 9) and ambient light (2, 3), and the shadow map's axes.

    The axes are the columns of a (3, 3) matrix: right and down in texels, and towards the light.
    """
    warm = np.array([1 + 0.10 * light.warmth, 1.0, 1 - 0.16 * light.warmth])
    cool = np.array([1 - 0.06 * light.warmth, 1.0, 1 + 0.08 * light.warmth])
    lights = []
    for angles, power, colour in (
        (light.key, light.key_power, warm),
        (light.fill, light.fill_power, cool),
        (light.rim, light.rim_power, np.ones(3)),
    ):
        towards = _light_direction(angles)
        half = towards + np.array([0, 0, -1.0])
        lights.append(np.concatenate([towards, colour * power, half / np.linalg.norm(half)]))
    above, below = light.ambient_power * cool * 1.15, light.ambient_power * warm * 0.55
    towards = lights[0][:3]
    across = np.cross(towards, (0, 1, 0)) / np.hypot(towards[0], towards[2])
    scale = _MAP_SIZE / (2 * _MAP_REACH)
    axes = np.stack([across * scale, np.cross(across, towards) * scale, towards], 1)
    return np.array(lights, np.float32), np.array([above, below], np.float32), axes


def _exposure(light: Light, face_texture: np.ndarray) -> float:
    """Returns the factor by which the camera adapts to the face; dark skin stays darker."""
    skin = float(to_linear(face_texture[::8, ::8]).mean())
    total = 0.8 * light.key_power + 0.4 * light.fill_power + 0.85 * light.ambient_power
    ratio = 0.36 / (skin * total)
    return ratio**0.42 if ratio < 1 else min(ratio**0.28, 1.5)


def _tone_curve() -> np.ndarray:
    """Returns (4096,) 8-bit values of linear light in [0, 1], with a soft shoulder."""
    value = np.linspace(0, 1, 4096)
    value = np.where(value < 0.6, value, 0.6 + 0.4 * np.tanh((value - 0.6) / 0.4))
    return (255 * value ** (1 / 2.2)).astype(np.float32)


def _paint_grain(camera: Camera, size: int) -> np.ndarray:
    """Draws (size, size, 3) float32 sensor noise in 8-bit steps."""
    rng = np.random.default_rng(camera.seed)
    grain = rng.normal(0, 1, (size, size, 3)) * 0.5 + rng.normal(0, 1, (size, size, 1))
    return (cv2.GaussianBlur(grain, (0, 0), 0.6) * 2 * camera.grain).astype(np.float32)


def _hash_pose(pose: Pose) -> int:
    """Returns a number that depends on the pose alone and differs between frames."""
    values = [np.ravel(np.asarray(getattr(pose, f.name), np.float64)) for f in fields(pose)]
    return zlib.crc32(np.concatenate(values).tobytes())


class Avatar:
    """One identity in one setting.

    Args:
      appearance: Appearance of the identity.
      shape: Its geometry.
      textures: Its textures.
      background: Background in sRGB in [0, 1], (size, size, 3); frames have its size.
      light: Lights of the setting.
      camera: Camera of the setting.
      props: Things at the face; None is nothing.
    """

    def __init__(
        self,
        appearance: Appearance,
        shape: Shape,
        textures: Textures,
        background: np.ndarray,
        light: Light,
        camera: Camera,
        props: Props | None = None,
    ):
        self.size, self.camera = len(background), camera
        self.face = FaceGeometry(shape)
        self.mesh = AvatarMesh(
            appearance, self.face, textures, camera.scale * self.size, props or Props()
        )
        self.lights, self.ambient, self._map_axes = _light_arrays(light)
        exposure = _exposure(light, textures.face)
        self.lights[:, 3:6] *= exposure
        self.ambient *= exposure
        self.background = np.ascontiguousarray(to_linear(background), np.float32)
        self._curve, self._grain = _tone_curve(), _paint_grain(camera, self.size)
        # Buffers that every frame overwrites.
        self._normals = np.zeros((len(self.mesh.colours), 3), np.float32)
        self._z_buffer = np.zeros((2 * self.size, 2 * self.size), np.float32)
        self._nearest = np.zeros((2 * self.size, 2 * self.size), np.int32)
        self._shadow_map = np.zeros((_MAP_SIZE, _MAP_SIZE), np.float32)
        self._linear = np.zeros((self.size, self.size, 3), np.float32)

    def render(self, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Renders a frame, which depends on the pose alone.

        Returns:
          (size, size, 3) uint8 sRGB image, and the exact (478, 3) float32 landmarks in pixels,
          where 0 is the image's edge; their z has the scale of x.
        """
        mesh = self.mesh
        local, landmarks = mesh.deform(self.face.deform(pose), pose)
        world = apply_head_pose(local, pose, mesh.head_weight)
        screen = project(world, self.camera, self.size)
        rasterizer.compute_normals(world.astype(np.float32), mesh.triangles, self._normals)
        shared = (mesh.triangles, mesh.material, mesh.materials, mesh.atlas)
        rasterizer.rasterize(screen, mesh.uv, mesh.opacity, *shared, self._z_buffer, self._nearest)
        light_space = (world - _MAP_CENTRE) @ self._map_axes
        light_space = (light_space + _MAP_SIZE / 2 * np.array([1.0, 1.0, 0.0])).astype(np.float32)
        shadow_map.render_shadow_map(light_space, mesh.opacity, mesh.casting, self._shadow_map)
        rasterizer.shade(
            screen, self._normals, mesh.uv, mesh.colours, *shared, self.lights, self.ambient,
            light_space, self._shadow_map, self._z_buffer, self._nearest, self.background,
            self._linear,
        )  # fmt: skip
        linear = cv2.GaussianBlur(self._linear, (0, 0), self.camera.blur * self.size / 256)
        shift = np.array(divmod(_hash_pose(pose) % self.size**2, self.size))
        frame = np.empty((self.size, self.size, 3), np.uint8)
        rasterizer.apply_tone_curve(linear, self._curve, self._grain, shift, frame)
        landmarks = apply_head_pose(landmarks, pose)
        return frame, project_landmarks(landmarks, pose, self.camera, self.size)
