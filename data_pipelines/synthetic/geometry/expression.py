"""Expressions: moves a face's points by viseme channels, blinks and eyebrows.

The jaw turns about an axis through the joints in front of the ears and takes the chin, the lower
lip and a part of the cheeks along. The lips are then closed again, as far as the channel `part`
does not let them open, and pressed, rounded, spread or tucked. Only points below the nose follow
the visemes, so that a head pose that is measured at the eyes, brows or nose cannot reveal speech.
"""

import numpy as np

from ..animation.visemes import JAW, ROUND
from .face_model import (
    CORNERS,
    LOWER_LIDS,
    LOWER_ROWS,
    LOWER_SEAM,
    SURFACE,
    UPPER_LIDS,
    UPPER_ROWS,
    UPPER_SEAM,
)
from .mesh import rotation_about_x, smoothstep

HINGE = np.array([0.0, 0.45, 1.0])  # A point on the jaw's axis, which is parallel to x.
_JAW_ANGLE = 0.32  # Radians at jaw = 1.
_UPPER, _LOWER = list(UPPER_SEAM), list(LOWER_SEAM)


def rotate_jaw(points: np.ndarray, visemes: np.ndarray) -> np.ndarray:
    """Rotates points (N, 3) about the hinge as far as visemes (7,) open the jaw."""
    angle = _JAW_ANGLE * visemes[JAW] * (1 - 0.25 * visemes[ROUND])
    return (points - HINGE) @ rotation_about_x(angle).T + HINGE


