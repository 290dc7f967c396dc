"""The motion of the upper face between frames, measured by optical flow.

A face detector fits every frame anew. Its fits tremble, move when the person blinks, and follow the
mouth a little, although the head stands still. The pixels of nose, forehead and cheekbones tell how
the head moved: in crops that are cut by the fits, they stand still if the fits are right.

    motion = HeadMotion()
    for each frame:
        picture = upper_face(cut_faces(frame, mesh[None], SIZE)[0])  # no pixel of the mouth
        drift = motion.push(picture)  # (4,), for `head_pose.StreamingHeadPose.push`
"""

import cv2
import numpy as np

from talkjax import head_pose
from talkjax.conventions import MASK

SIZE = 192  # side of the crop in pixels; the interocular distance is 58 pixels
_ROWS = round(MASK.y0 * SIZE)  # above the mask
_STEP = 6  # pixels between the points that are followed
_MIN_POINTS = 16
_MAX_RETURN = 0.5  # pixels by which a point that is followed there and back may miss its start
_MAX_SPREAD = 0.03  # of points around the fitted motion, crop units; more is no rigid motion
_FLOW = {"winSize": (15, 15), "maxLevel": 2}
_CENTRE = np.array(head_pose.EYE_CENTRE)


def _grid() -> np.ndarray:
    """Returns (K, 1, 2) float32 pixels on nose, forehead and cheekbones, not on eyes or brows."""
    y, x = np.mgrid[_STEP : _ROWS - _STEP : _STEP, _STEP : SIZE - _STEP : _STEP]
    side, down = np.abs(x / SIZE - 0.5), y / SIZE
    nose = (side < 0.09) & (down > 0.18)
    forehead = (side < 0.25) & (down < 0.12)
    cheekbones = (side > 0.12) & (side < 0.30) & (down > 0.30)
    chosen = nose | forehead | cheekbones
    return np.stack([x[chosen], y[chosen]], -1).astype(np.float32)[:, None]


_POINTS = _grid()


def upper_face(crop: np.ndarray) -> np.ndarray:
    """Returns the part of a crop above the mask in grey.

    Args:
      crop: (192, 192, 3) uint8 crop of a face by its own fit (`crop.cut_faces`).

    Returns:
      (84, 192) uint8.
    """
    return cv2.cvtColor(crop[:_ROWS], cv2.COLOR_RGB2GRAY)


class HeadMotion:
    """Measures the drift of one face's fits from frame to frame."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def push(self, picture: np.ndarray | None, begins: bool = False) -> np.ndarray:
        """Adds the next frame.

        Args:
          picture: (84, 192) uint8 from `upper_face`, or None where the face is not seen.
          begins: Whether a scene or another face begins with this frame.

        Returns:
          (4,) drift since the previous frame: log scale, angle and shift (crop units) about
          `head_pose.EYE_CENTRE`. NaN where it cannot be measured.
        """
        last, self._last = (None if begins else self._last), picture
        if last is None or picture is None:
            return np.full(4, np.nan)
        return _measure(last, picture)


def _measure(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, _POINTS, None, **_FLOW)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **_FLOW)
    missed = np.linalg.norm(back - _POINTS, axis=-1)[:, 0]
    good = (seen[:, 0] > 0) & (seen_back[:, 0] > 0) & (missed < _MAX_RETURN)
    if good.sum() < _MIN_POINTS:
        return np.full(4, np.nan)
    start, end = ((points[good, 0] + 0.5) / SIZE for points in (_POINTS, there))
    motion, spread = fit_motion(start.astype(np.float64), end.astype(np.float64))
    return motion if spread < _MAX_SPREAD else np.full(4, np.nan)


def fit_motion(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, float]:
    """Fits a similarity to moved points robustly (iterated weighted least squares).

    Args:
      start, end: (K, 2) crop coordinates.

    Returns:
      (4,) log scale, angle and shift about `head_pose.EYE_CENTRE`, and the spread of the points
      around it (1.48 times the median distance).
    """
    a, b = ((points - _CENTRE) @ (1, 1j) for points in (start, end))
    weights = np.ones(len(a))
    for _ in range(6):
        total = weights.sum()
        a_mean, b_mean = (weights * a).sum() / total, (weights * b).sum() / total
        energy = (weights * np.abs(a - a_mean) ** 2).sum()
        factor = (weights * np.conj(a - a_mean) * (b - b_mean)).sum() / energy
        shift = b_mean - factor * a_mean
        distance = np.abs(factor * a + shift - b)
        spread = max(1.48 * float(np.median(distance)), 1e-4)
        weights = 1 / (1 + (distance / (2 * spread)) ** 2) ** 2
    return np.array([np.log(np.abs(factor)), np.angle(factor), shift.real, shift.imag]), spread
