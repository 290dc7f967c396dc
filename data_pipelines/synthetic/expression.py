"""From viseme channels, blinks and brows to the face's points.

The jaw turns about an axis through the joints before the ears and takes chin, lower lip and part
of the cheeks along. The lips' seam is then closed again by whatever `part` does not let open,
pressed, rounded, spread or tucked. Only vertices below the nose follow the visemes: a pose read off
eyes, brows or nose cannot tell what is said.
"""

import numpy as np

from data_pipelines.synthetic.face_model import (
    LOWER_LIDS,
    LOWER_ROWS,
    LOWER_SEAM,
    SURFACE,
    UPPER_LIDS,
    UPPER_ROWS,
    UPPER_SEAM,
)

HINGE = np.array([0.0, 0.45, 1.0])  # a point on the jaw's axis, which is parallel to x
JAW_ANGLE = 0.32  # radians at jaw = 1


def smoothstep(x, low, high):
    """0 below `low`, 1 above `high`, smooth between; `low` may be the larger one."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


class Expression:
    """Moves one identity's points.

    Args:
      rest: (N, 3) points at rest, of which the first 468 are FaceMesh's and the others (back of
        the head) follow the jaw by `extra`.
      mean: (468, 3) the mean face at rest, on which all weights are defined.
      extra: (N - 468,) weights of the jaw for the other points.
      frozen: indices of points that no viseme may move.
      droop: how far the eyes are shut at rest, as a share of a blink.
    """

    def __init__(self, rest, mean, extra, frozen=(), droop=0.0):
        self.rest, self.droop = rest, droop
        self.mean = mean[:SURFACE]
        self._weights(extra)
        face = [i for i in frozen if i < SURFACE]
        self.jaw[list(frozen)] = 0
        for weights in (self.near, self.hat_upper, self.hat_lower):
            weights[face] = 0

    def _weights(self, extra):
        x, y, z = self.mean.T
        ax = np.abs(x)
        upper, lower = list(UPPER_SEAM), list(LOWER_SEAM)
        corner = self.mean[[78, 308]].mean(0) * (0, 1, 1)
        self.columns = self.mean[upper, 0]
        seam_x = np.concatenate([[self.mean[78, 0]], self.columns, [self.mean[308, 0]]])
        seam_y = np.concatenate([[corner[1]], self.mean[upper, 1], [corner[1]]])
        seam = np.interp(x, seam_x, seam_y)
        side = np.where(y > seam + 1e-6, 1.0, -1.0)
        side[sorted({*lower, *sum((row[1:-1] for row in LOWER_ROWS), ())})] = 1.0
        side[sorted({*upper, *sum((row[1:-1] for row in UPPER_ROWS), ())})] = -1.0
        q = np.clip(ax / 0.385, 0, 1)
        bow = (1 - q**2.5) ** 0.6
        at_mouth = np.where(side > 0, 0.38 + 0.62 * bow, 0.38 * (1 - bow))
        # Height over the seam lets the upper lip's share fade out before the nose.
        at_mouth *= np.where(side > 0, 1.0, 1 - smoothstep(seam - y, 0.02, 0.2))
        phi = np.degrees(np.arctan2(y - HINGE[1], np.maximum(HINGE[2] - z, 0.05)))
        cheek = smoothstep(phi, 20, 60) * (0.55 + 0.45 * smoothstep(phi, 45, 65))
        m = 1 - smoothstep(ax, 0.36, 0.68)
        jaw = m * at_mouth + (1 - m) * cheek
        jaw = jaw * (1 - 0.10 * smoothstep(y, 1.45, 1.8))  # the chin's skin slides on its bone
        # Nothing at the nose or above moves, whatever the formula says about it.
        free = smoothstep(y + 0.5 * np.maximum(0.0, 0.35 - ax), 0.92, 1.12)
        free = np.where(ax > 0.4, np.maximum(free, smoothstep(phi, 14, 30) * (y > 0.47)), free)
        self.jaw = np.concatenate([jaw * free, extra])
        near = np.exp(-((np.hypot(x / 0.60, (y - 1.235) / 0.36)) ** 4))
        self.near = near * smoothstep(y + 0.4 * ax, 0.90, 1.10)
        self.side = side
        self.seam = seam
        height = np.abs(y - seam)
        # How much a point follows its column of the seam: all the red does, the skin fades.
        self.follow = (1 - smoothstep(height, 0.10, 0.36)) * (1 - smoothstep(ax, 0.37, 0.62))
        self.follow *= smoothstep(y + 0.4 * ax, 0.90, 1.10)
        grid = np.concatenate([[self.mean[78, 0]], self.columns, [self.mean[308, 0]]])
        hat = np.stack([np.interp(x, grid, row) for row in np.eye(len(grid))], 1)[:, 1:-1]
        self.hat_upper = hat * (self.follow * (side < 0))[:, None]
        self.hat_lower = hat * (self.follow * (side > 0))[:, None]
        for i, (u, v) in enumerate(zip(upper, lower, strict=True)):
            for matrix, row in ((self.hat_upper, u), (self.hat_lower, v)):
                matrix[row] = 0
                matrix[row, i] = 1
        self.height = height * side
        self.oval_opening = (1 - np.clip(np.abs(self.columns) / 0.36, 0, 1) ** 2) ** 0.7
        self.lids = []
        for up, low in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
            self.lids.append(self._lid_weights(list(up), list(low)))
        self.brows = np.exp(-((np.hypot((ax - 0.5) / 0.6, (y + 0.42) / 0.26)) ** 2)) * (y < -0.15)

    def _lid_weights(self, up, low):
        """For one eye: matrices that carry the lids' motion to the skin around, (468, 7) each."""
        x, y = self.mean[:, 0], self.mean[:, 1]
        out = []
        for line, towards in ((up, -1), (low, 1)):
            grid = self.mean[line, 0]
            order = np.argsort(grid)
            hat = np.stack([np.interp(x, grid[order], r[order]) for r in np.eye(len(grid))], 1)
            height = np.interp(x, grid[order], self.mean[line, 1][order])
            distance = towards * (y - height)
            reach = 0.16 if towards < 0 else 0.10
            weight = (1 - smoothstep(distance, 0.0, reach)) * (distance > -1e-9)
            inside = (x >= grid.min()) & (x <= grid.max())
            matrix = hat * (weight * inside)[:, None]
            for i, v in enumerate(line):
                matrix[v] = 0
                matrix[v, i] = 1
            for i in (0, -1):
                matrix[:, i] = 0
            others = low if towards < 0 else up
            matrix[others[1:-1]] = 0
            out.append(matrix)
        return up, low, out

    def jaw_rotation(self, angle: float) -> np.ndarray:
        """(3, 3) rotation of the jaw by `angle` radians, positive opens."""
        c, s = np.cos(angle), np.sin(angle)
        # Forward is -z: opening moves what lies before the hinge down (+y).
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])

    def move(self, visemes: np.ndarray, blink: float, brow: float) -> np.ndarray:
        """The points of an expression.

        Args:
          visemes: (7,) in [0, 1], in the order of `visemes.CHANNELS`.
          blink: 0 open to 1 shut.
          brow: -1 frown to 1 raised.

        Returns:
          (N, 3) float64.
        """
        jaw, part, press, rounding, spread, tuck, _ = np.clip(np.asarray(visemes, float), 0, 1)
        p = self.rest.copy()
        self._open(p, jaw, part, press, rounding, tuck)
        self._form(p, press, rounding, spread, tuck)
        if press >= 0.9 or (part == 0 and tuck == 0):  # sealed to the last bit
            p[list(LOWER_SEAM)] = p[list(UPPER_SEAM)]
        self._eyes(p, blink, brow)
        return p

    def _open(self, p, jaw, part, press, rounding, tuck):
        rotation = self.jaw_rotation(JAW_ANGLE * jaw * (1 - 0.25 * rounding))
        turned = (p - HINGE) @ rotation.T + HINGE
        p += self.jaw[:, None] * (turned - p)
        upper, lower = list(UPPER_SEAM), list(LOWER_SEAM)
        # Fully parted lips stand a little apart by themselves; rounding makes the hole shorter.
        lift = part * self.oval_opening * (1 - 0.3 * rounding)
        high, low = p[upper].copy(), p[lower].copy()
        high[:, 1] -= 0.028 * lift
        low[:, 1] += 0.030 * lift
        open_ = part * (1 - smoothstep(press, 0.0, 0.9))
        meet = high + 0.32 * (low - high)
        meet[:, 2] += 0.015 * press
        high, low = meet + open_ * (high - meet), meet + open_ * (low - meet)
        if tuck > 0:
            bite = tuck * (1 - smoothstep(press, 0.0, 0.9))
            edge = self.rest[upper].copy()
            edge[:, 1] += 0.015
            edge[:, 2] += 0.075
            middle = smoothstep(self.oval_opening, 0.0, 0.7)[:, None] * bite
            raised = self.rest[upper].copy()
            raised[:, 1] -= 0.05
            raised[:, 2] -= 0.02
            high = high + middle * (raised - high)
            low = low + middle * (edge - low)
        up, down = high - p[upper], low - p[lower]
        p[:SURFACE] += self.hat_upper @ up + self.hat_lower @ down

    def _form(self, p, press, rounding, spread, tuck):
        face = p[:SURFACE]
        near = self.near
        x = face[:, 0].copy()
        ax = np.abs(x)
        # Press: the red rolls inwards, so its rims come closer to the seam.
        roll = near * (1 - smoothstep(np.abs(self.height), 0.16, 0.32))
        amount = 0.45 * press + 0.12 * spread
        face[:, 1] -= amount * self.height * roll
        face[:, 2] += 0.05 * press * near * (1 - smoothstep(np.abs(self.height), 0.0, 0.2))
        below = near * (self.side > 0)
        face[:, 1] -= tuck * (1 - press) * 0.35 * np.maximum(self.height, 0) * below
        # Rounding and spreading move the corners along an arc around the teeth.
        squeeze = 0.35 * rounding - 0.17 * spread * (1 - 0.6 * rounding)
        face[:, 0] = x * (1 - squeeze * near)
        forward = rounding * near * (0.06 + 0.11 * smoothstep(ax, 0.45, 0.0))
        face[:, 2] -= forward + 0.18 * rounding * near * ax
        face[:, 2] += 0.09 * spread * near * ax**2 / 0.15
        face[:, 1] -= 0.05 * spread * near * smoothstep(ax, 0.1, 0.4)
        # Rounded lips pout: their rims turn outwards.
        face[:, 1] += 0.22 * rounding * self.height * roll * (1 - press)

    def _eyes(self, p, blink, brow):
        face = p[:SURFACE]
        raise_ = self.brows * (0.07 * max(brow, 0) + 0.05 * min(brow, 0))
        face[:, 1] -= raise_
        blink = self.droop + (1 - self.droop) * max(blink, 0)
        if blink == 0:
            return
        for up, low, (top, bottom) in self.lids:
            a, b = face[up], face[low]
            # The upper lid does most of the way, along the eyeball's bulge.
            line = a + 0.82 * (b - a)
            bulge = 0.05 * np.sin(np.pi * np.linspace(0, 1, len(up))) * np.sin(np.pi * blink)
            da, db = blink * (line - a), blink * (line - b)
            da[:, 2] -= bulge
            face += top @ da + bottom @ db
