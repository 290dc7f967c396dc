"""Identity geometry: smooth deformations of the mean face."""

from dataclasses import dataclass, fields

import numpy as np

from .face_model import CORNERS, LOWER_ROWS, LOWER_SEAM, UPPER_ROWS, UPPER_SEAM, FaceModel
from .mesh import smoothstep

_LIDS_STREAM, _MOUTH_STREAM = 0x11D5, 0x30D7
_LIPS = sorted({*sum(UPPER_ROWS + LOWER_ROWS, ()), *UPPER_SEAM, *LOWER_SEAM, *CORNERS})


@dataclass(frozen=True)
class Shape:
    """How a face differs from the mean face.

    In every field but `seed`, 0 is the mean face and 1 or -1 is a clear difference.

    Attributes:
      lids: How low the upper eyelids are.
      seed: Seed of the slight asymmetry.
    """

    face_width: float = 0.0
    face_length: float = 0.0
    jaw_width: float = 0.0
    chin_length: float = 0.0
    chin_width: float = 0.0
    cheekbones: float = 0.0
    cheek_fullness: float = 0.0
    nose_length: float = 0.0
    nose_width: float = 0.0
    nose_bridge: float = 0.0
    nose_tip: float = 0.0
    eye_size: float = 0.0
    eye_spacing: float = 0.0
    eye_tilt: float = 0.0
    brow_height: float = 0.0
    brow_ridge: float = 0.0
    lip_width: float = 0.0
    lip_fullness: float = 0.0
    lower_lip: float = 0.0
    mouth_height: float = 0.0
    mouth_protrusion: float = 0.0
    forehead: float = 0.0
    skull: float = 0.0
    neck: float = 0.0
    asymmetry: float = 0.0
    lids: float = 0.0
    seed: int = 0

    @property
    def droop(self) -> float:
        """Eyelid closure at rest, as a share of a blink."""
        return float(np.clip(0.14 + 0.06 * self.lids, 0.03, 0.26))

    @property
    def lopsided(self) -> float:
        """How much more one side of the mouth moves than its middle; below 0 it is the other."""
        drawn = np.random.default_rng([_MOUTH_STREAM, self.seed]).normal(0, 0.25)
        return float(np.clip(self.asymmetry * drawn, -0.3, 0.3))


def sample_shape(rng: np.random.Generator, sex: str | None = None) -> Shape:
    """Draws a plausible face.

    Args:
      rng: Generator that draws the shape.
      sex: "female" or "male" shifts the jaw, the brows and the neck; None does not.
    """
    names = [f.name for f in fields(Shape) if f.name not in ("seed", "asymmetry", "lids")]
    values = dict(zip(names, np.clip(rng.normal(0, 0.6, len(names)), -1.3, 1.3), strict=True))
    sway = {"male": 1.0, "female": -1.0}.get(sex, 0.0)
    for name, amount in (
        ("jaw_width", 0.4), ("brow_ridge", 0.5), ("neck", 0.7), ("chin_width", 0.4),
        ("face_length", 0.2), ("nose_length", 0.2), ("lip_fullness", -0.3), ("eye_size", -0.25),
        ("brow_height", -0.4),
    ):  # fmt: skip
        values[name] += sway * amount
    values["asymmetry"] = abs(rng.normal(0, 0.5))
    seed = int(rng.integers(1 << 31))
    values["lids"] = np.random.default_rng([_LIDS_STREAM, seed]).normal(0, 0.8)
    return Shape(
        **{name: round(float(np.clip(v, -1.5, 1.5)), 4) for name, v in values.items()}, seed=seed
    )


def _bump(points, centre, radius):
    """Returns (N,) Gaussian weights around a centre and its mirror image."""
    x, y, z = ((points - np.array(centre)) / radius).T
    mirrored = ((points * (-1, 1, 1) - np.array(centre)) / radius).T
    first = np.exp(-(x * x + y * y + z * z))
    if centre[0] == 0:
        return first
    return first + np.exp(-(mirrored**2).sum(0))


