"""The scene: the avatar's pose, the lights and the camera, and the projection to pixels.

Geometry lives in the frame of the neutral head (see `geometry.face_model`). `apply_head_pose` moves
it to the camera's frame, which has the same axes, and `project` to pixels.
"""

from dataclasses import dataclass, replace

import numpy as np

from .geometry.mesh import rotation_about_x, rotation_about_y

_PIVOT = np.array([0.0, 0.95, 1.25])  # The head turns about this point.


@dataclass(frozen=True)
class Pose:
    """One frame of a performance.

    Attributes:
      yaw, pitch, roll: Head rotation in radians. Positive values turn the face to the image's
        right, down and clockwise.
      x, y, z: Translation of the person in interocular distances, right, down and away.
      visemes: Channels in [0, 1] in the order of `visemes.CHANNELS`, (7,).
      blink: Eyelid closure from 0 (open) to 1 (closed).
      brow: Eyebrows from -1 (frown) to 1 (raised).
      gaze: Eye rotation in radians right and down, relative to the head, (2,).
      breath: Inhalation from 0 to 1, which raises the shoulders.
      reach: How near a hand or a cup is: 0 is away, 1 is at the chin. See `props`.
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
    reach: float = 0.0


@dataclass(frozen=True)
class Light:
    """Key, fill and rim light, and ambient light.

    Attributes:
      key, fill, rim: Azimuth and elevation in radians. An azimuth of 0 is the camera's, and
        positive ones are at the image's right.
      key_power, fill_power, rim_power, ambient_power: Linear intensities.
      warmth: Colour of the key light from -1 (bluish) to 1 (yellowish).
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
    """Camera placement and image quality.

    Attributes:
      scale: Interocular distance as a share of the image width.
      centre: Position of the point between the eyes, as shares of the image width and height.
      distance: Distance from the face in interocular distances; a near camera distorts.
      blur: Standard deviation of the lens blur in pixels of a 256-pixel image.
      grain: Standard deviation of the sensor noise in 8-bit steps.
      seed: Seed of the sensor noise.
    """

    scale: float = 0.2
    centre: tuple[float, float] = (0.5, 0.42)
    distance: float = 12.0
    blur: float = 0.45
    grain: float = 1.2
    seed: int = 0


def sample_light(rng: np.random.Generator) -> Light:
    """Draws the light of a room, a studio or a window."""
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


def sample_hard_light(rng: np.random.Generator, light: Light) -> Light:
    """Makes the light of some clips hard, coloured, or one from below or behind.

    Args:
      rng: Generator that draws the change.
      light: The light that most clips keep.
    """
    kind = str(rng.choice(("soft", "hard", "coloured", "dim"), p=(0.64, 0.16, 0.12, 0.08)))
    azimuth, elevation = rng.uniform(-1.5, 1.5), rng.uniform(-0.45, 1.1)
    power, rest, warmth = rng.uniform(0.95, 1.5), rng.uniform(0.15, 0.6), rng.uniform(-3, 3)
    if kind == "soft":
        return light
    if kind == "coloured":
        return replace(light, warmth=float(warmth), rim_power=float(2 * rest))
    if kind == "dim":
        return replace(light, key_power=float(0.5 * rest), ambient_power=float(0.3 + 0.4 * rest))
    return replace(
        light,
        key=(float(azimuth), float(elevation)),
        key_power=float(power),
        fill_power=float(0.2 * rest),
        ambient_power=float(0.35 * rest),
    )


def sample_camera(rng: np.random.Generator) -> Camera:
    """Draws a camera that shows head and shoulders: faces are 90 to 150 px wide in 256 px."""
    scale = float(rng.uniform(0.165, 0.235))
    return Camera(
        scale=scale,
        centre=(float(rng.normal(0.5, 0.025)), float(rng.uniform(0.39, 0.45))),
        distance=float(rng.uniform(9.0, 16.0)),
        blur=float(rng.uniform(0.3, 0.65)),
        grain=float(rng.uniform(0.5, 2.0)),
        seed=int(rng.integers(1 << 31)),
    )


def head_rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Returns the (3, 3) rotation of the head: first roll, then pitch, then yaw (radians)."""
    c, s = np.cos(roll), np.sin(roll)
    tilt = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return rotation_about_y(yaw) @ rotation_about_x(pitch) @ tilt


def apply_head_pose(points: np.ndarray, pose: Pose, head_weight: np.ndarray | None = None):
    """Moves points from the neutral head's frame to the camera's.

    Args:
      points: Points in interocular distances, (N, 3).
      pose: Pose of the head and the chest.
      head_weight: How much each point turns with the head rather than staying with the chest, in
        [0, 1], (N,); None is 1.

    Returns:
      (N, 3) points in interocular distances.
    """
    turned = (points - _PIVOT) @ head_rotation(pose.yaw, pose.pitch, pose.roll).T + _PIVOT
    if head_weight is not None:
        still = points - np.array([0, 0.02 * pose.breath, 0])
        turned = still + head_weight[:, None] * (turned - still)
    return turned + np.array([pose.x, pose.y, pose.z])


def project(points: np.ndarray, camera: Camera, size: int) -> np.ndarray:
    """Projects points (N, 3) of the camera's frame.

    Returns:
      (N, 3) float32: x and y in pixels of an image of `size` px, and 1 / distance.
    """
    inverse = 1 / (points[:, 2] + camera.distance)
    out = np.empty(points.shape, np.float32)
    out[:, 0] = points[:, 0] * inverse * (camera.scale * size * camera.distance)
    out[:, 1] = points[:, 1] * inverse * (camera.scale * size * camera.distance)
    out[:, 0] += camera.centre[0] * size
    out[:, 1] += camera.centre[1] * size
    out[:, 2] = inverse
    return out


def project_landmarks(points: np.ndarray, pose: Pose, camera: Camera, size: int) -> np.ndarray:
    """Projects landmarks as FaceMesh reports them.

    Args:
      points: Landmarks in the camera's frame, (N, 3).
      pose: Pose that moved them there.
      camera: Camera of the clip.
      size: Side of the image in pixels.

    Returns:
      (N, 3) float32 pixels, where 0 is the image's edge; z is relative to the head and has the
      scale of x.
    """
    out = project(points, camera, size)
    out[:, 2] = (points[:, 2] - pose.z) * camera.scale * size
    return out
