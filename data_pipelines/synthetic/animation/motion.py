"""Motion of the head, eyes, brows and chest of a speaker.

The motions are independent random processes that do not know the phonemes: slow sway (white noise,
smoothed at several time constants), blinks, saccades and breathing. Only nods and brows take a
little from the loudness, which is smoothed so far that single syllables do not show.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

YAW, PITCH, ROLL = 0.35, 0.2, 0.12  # Limits in radians.
SHIFT = (0.16, 0.1, 0.2)  # Limits of x, y and z in interocular distances.
_FINE = 100.0  # Hz at which gaze is drawn before it is resampled to the frame rate.
_NOD_SMOOTH = 0.28  # Seconds.


@dataclass(frozen=True, eq=False)
class Motion:
    """Motion curves with one value per frame.

    Attributes:
      yaw, pitch, roll: Head rotation in radians, (T,).
      x, y, z: Head translation in interocular distances, right, down and away, (T,).
      blink: Eyelid closure from 0 (open) to 1 (closed), (T,).
      brow: Eyebrows from -1 (frown) to 1 (raised), (T,).
      gaze: Eye rotation in radians right and down, relative to the head, (T, 2).
      breath: Inhalation from 0 to 1, (T,).
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    blink: np.ndarray
    brow: np.ndarray
    gaze: np.ndarray
    breath: np.ndarray


def sample_motion(
    rng: np.random.Generator,
    duration: float,
    rate: float = 25.0,
    energy: np.ndarray | None = None,
) -> Motion:
    """Draws the motion of a clip.

    Args:
      rng: Generator that draws the motion.
      duration: Duration in seconds.
      rate: Frames per second; frame i is at time i / rate.
      energy: Loudness of the sound in [0, 1] at each frame, (T,); None is silence.

    Returns:
      Motion of T = round(duration * rate) frames, at least one.

    Raises:
      ValueError: `energy` does not have T values.
    """
    count = max(round(duration * rate), 1)
    loud = np.zeros(count) if energy is None else np.asarray(energy, np.float64)
    if len(loud) != count:
        raise ValueError(f"energy has {len(loud)} values for {count} frames")
    lively = rng.uniform(0.5, 1.2)
    yaw = _sample_sway(rng, count, rate, 0.085 * lively, rng.normal(0, 0.07), YAW)
    pitch = _sample_sway(rng, count, rate, 0.045 * lively, rng.normal(0.0, 0.035), PITCH)
    roll = _sample_sway(rng, count, rate, 0.03 * lively, rng.normal(0, 0.025), ROLL)
    emphasis = _compute_emphasis(loud, rate)
    # Some speakers nod with what they stress, others lift their head, after a reaction time.
    delay = round(rng.uniform(0.0, 0.25) * rate)
    nod = np.concatenate([np.zeros(delay), emphasis])[:count]
    pitch = np.clip(pitch + rng.normal(0, 0.03) * nod, -PITCH, PITCH)
    # The head leans when it turns, because the neck is below it.
    lean = 0.25 * (yaw - yaw.mean())
    x, y, z = (
        _sample_sway(rng, count, rate, spread * lively, rng.normal(0, spread), limit)
        for spread, limit in zip((0.035, 0.02, 0.045), SHIFT, strict=True)
    )
    breath = _sample_breath(rng, count, rate)
    brow = _sample_brows(rng, count, rate, emphasis)
    blink = _sample_blinks(rng, count, rate)
    return Motion(
        yaw, pitch, roll, np.clip(x + lean, -SHIFT[0], SHIFT[0]), y, z,
        blink, brow, _sample_gaze(rng, count, rate, yaw, pitch), breath,
    )  # fmt: skip


def _smooth_noise(rng, count, rate, seconds):
    """Draws (count,) smooth noise of unit variance with a time constant in seconds."""
    pad = int(np.ceil(4 * seconds * rate))
    white = rng.standard_normal(count + 2 * pad)
    # Division by the variance that smoothing leaves on average keeps differences between clips.
    sigma = seconds * rate
    smooth = ndimage.gaussian_filter1d(white, sigma, mode="constant")
    kernel = np.exp(-0.5 * (np.arange(-pad, pad + 1) / max(sigma, 1e-9)) ** 2)
    kernel /= kernel.sum()
    return smooth[pad : pad + count] / np.sqrt((kernel**2).sum())


