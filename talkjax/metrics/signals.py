"""Compares curves over time: how a mouth moves, and how it should have moved.

All curves share one clock, ticks of 1/25 s from the clip's zero, and are NaN where no face was
found. Openings are in inter-ocular units (`talkjax.conventions.mouth_opening`); landmarks are in
crop coordinates, which excludes the motion of the head.
"""

import numpy as np

from talkjax import conventions
from talkjax.conventions import TICKS_PER_SECOND

MAX_LAG = 10  # ticks
MAX_GAP = 0.12  # longest time between two measurements, in seconds, that is interpolated
_CONSTANT = 1e-6  # a curve with a smaller standard deviation does not move
_MIN_TICKS = 8  # a comparison needs at least so many


def resample_to_ticks(values: np.ndarray, times: np.ndarray, ticks: int) -> np.ndarray:
    """Interpolates per-frame values at ticks 0, 1, ...

    Args:
      values: (N, ...) values; frames with any NaN count as missing.
      times: (N,) increasing times in seconds.
      ticks: Number of ticks.

    Returns:
      (ticks, ...) float64, NaN outside the clip and in gaps of more than `MAX_GAP` seconds.
    """
    values = np.asarray(values, np.float64)
    good = np.isfinite(values.reshape(len(values), -1)).all(1)
    values, times = values[good], np.asarray(times, np.float64)[good]
    out = np.full((ticks, *values.shape[1:]), np.nan)
    if not len(values):
        return out
    at = np.arange(ticks) / TICKS_PER_SECOND
    after = np.searchsorted(times, at - 1e-6).clip(0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    gap = times[after] - times[before]
    weight = np.where(gap > 0, (at - times[before]) / np.where(gap > 0, gap, 1), 0.0).clip(0, 1)
    near = np.minimum(np.abs(at - times[before]), np.abs(at - times[after]))
    inside = (at >= times[0]) & (at <= times[-1])
    usable = np.where(inside, gap <= MAX_GAP, False) | (near <= 0.5 / TICKS_PER_SECOND + 1e-6)
    weight = weight.reshape(-1, *[1] * (values.ndim - 1))
    mixed = values[before] * (1 - weight) + values[after] * weight
    out[usable] = mixed[usable]
    return out


def select_common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Selects the ticks at which both arrays are finite; their lengths may differ."""
    length = min(len(a), len(b))
    a, b = a[:length], b[:length]
    good = np.isfinite(a.reshape(length, -1)).all(1) & np.isfinite(b.reshape(length, -1)).all(1)
    return a[good], b[good]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Computes Pearson's correlation of two (T,) curves.

    It is 0 if a curve does not move, and NaN if they share too few ticks.
    """
    a, b = select_common(a, b)
    if len(a) < _MIN_TICKS:
        return float("nan")
    if min(a.std(), b.std()) < _CONSTANT:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def find_lag(a: np.ndarray, b: np.ndarray, max_lag: int = MAX_LAG) -> float:
    """Finds the number of ticks by which `a` is later than `b`, by their greatest correlation.

    It is NaN if one of the (T,) curves does not move or they share too few ticks.
    """
    best, found = -np.inf, float("nan")
    for lag in sorted(
        range(-max_lag, max_lag + 1), key=abs
    ):  # the smallest of equally good lags wins
        value = correlation(a[max(lag, 0) :], b[max(-lag, 0) :])
        if np.isfinite(value) and value != 0 and value > best + 1e-12:
            best, found = value, float(lag)
    return found


def percentile_range(curve: np.ndarray) -> float:
    """Returns the 95th minus the 5th percentile of a curve; NaN if it is too short."""
    curve = curve[np.isfinite(curve)]
    if len(curve) < _MIN_TICKS:
        return float("nan")
    return float(np.percentile(curve, 95) - np.percentile(curve, 5))


def articulation_ratio(a: np.ndarray, truth: np.ndarray) -> float:
    """Returns the range of an opening over the true range; below 1 the model mumbles."""
    return safe_ratio(percentile_range(a), percentile_range(truth))


def safe_ratio(value: float, unit: float) -> float:
    """Divides; NaN where the divisor is too small to be meaningful."""
    return value / unit if unit > _CONSTANT else float("nan")


def select_lips(landmarks: np.ndarray) -> np.ndarray:
    """Returns the 40 lip points of (..., 131, 2) landmarks."""
    return landmarks[..., -conventions.NUM_LIPS :, :]


def lip_distance(landmarks: np.ndarray, truth: np.ndarray) -> float:
    """Computes LMD, the mean distance of lip landmarks in inter-ocular units.

    Args:
      landmarks: (T, 131, 2) landmarks in crop coordinates.
      truth: (U, 131, 2) landmarks in crop coordinates.
    """
    landmarks, truth = select_common(landmarks, truth)
    if not len(truth):
        return float("nan")
    distance = np.linalg.norm(select_lips(landmarks) - select_lips(truth), axis=-1).mean()
    return float(distance / conventions.interocular(truth).mean())


def lip_shake(landmarks: np.ndarray) -> float:
    """Computes the mean absolute second difference of the lips of (T, 131, 2) landmarks.

    The unit is the inter-ocular distance per tick squared.
    """
    points = select_lips(landmarks)
    second = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1).mean(-1)
    second = second[np.isfinite(second)]
    if not len(second):
        return float("nan")
    return float(second.mean() / np.nanmean(conventions.interocular(landmarks)))


def jitter_ratio(landmarks: np.ndarray, truth: np.ndarray) -> float:
    """Returns `lip_shake` over the truth's; above 1 the lips tremble more than real ones."""
    return safe_ratio(lip_shake(landmarks), lip_shake(truth))
