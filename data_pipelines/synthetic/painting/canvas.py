"""A canvas for face textures: splines, soft spots, polygons, lines and hairs."""

import cv2
import numpy as np

UNITS = 4.2  # Side of a face texture in interocular distances.


def catmull_rom(points: np.ndarray, steps: int = 8) -> np.ndarray:
    """Interpolates points (N, 2) by an open Catmull-Rom spline.

    Returns:
      ((N - 1) * steps + 1, 2) points of the curve.
    """
    p = np.asarray(points, float)
    padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    before, start, after, next2 = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (v[:, None] for v in (before, start, after, next2))
    curve = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return np.concatenate([curve.reshape(-1, 2), p[-1:]])


def points_along(curve: np.ndarray, t) -> np.ndarray:
    """Returns the points (..., 2) at shares t (...) of the length of a curve (N, 2)."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    length = length / length[-1]
    return np.stack([np.interp(t, length, curve[:, k]) for k in (0, 1)], -1)


class Canvas:
    """Draws masks on a face texture: (size, size) float32 images, mostly in [0, 1].

    Args:
      uv: Texture coordinates of the landmarks, (478, 2).
      size: Side of the texture in pixels.

    Attributes:
      points: Pixel positions of the landmarks, (478, 2).
      unit: Interocular distance in pixels.
    """

    def __init__(self, uv: np.ndarray, size: int):
        self.size, self.unit = size, size / UNITS
        self.points = np.asarray(uv, float) * size - 0.5
        self.y, self.x = np.mgrid[:size, :size].astype(np.float32)
        flipped = np.asarray(uv, float) * (-1, 1) + (1, 0)
        distance = ((flipped[:, None] - np.asarray(uv, float)[None]) ** 2).sum(-1)
        self.mirror = distance.argmin(1)

    def at(self, *indices: int) -> np.ndarray:
        """Returns the mean position of landmarks, (2,)."""
        return self.points[list(indices)].mean(0)

    def path(self, indices, side: int = 0) -> np.ndarray:
        """Returns the positions (N, 2) of landmarks, or of their mirror partners at side 1."""
        indices = np.asarray(indices)
        return self.points[self.mirror[indices] if side else indices]

    def blob(self, centre, rx: float, ry: float, angle: float = 0.0) -> np.ndarray:
        """Draws a Gaussian spot; radii are in interocular distances, the angle in radians."""
        x, y = self.x - np.float32(centre[0]), self.y - np.float32(centre[1])
        if angle:
            c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            x, y = c * x + s * y, c * y - s * x
        x *= np.float32(1 / (rx * self.unit))
        y *= np.float32(1 / (ry * self.unit))
        return np.exp(-(x * x + y * y))

    def pair(self, indices, rx, ry, angle=0.0, offset=(0.0, 0.0)) -> np.ndarray:
        """Draws a Gaussian spot at the mean of landmarks in the left half, and its mirror image.

        Args:
          indices: Landmarks in the image's left half.
          rx, ry, angle: Shape of the left spot, as in `blob`.
          offset: Shift of the left spot in interocular distances, right and down.
        """
        total = 0
        for side in (0, 1):
            flip = 1 - 2 * side
            shift = np.array([flip * offset[0], offset[1]]) * self.unit
            centre = self.path(indices, side).mean(0) + shift
            total = total + self.blob(centre, rx, ry, flip * angle)
        return total

    def fill(self, polygon: np.ndarray, blur: float = 0.0) -> np.ndarray:
        """Draws a filled polygon (N, 2), blurred by `blur` interocular distances."""
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        mask = mask.astype(np.float32) / 255
        return cv2.GaussianBlur(mask, (0, 0), blur * self.unit) if blur else mask

    def line(self, curve, width: float, blur: float = 0.0, taper: bool = True) -> np.ndarray:
        """Draws a curve (N, 2) of `width` interocular distances, which tapers to both ends."""
        curve = points_along(np.asarray(curve, float), np.linspace(0, 1, 40))
        t = np.linspace(0, 1, len(curve))
        half = 0.5 * width * self.unit * (np.sqrt(np.sin(np.pi * t)) if taper else np.ones_like(t))
        tangent = np.gradient(curve, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
        across = np.stack([-tangent[:, 1], tangent[:, 0]], 1) * half[:, None]
        return self.fill(np.concatenate([curve + across, (curve - across)[::-1]]), blur)

    def strokes(self, curves, strength: np.ndarray, thickness: int = 1) -> np.ndarray:
        """Draws many hairs.

        Args:
          curves: Pixel positions along each hair, (N, K, 2).
          strength: Opacity of each hair in [0, 1], (N,).
          thickness: Thickness of the hairs in half pixels.
        """
        big = 2  # Hairs are drawn at twice the size.
        mask = np.zeros((self.size * big, self.size * big), np.uint8)
        curves = np.round((np.asarray(curves) + 0.5) * big * 16 - 8).astype(np.int32)
        level = np.clip(np.round(np.asarray(strength) * 8), 1, 8).astype(int)
        for value in range(1, 9):
            chosen = list(curves[level == value])
            if chosen:
                cv2.polylines(mask, chosen, False, 255 * value // 8, thickness, cv2.LINE_AA, 4)
        small = cv2.resize(mask, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return small / np.float32(255)