def _sample_sway(rng, count, rate, spread, centre, limit):
    """Draws posture, sway and small corrections, softly limited to [-limit, limit]."""
    parts = ((1.2, 0.8), (0.45, 0.55), (0.18, 0.16))
    value = sum(share * _smooth_noise(rng, count, rate, seconds) for seconds, share in parts)
    return limit * np.tanh((centre + spread * value) / limit)


def _compute_emphasis(loud, rate):
    """Returns loudness relative to its trend, without syllables: about -1 to 1, 0 in silence."""
    smooth = ndimage.gaussian_filter1d(loud, _NOD_SMOOTH * rate, mode="nearest")
    trend = ndimage.gaussian_filter1d(loud, 4 * _NOD_SMOOTH * rate, mode="nearest")
    return np.clip(4 * (smooth - trend), -1, 1)


def _sample_blinks(rng, count, rate):
    time = np.arange(count) / rate
    out = np.zeros(count)
    at = rng.uniform(0.0, 4.0)
    while at < time[-1] + 0.5:
        total = rng.uniform(0.17, 0.3)
        close, shut = 0.3 * total, 0.042  # At 25 fps, at least one frame is fully closed.
        opening = total - close - shut
        since = time - at
        ramp = np.clip(np.minimum(since / close, (total - since) / opening), 0, 1)
        out = np.maximum(out, ramp * ramp * (3 - 2 * ramp))
        # Now and then a second blink follows at once.
        at += total + (rng.uniform(0.12, 0.3) if rng.random() < 0.08 else rng.uniform(2.0, 5.0))
    return out


def _sample_brows(rng, count, rate, emphasis):
    time = np.arange(count) / rate
    out = rng.normal(0, 0.08) + 0.07 * _smooth_noise(rng, count, rate, 0.7)
    at = rng.exponential(2.5)
    while at < time[-1]:
        length, height = rng.uniform(0.5, 1.6), rng.choice([0.6, -0.35], p=[0.75, 0.25])
        height *= rng.uniform(0.5, 1.3)
        since = (time - at) / length
        out += height * np.where((since > 0) & (since < 1), np.sin(np.pi * since) ** 2, 0)
        at += length + rng.exponential(4.0)
    return np.clip(out + rng.uniform(0, 0.15) * emphasis, -1, 1)


def _sample_gaze(rng, count, rate, yaw, pitch):
    """Draws fixations and saccades; the eyes partly stay on their target while the head turns."""
    time = np.arange(count) / rate
    fine = np.arange(int((time[-1] + 0.1) * _FINE) + 2)
    target = np.zeros((len(fine), 2))
    at, point = 0.0, rng.normal(0, (0.03, 0.02))
    while at < fine[-1] / _FINE:
        target[round(at * _FINE) :] = point
        at += rng.uniform(0.35, 2.2)
        # The target is mostly the listener, sometimes a point aside.
        aside = rng.random() < 0.18
        point = rng.normal(0, (0.16, 0.08)) if aside else rng.normal(0, (0.035, 0.022))
    target = ndimage.gaussian_filter1d(target, 0.012 * _FINE, axis=0, mode="nearest")
    eyes = np.stack([np.interp(time, fine / _FINE, c) for c in target.T], 1)
    # The eyes undo a part of the head's rotation, within natural limits.
    head = np.stack([yaw, pitch], 1)
    return np.clip(eyes - 0.6 * head, (-0.35, -0.2), (0.35, 0.2))


def _sample_breath(rng, count, rate):
    period, phase = rng.uniform(3.0, 4.8), rng.uniform(0, 2 * np.pi)
    drift = 0.35 * _smooth_noise(rng, count, rate, 1.5)
    angle = 2 * np.pi * np.arange(count) / rate / period + phase + drift
    return rng.uniform(0.6, 1.0) * (0.5 - 0.5 * np.cos(angle + 0.35 * np.sin(angle)))
