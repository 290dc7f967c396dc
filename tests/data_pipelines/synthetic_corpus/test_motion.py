from dataclasses import astuple

import numpy as np
import pytest

from data_pipelines.synthetic.animation import motion

RATE = 25.0


def draw(seed, duration=8.0, energy=None):
    return motion.sample_motion(np.random.default_rng(seed), duration, RATE, energy)


def test_shapes_limits_and_seed():
    for seed in range(20):
        m = draw(seed)
        for value, limit in (
            (m.yaw, motion.YAW), (m.pitch, motion.PITCH), (m.roll, motion.ROLL),
            (m.x, motion.SHIFT[0]), (m.y, motion.SHIFT[1]), (m.z, motion.SHIFT[2]), (m.brow, 1),
        ):  # fmt: skip
            assert value.shape == (200,) and np.abs(value).max() <= limit
        assert m.gaze.shape == (200, 2)
        for value in (m.blink, m.breath):
            assert value.shape == (200,) and value.min() >= 0 and value.max() <= 1
    for one, other in zip(astuple(draw(3)), astuple(draw(3)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert draw(0, 0.04).yaw.shape == (1,)
    with pytest.raises(ValueError, match="energy"):
        draw(0, 2.0, np.zeros(3))


def test_head_moves_but_never_jumps():
    yaw = np.stack([draw(s).yaw for s in range(40)])
    assert yaw.std() > 0.05 and yaw.std(1).min() > 0.003
    assert np.abs(np.diff(yaw, axis=1)).max() * RATE < 0.8  # radians a second


def test_blinks_are_whole_and_at_human_times():
    blink = draw(1, 120.0).blink
    starts = np.flatnonzero((blink[1:] > 0.5) & (blink[:-1] <= 0.5))
    assert 24 <= len(starts) <= 65
    assert all(blink[s : s + 7].max() > 0.99 for s in starts)
    width = (blink > 0.02).sum() / len(starts) / RATE
    assert 0.13 < width < 0.3


def test_motion_does_not_follow_syllables():
    time = np.arange(200) / RATE
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * time)  # at the pace of the mouth
    draws = [draw(s, energy=syllables) for s in range(20)]
    for name in ("yaw", "pitch", "roll", "x", "y", "z", "brow", "breath"):
        moved = [getattr(m, name) for m in draws]
        r = [np.corrcoef(np.diff(m), np.diff(syllables))[0, 1] for m in moved]
        assert np.mean(np.abs(r)) < 0.1, name


def test_nods_follow_phrases():
    energy = np.zeros(200)
    energy[60:110] = 1
    changed = [np.abs(draw(s, energy=energy).pitch - draw(s).pitch).max() for s in range(10)]
    assert 0.003 < np.mean(changed) < 0.08
    np.testing.assert_array_equal(draw(0, energy=energy).yaw, draw(0).yaw)
