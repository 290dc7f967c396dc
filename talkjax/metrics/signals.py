"""Curves over time: how a mouth moves, compared with how it should have moved.

Everything is on one clock, ticks of 1/25 s from the clip's zero, and NaN where no face was seen.
Openings are in inter-ocular units (`talkjax.conventions.mouth_opening`), landmarks in crop
coordinates, that is, with the head's own motion taken out.
"""

import numpy as np

from talkjax import conventions
from talkjax.conventions import SAMPLE_RATE, TICKS_PER_SECOND

MAX_LAG = 10  # ticks
MAX_GAP = 0.12  # seconds between two sights of the face that may be bridged
_CONSTANT = 1e-6  # a curve whose deviation is below this does not move
_LEAST = 8  # ticks that a comparison needs


def on_clock(values: np.ndarray, times: np.ndarray, ticks: int) -> np.ndarray:
    """Interpolates per-frame values at 0, 1, ... ticks.

    Args:
      values: (N, ...); a row with a NaN in it is missing.
      times: (N,) seconds, increasing.
      ticks: how many are wanted.

    Returns:
      (ticks, ...) float64, NaN outside of the clip and in gaps of more than `MAX_GAP`.
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


def common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ticks that both have, of two arrays that may differ in length."""
    length = min(len(a), len(b))
    a, b = a[:length], b[:length]
    good = np.isfinite(a.reshape(length, -1)).all(1) & np.isfinite(b.reshape(length, -1)).all(1)
    return a[good], b[good]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two (T,) curves; 0 if one does not move, NaN if too short."""
    a, b = common(a, b)
    if len(a) < _LEAST:
        return float("nan")
    if min(a.std(), b.std()) < _CONSTANT:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def best_lag(a: np.ndarray, b: np.ndarray, max_lag: int = MAX_LAG) -> float:
    """Ticks by which `a` comes later than `b`, where their correlation is greatest.

    NaN if one of the (T,) curves does not move or they share too few ticks.
    """
    best, found = -np.inf, float("nan")
    for lag in sorted(range(-max_lag, max_lag + 1), key=abs):  # of equals, the smallest
        value = correlation(a[max(lag, 0) :], b[max(-lag, 0) :])
        if np.isfinite(value) and value != 0 and value > best + 1e-12:
            best, found = value, float(lag)
    return found


def extent(curve: np.ndarray) -> float:
    """How far a curve moves: its 95th less its 5th percentile; NaN if too short."""
    curve = curve[np.isfinite(curve)]
    if len(curve) < _LEAST:
        return float("nan")
    return float(np.percentile(curve, 95) - np.percentile(curve, 5))


def articulation(a: np.ndarray, truth: np.ndarray) -> float:
    """Range of an opening curve over the true range: 1 is right, below it mumbles."""
    return ratio(extent(a), extent(truth))


def ratio(value: float, unit: float) -> float:
    """Divides; NaN where the unit is too small to mean anything."""
    return value / unit if unit > _CONSTANT else float("nan")


def deviation(curve: np.ndarray) -> float:
    """Standard deviation over the ticks that have a face; NaN if too few."""
    curve = curve[np.isfinite(curve)]
    return float(curve.std()) if len(curve) >= _LEAST else float("nan")


def lips(landmarks: np.ndarray) -> np.ndarray:
    """The 40 lip points of (..., 131, 2)."""
    return landmarks[..., -conventions.NUM_LIPS :, :]


def lip_distance(landmarks: np.ndarray, truth: np.ndarray) -> float:
    """LMD: mean distance of lip landmarks, in inter-ocular units.

    Args:
      landmarks: (T, 131, 2) in crop coordinates.
      truth: (U, 131, 2) in crop coordinates.
    """
    landmarks, truth = common(landmarks, truth)
    if not len(truth):
        return float("nan")
    distance = np.linalg.norm(lips(landmarks) - lips(truth), axis=-1).mean()
    return float(distance / conventions.interocular(truth).mean())


def shake(landmarks: np.ndarray) -> float:
    """Mean |second difference| of the lips of (T, 131, 2), inter-ocular units a tick squared."""
    points = lips(landmarks)
    second = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1).mean(-1)
    second = second[np.isfinite(second)]
    if not len(second):
        return float("nan")
    return float(second.mean() / np.nanmean(conventions.interocular(landmarks)))


def jitter(landmarks: np.ndarray, truth: np.ndarray) -> float:
    """`shake` over the truth's own: 1 is as steady as the real lips, more is trembling."""
    return ratio(shake(landmarks), shake(truth))


def loudness(wave: np.ndarray, ticks: int, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Loudness at each tick: RMS in dB of an 80 ms Hann window around it, not below -60.

    Args:
      wave: (S,) mono, in [-1, 1], from the clip's zero.
      ticks: how many; those beyond the audio are NaN.
      sample_rate: of the wave, Hz.

    Returns:
      (ticks,) float64.
    """
    half = sample_rate // TICKS_PER_SECOND
    window = np.hanning(2 * half + 2)[1:-1]
    window /= window.sum()
    power = np.pad(np.asarray(wave, np.float64) ** 2, half)
    out = np.full(ticks, np.nan)
    for tick in range(ticks):
        centre = round(tick * sample_rate / TICKS_PER_SECOND)
        if centre < max(len(wave), 1):
            out[tick] = (power[centre : centre + 2 * half] * window).sum()
    return 10 * np.log10(np.maximum(out, 1e-6))