class Expression:
    """Moves the points of one identity.

    All weights are defined on the mean face, so that they are the same for all identities.

    Args:
      rest: Points at rest, (N, 3). The first 468 are FaceMesh's; the others, the back of the head,
        follow the jaw alone.
      mean: Mean face at rest, (468 or more, 3).
      extra: Jaw weights of the other points, (N - 468,).
      frozen: Indices of points that no viseme may move.
      droop: Eyelid closure at rest, as a share of a blink.
      lopsided: How much more one side of the mouth opens and moves than its middle.
    """

    def __init__(self, rest, mean, extra, frozen=(), droop=0.0, lopsided=0.0):
        self.rest, self.droop, self.lopsided = rest, droop, lopsided
        self.mean = mean[:SURFACE]
        self._find_seam()
        self.jaw = np.concatenate([self._jaw_weights(), extra])
        self._set_mouth_weights()
        self.lids = [
            _lid_weights(self.mean, list(up), list(low))
            for up, low in zip(UPPER_LIDS, LOWER_LIDS, strict=True)
        ]
        x, y = np.abs(self.mean[:, 0]), self.mean[:, 1]
        self.brows = np.exp(-((np.hypot((x - 0.5) / 0.6, (y + 0.42) / 0.26)) ** 2)) * (y < -0.15)
        face = [i for i in frozen if i < SURFACE]
        self.jaw[list(frozen)] = 0
        for weights in (self.near, self.hat_upper, self.hat_lower):
            weights[face] = 0

    def _find_seam(self):
        """Finds each point's height below the line where the lips meet."""
        x, y = self.mean[:, 0], self.mean[:, 1]
        left, right = self.mean[list(CORNERS)]
        corner = (left + right) / 2
        self.columns = self.mean[_UPPER, 0]
        self.seam_x = np.concatenate([[left[0]], self.columns, [right[0]]])
        seam_y = np.concatenate([[corner[1]], self.mean[_UPPER, 1], [corner[1]]])
        self.seam = np.interp(x, self.seam_x, seam_y)
        self.side = np.where(y > self.seam + 1e-6, 1.0, -1.0)  # 1 belongs to the lower lip.
        self.side[sorted({*_LOWER, *sum((row[1:-1] for row in LOWER_ROWS), ())})] = 1.0
        self.side[sorted({*_UPPER, *sum((row[1:-1] for row in UPPER_ROWS), ())})] = -1.0
        self.height = np.abs(y - self.seam) * self.side

    def _jaw_weights(self):
        """Returns (468,) weights with which the skin follows the jaw."""
        x, y, z = self.mean.T
        x = np.abs(x)
        bow = (1 - np.clip(x / 0.385, 0, 1) ** 2.5) ** 0.6
        at_mouth = np.where(self.side > 0, 0.38 + 0.62 * bow, 0.38 * (1 - bow))
        # The upper lip's share fades out before the nose.
        at_mouth *= np.where(self.side > 0, 1.0, 1 - smoothstep(self.seam - y, 0.02, 0.2))
        elevation = np.degrees(np.arctan2(y - HINGE[1], np.maximum(HINGE[2] - z, 0.05)))
        cheek = smoothstep(elevation, 20, 60) * (0.55 + 0.45 * smoothstep(elevation, 45, 65))
        middle = 1 - smoothstep(x, 0.36, 0.68)
        jaw = middle * at_mouth + (1 - middle) * cheek
        jaw = jaw * (1 - 0.10 * smoothstep(y, 1.45, 1.8))  # The chin's skin slides on its bone.
        # Nothing at the nose or above it may move.
        free = smoothstep(y + 0.5 * np.maximum(0.0, 0.35 - x), 0.92, 1.12)
        beside = np.maximum(free, smoothstep(elevation, 14, 30) * (y > 0.47))
        return jaw * np.where(x > 0.4, beside, free)

    def _set_mouth_weights(self):
        """Sets the weights with which the skin around the mouth follows the lips."""
        x, y = self.mean[:, 0], self.mean[:, 1]
        below_nose = smoothstep(y + 0.4 * np.abs(x), 0.90, 1.10)
        self.near = np.exp(-((np.hypot(x / 0.60, (y - 1.235) / 0.36)) ** 4)) * below_nose
        # Each point follows its column of the seam: the lips fully, the skin around them less.
        follow = 1 - smoothstep(np.abs(y - self.seam), 0.10, 0.36)
        follow = follow * (1 - smoothstep(np.abs(x), 0.37, 0.62)) * below_nose
        hat = np.stack([np.interp(x, self.seam_x, row) for row in np.eye(len(self.seam_x))], 1)
        hat = hat[:, 1:-1]
        self.hat_upper = hat * (follow * (self.side < 0))[:, None]
        self.hat_lower = hat * (follow * (self.side > 0))[:, None]
        for i, (upper, lower) in enumerate(zip(_UPPER, _LOWER, strict=True)):
            for matrix, row in ((self.hat_upper, upper), (self.hat_lower, lower)):
                matrix[row] = 0
                matrix[row, i] = 1
        self.opening_profile = (1 - np.clip(np.abs(self.columns) / 0.36, 0, 1) ** 2) ** 0.7
        # The skin moves with the lips on its side of the mouth.
        self.one_side = 1 + self.lopsided * np.clip(x / 0.36, -1, 1)
        self.one_side_of_seam = 1 + self.lopsided * np.clip(self.columns / 0.36, -1, 1)

    def deform(self, visemes: np.ndarray, blink: float, brow: float) -> np.ndarray:
        """Computes the points of an expression.

        Args:
          visemes: Channels in [0, 1] in the order of `visemes.CHANNELS`, (7,).
          blink: Eyelid closure from 0 (open) to 1 (closed).
          brow: Eyebrows from -1 (frown) to 1 (raised).

        Returns:
          (N, 3) float64.
        """
        visemes = np.clip(np.asarray(visemes, float), 0, 1)
        _, part, press, _, _, tuck, _ = visemes
        p = self.rest.copy()
        self._open_mouth(p, visemes)
        self._shape_lips(p, visemes)
        if press >= 0.9 or (part == 0 and tuck == 0):  # Closed lips coincide exactly.
            p[_LOWER] = p[_UPPER]
        self._move_eyes(p, blink, brow)
        return p

    def _open_mouth(self, p, visemes):
        _, part, press, rounding, _, tuck, _ = visemes
        p += self.jaw[:, None] * (rotate_jaw(p, visemes) - p)
        # Parted lips are slightly open even over a closed jaw; rounding shrinks the opening.
        lift = part * self.opening_profile * (1 - 0.3 * rounding)
        high, low = p[_UPPER].copy(), p[_LOWER].copy()
        high[:, 1] -= 0.028 * lift
        low[:, 1] += 0.030 * lift
        unpressed = 1 - smoothstep(press, 0.0, 0.9)
        meet = high + 0.32 * (low - high)
        meet[:, 2] += 0.015 * press
        parted = (part * unpressed * self.one_side_of_seam)[:, None]
        high, low = meet + parted * (high - meet), meet + parted * (low - meet)
        if tuck > 0:
            bite = tuck * unpressed
            edge = self.rest[_UPPER].copy()
            edge[:, 1] += 0.015
            edge[:, 2] += 0.075
            raised = self.rest[_UPPER].copy()
            raised[:, 1] -= 0.05
            raised[:, 2] -= 0.02
            middle = smoothstep(self.opening_profile, 0.0, 0.7)[:, None] * bite
            high = high + middle * (raised - high)
            low = low + middle * (edge - low)
        up, down = high - p[_UPPER], low - p[_LOWER]
        p[:SURFACE] += self.hat_upper @ up + self.hat_lower @ down

    def _shape_lips(self, p, visemes):
        _, _, press, rounding, spread, tuck, _ = visemes
        face, near = p[:SURFACE], self.near
        x = face[:, 0].copy()
        # Pressing rolls the lips inwards, which brings their rims closer to the seam.
        roll = near * (1 - smoothstep(np.abs(self.height), 0.16, 0.32))
        amount = 0.45 * press + 0.12 * spread
        face[:, 1] -= amount * self.height * roll
        face[:, 2] += 0.05 * press * near * (1 - smoothstep(np.abs(self.height), 0.0, 0.2))
        lower = near * (self.side > 0)
        face[:, 1] -= tuck * (1 - press) * 0.35 * np.maximum(self.height, 0) * lower
        # Rounding and spreading move the corners of the mouth along an arc around the teeth.
        squeeze = 0.35 * rounding - 0.17 * spread * (1 - 0.6 * rounding)
        face[:, 0] = x * (1 - squeeze * near * self.one_side)
        x = np.abs(x)
        forward = rounding * near * (0.06 + 0.11 * smoothstep(x, 0.45, 0.0))
        face[:, 2] -= forward + 0.18 * rounding * near * x
        face[:, 2] += 0.09 * spread * near * x**2 / 0.15
        face[:, 1] -= 0.05 * spread * near * smoothstep(x, 0.1, 0.4)
        # Rounded lips turn their rims outwards.
        face[:, 1] += 0.22 * rounding * self.height * roll * (1 - press)

    def _move_eyes(self, p, blink, brow):
        face = p[:SURFACE]
        face[:, 1] -= self.brows * (0.07 * max(brow, 0) + 0.05 * min(brow, 0))
        blink = self.droop + (1 - self.droop) * max(blink, 0)
        if blink == 0:
            return
        for up, low, (top, bottom) in self.lids:
            a, b = face[up], face[low]
            # The upper lid moves most of the way, along the eyeball's curvature.
            line = a + 0.82 * (b - a)
            bulge = 0.05 * np.sin(np.pi * np.linspace(0, 1, len(up))) * np.sin(np.pi * blink)
            upper, lower = blink * (line - a), blink * (line - b)
            upper[:, 2] -= bulge
            face += top @ upper + bottom @ lower


def _lid_weights(mean, up, low):
    """Returns the points of both lids and two (468, 9) matrices that move the skin with them."""
    x, y = mean[:, 0], mean[:, 1]
    matrices = []
    for line, towards, reach in ((up, -1, 0.16), (low, 1, 0.10)):
        grid = mean[line, 0]
        order = np.argsort(grid)
        hat = np.stack([np.interp(x, grid[order], r[order]) for r in np.eye(len(grid))], 1)
        height = np.interp(x, grid[order], mean[line, 1][order])
        distance = towards * (y - height)
        weight = (1 - smoothstep(distance, 0.0, reach)) * (distance > -1e-9)
        inside = (x >= grid.min()) & (x <= grid.max())
        matrix = hat * (weight * inside)[:, None]
        for i, v in enumerate(line):
            matrix[v] = 0
            matrix[v, i] = 1
        matrix[:, [0, -1]] = 0
        others = low if towards < 0 else up
        matrix[others[1:-1]] = 0
        matrices.append(matrix)
    return up, low, matrices
