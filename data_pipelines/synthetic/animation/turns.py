"""Livelier heads: turned far to one side, nodding, shaking and tilting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..scene import Pose

YAW, PITCH, ROLL = np.radians(40.0), 0.38, 0.36  # Limits in radians.
_LIVELY_SHARE, _TURNED_SHARE = 0.35, 0.3
_FOLLOW = 0.5  # How far the eyes stay with the listener while the head turns.


@dataclass(frozen=True)
class Turns:
    """Motion that is added to that of a clip.

    Each attribute is (mean, amplitude in radians, period in seconds, phase in radians).
    """

    yaw: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 0.0)
    pitch: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 0.0)
    roll: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 0.0)


def sample_turns(rng: np.random.Generator) -> Turns:
    """Draws the added motion of a clip; half of the clips have none."""
    turned, lively = rng.random() < _TURNED_SHARE, rng.random() < _LIVELY_SHARE
    side = rng.choice((-1.0, 1.0))
    means = np.array([side * rng.uniform(0.2, 0.7), rng.normal(0, 0.1), rng.normal(0, 0.1)])
    swings = np.array([rng.exponential(0.15), rng.exponential(0.07), rng.exponential(0.07)])
    periods, phases = rng.uniform(1.2, 5.0, 3), rng.uniform(0, 2 * np.pi, 3)
    values = np.stack([means * turned, np.minimum(swings, 0.35) * lively, periods, phases], 1)
    yaw, pitch, roll = (tuple(round(float(v), 4) for v in row) for row in values)
    return Turns(yaw, pitch, roll)


def apply_turns(poses: Sequence[Pose], rate: float, turns: Turns) -> tuple[Pose, ...]:
    """Adds motion to poses.

    Args:
      poses: One pose per frame.
      rate: Frames per second.
      turns: The added motion.

    Returns:
      The poses, softly limited to `YAW`, `PITCH` and `ROLL`; the same ones if nothing is added.
    """
    times = np.arange(len(poses)) / rate
    out = list(poses)
    for name, limit in (("yaw", YAW), ("pitch", PITCH), ("roll", ROLL)):
        mean, swing, period, phase = getattr(turns, name)
        if mean == swing == 0:
            continue
        added = mean + swing * np.sin(2 * np.pi * times / period + phase)
        for i, pose in enumerate(out):
            value = float(limit * np.tanh((getattr(pose, name) + added[i]) / limit))
            out[i] = replace(pose, **{name: value})
    for i, (pose, before) in enumerate(zip(out, poses, strict=True)):
        shift = (pose.yaw - before.yaw, pose.pitch - before.pitch)
        if any(shift):
            gaze = np.subtract(pose.gaze, np.multiply(_FOLLOW, shift))
            gaze = np.clip(gaze, (-0.4, -0.25), (0.4, 0.25))
            out[i] = replace(pose, gaze=(float(gaze[0]), float(gaze[1])))
    return tuple(out)
