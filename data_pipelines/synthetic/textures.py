"""The pictures that clothe an avatar, and the brushes they are painted with."""

from dataclasses import dataclass

import cv2
import numpy as np

UNITS = 4.2  # interocular units along the side of a face texture


@dataclass(frozen=True)
class Textures:
    """Everything painted of a person; colours are float32 sRGB in [0, 1].

    Attributes:
      face: (N, N, 3) over the face's texture coordinates.
      gloss: (N, N) how much the skin shines.
      eye: (64, 64, 3) an eyeball from the front.
      hair: (M, M, 3) strands along the second axis downwards, repeats seamlessly.
      cloth: (K, K, 3) repeats seamlessly.
    """

    face: np.ndarray
    gloss: np.ndarray
    eye: np.ndarray
    hair: np.ndarray
    cloth: np.ndarray


def to_linear(colour) -> np.ndarray:
    """Linear light of sRGB colours in [0, 1]."""
    return np.clip(np.asarray(colour, np.float32), 0, 1) ** 2.2


def to_srgb(linear) -> np.ndarray:
    """Linear light to float32 sRGB in [0, 1]."""
    return np.clip(linear, 0, 1).astype(np.float32) ** (1 / 2.2)


def noise(rng: np.random.Generator, size: int, cells: float, stretch: float = 1.0) -> np.ndarray:
    """(size, size) smooth noise of about unit variance.

    Args:
      cells: how many blobs there are across.
      stretch: how many times taller than wide they are.
    """
    shape = max(3, round(cells / stretch)), max(3, round(cells))
    return cv2.resize(
        rng.standard_normal(shape, dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )


def tile_noise(rng: np.random.Generator, size: int, sigma: tuple[float, float]) -> np.ndarray:
    """(size, size) seamless noise of unit variance, blurred by sigma (down, across) px."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    spectrum *= np.exp(-2 * np.pi**2 * ((fy * sigma[0]) ** 2 + (fx * sigma[1]) ** 2))
    out = np.fft.irfft2(spectrum, (size, size))
    return (out / out.std()).astype(np.float32)


def spline(points: np.ndarray, steps: int = 8, closed: bool = False) -> np.ndarray:
    """A Catmull-Rom curve through (N, 2) points: (about N * steps, 2)."""
    p = np.asarray(points, float)
    if closed:
        before, after, next2 = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
        start = p
    else:
        padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
        before, start, after, next2 = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (v[:, None] for v in (before, start, after, next2))
    curve = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def along(curve: np.ndarray, t) -> np.ndarray:
    """Points (..., 2) at shares t of the length of a curve (N, 2)."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    length = length / length[-1]
    return np.stack([np.interp(t, length, curve[:, k]) for k in (0, 1)], -1)


class Canvas:
    """Marks on a face texture, as float32 masks in [0, 1].

    Args:
      uv: (478, 2) texture coordinates of the landmarks.
      size: of the texture, px.

    Attributes:
      points: (478, 2) pixel indices.
      unit: px of an interocular distance.
    """

    def __init__(self, uv: np.ndarray, size: int):
        self.size, self.unit = size, size / UNITS
        self.points = np.asarray(uv, float) * size - 0.5
        self.y, self.x = np.mgrid[:size, :size].astype(np.float32)
        flipped = np.asarray(uv, float) * (-1, 1) + (1, 0)
        distance = ((flipped[:, None] - np.asarray(uv, float)[None]) ** 2).sum(-1)
        self.mirror = distance.argmin(1)

    def at(self, *indices: int) -> np.ndarray:
        """(2,) the mean of landmarks."""
        return self.points[list(indices)].mean(0)

    def path(self, indices, side: int = 0) -> np.ndarray:
        """(N, 2) landmarks, or (side 1) their partners on the other half."""
        indices = np.asarray(indices)
        return self.points[self.mirror[indices] if side else indices]

    def blob(self, centre, rx: float, ry: float, angle: float = 0.0) -> np.ndarray:
        """A soft spot; radii in interocular units, angle in radians."""
        x, y = self.x - np.float32(centre[0]), self.y - np.float32(centre[1])
        if angle:
            c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            x, y = c * x + s * y, c * y - s * x
        x *= np.float32(1 / (rx * self.unit))
        y *= np.float32(1 / (ry * self.unit))
        return np.exp(-(x * x + y * y))

    def pair(self, indices, rx, ry, angle=0.0, offset=(0.0, 0.0)) -> np.ndarray:
        """A soft spot at the mean of landmarks of the picture's left half, and its mirror image.

        Args:
          offset: interocular units, added to the left one's centre.
        """
        total = 0
        for side in (0, 1):
            flip = 1 - 2 * side
            shift = np.array([flip * offset[0], offset[1]]) * self.unit
            centre = self.path(indices, side).mean(0) + shift
            total = total + self.blob(centre, rx, ry, flip * angle)
        return total

    def fill(self, polygon: np.ndarray, blur: float = 0.0) -> np.ndarray:
        """A filled polygon (N, 2); blur is a standard deviation in interocular units."""
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        return self._soft(mask, blur)

    def line(self, curve, width: float, blur: float = 0.0, taper: bool = True) -> np.ndarray:
        """A curve (N, 2), as wide as `width` interocular units in its middle."""
        curve = along(np.asarray(curve, float), np.linspace(0, 1, 40))
        t = np.linspace(0, 1, len(curve))
        half = 0.5 * width * self.unit * (np.sqrt(np.sin(np.pi * t)) if taper else np.ones_like(t))
        tangent = np.gradient(curve, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
        across = np.stack([-tangent[:, 1], tangent[:, 0]], 1) * half[:, None]
        return self.fill(np.concatenate([curve + across, (curve - across)[::-1]]), blur)

    def _soft(self, mask, blur):
        mask = mask.astype(np.float32) / 255
        return cv2.GaussianBlur(mask, (0, 0), blur * self.unit) if blur else mask

    def strokes(self, curves, strength: np.ndarray, big: int = 2, thick: int = 1) -> np.ndarray:
        """Many hairs.

        Args:
          curves: (N, K, 2) pixel positions along each hair.
          strength: (N,) in [0, 1].
          big: at how many times the size they are drawn.
          thick: width in the big picture, px.
        """
        mask = np.zeros((self.size * big, self.size * big), np.uint8)
        curves = np.round((np.asarray(curves) + 0.5) * big * 16 - 8).astype(np.int32)
        level = np.clip(np.round(np.asarray(strength) * 8), 1, 8).astype(int)
        for value in range(1, 9):
            chosen = list(curves[level == value])
            if chosen:
                cv2.polylines(mask, chosen, False, 255 * value // 8, thick, cv2.LINE_AA, 4)
        return cv2.resize(mask, (self.size, self.size), interpolation=cv2.INTER_AREA) / np.float32(
            255
        )