def deform_mean_face(model: FaceModel, shape: Shape) -> np.ndarray:
    """Computes the identity's face at rest, with open eyes and closed lips.

    Returns:
      (478, 3) float64 points in interocular distances of the mean face. The upper and the lower
      lip share the points of their seam.
    """
    mean = model.points
    p = mean.copy()
    x, y = mean[:, 0], mean[:, 1]
    side = np.sign(x)
    lips = np.zeros(len(p))
    lips[_LIPS] = 1
    around = np.exp(-((np.hypot(x / 0.62, (y - 1.235) / 0.40)) ** 4))  # Neighbourhood of the mouth.
    # Overall width, and length below the eyes.
    p[:, 0] *= 1 + 0.045 * shape.face_width * smoothstep(np.abs(x), 0.4, 1.1)
    p[:, 1] += 0.05 * shape.face_length * np.maximum(y, 0)
    p[:, 1] -= 0.05 * shape.forehead * smoothstep(-y, 0.45, 0.95)
    p[:, 2] += 0.05 * shape.forehead * smoothstep(-y, 0.45, 0.95)
    # Jaw, chin and cheeks.
    jaw = smoothstep(y, 0.5, 1.3) * smoothstep(np.abs(x), 0.3, 0.85)
    p[:, 0] += side * 0.075 * shape.jaw_width * jaw
    p[:, 0] += (
        side * 0.05 * shape.chin_width * smoothstep(y, 1.3, 1.75) * np.minimum(np.abs(x) / 0.3, 1)
    )
    chin = smoothstep(y, 1.38, 1.8)
    p[:, 1] += 0.08 * shape.chin_length * chin
    p[:, 2] -= 0.04 * shape.chin_length * _bump(mean, (0, 1.65, 0.05), 0.35)
    bones = _bump(mean, (0.85, 0.42, 0.15), 0.32)
    p[:, 0] += side * 0.05 * shape.cheekbones * bones
    p[:, 2] -= 0.05 * shape.cheekbones * bones
    cheeks = _bump(mean, (0.72, 1.0, 0.25), 0.33) * (1 - lips)
    p[:, 0] += side * 0.05 * shape.cheek_fullness * cheeks
    p[:, 2] -= 0.05 * shape.cheek_fullness * cheeks
    # Nose.
    nose = _bump(mean, (0, 0.62, -0.35), (0.34, 0.5, 0.6))
    p[:, 1] += 0.07 * shape.nose_length * smoothstep(y, 0.1, 0.75) * np.minimum(nose * 1.3, 1)
    p[:, 0] *= 1 + 0.16 * shape.nose_width * _bump(mean, (0, 0.75, -0.3), (0.4, 0.25, 0.5))
    p[:, 2] -= 0.07 * shape.nose_bridge * _bump(mean, (0, 0.25, -0.35), (0.2, 0.42, 0.5))
    tip = _bump(mean, (0, 0.71, -0.55), (0.2, 0.2, 0.3))
    p[:, 2] -= 0.07 * shape.nose_tip * tip
    p[:, 1] -= 0.04 * shape.nose_tip * tip
    # Eyes and brows; the irises move along.
    for s in (-1, 1):
        centre = np.array([s * 0.49, -0.01, 0.0])
        near = np.exp(-((np.hypot((x - centre[0]) / 0.38, (y - centre[1]) / 0.3)) ** 4))
        offset = mean - centre
        p[:, 0] += near * 0.09 * shape.eye_size * offset[:, 0]
        p[:, 1] += near * (0.16 * shape.eye_size - 0.18) * offset[:, 1]
        p[:, 1] -= near * 0.09 * shape.eye_tilt * s * offset[:, 0]
        p[:, 0] += near * s * 0.035 * shape.eye_spacing
    brows = np.exp(-((np.hypot((np.abs(x) - 0.52) / 0.55, (y + 0.36) / 0.2)) ** 2))
    p[:, 1] -= 0.06 * shape.brow_height * brows
    p[:, 2] -= (
        0.06
        * shape.brow_ridge
        * np.exp(-(((y + 0.25) / 0.16) ** 2))
        * smoothstep(0.95 - np.abs(x), 0, 0.4)
    )
    # Mouth.
    p[:, 0] *= 1 + 0.11 * shape.lip_width * around
    fullness = shape.lip_fullness * 0.28
    seam = np.interp(
        np.abs(x), np.abs(mean[[13, 82, 81, 80, 191, 78], 0]), mean[[13, 82, 81, 80, 191, 78], 1]
    )
    below = (y > seam).astype(float)
    rim = np.clip(np.abs(y - seam) / 0.12, 0, 1) * around
    p[:, 1] += (2 * below - 1) * 0.13 * fullness * rim * (1 + 0.4 * shape.lower_lip * below)
    p[:, 2] -= 0.12 * fullness * around * (1 - 0.5 * np.abs(x) / 0.4).clip(0)
    p[:, 1] += 0.045 * shape.mouth_height * around
    p[:, 2] -= 0.05 * shape.mouth_protrusion * around
    # A little low-frequency asymmetry.
    rng = np.random.default_rng(shape.seed)
    for _ in range(4):
        wave = rng.normal(0, 0.9, 3)
        amount = shape.asymmetry * 0.012 * rng.normal(size=3)
        p += np.sin(mean @ wave + rng.uniform(0, 6.28))[:, None] * amount
    return close_lips(p)


def close_lips(points: np.ndarray) -> np.ndarray:
    """Returns a copy of the points in which the inner lips meet in one line."""
    p = points.copy()
    middle = (p[list(UPPER_SEAM)] + p[list(LOWER_SEAM)]) / 2
    p[list(UPPER_SEAM)] = p[list(LOWER_SEAM)] = middle
    return p
