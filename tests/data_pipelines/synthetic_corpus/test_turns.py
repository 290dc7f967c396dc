"""Heads that turn far, nod and tilt."""

import numpy as np

from data_pipelines.synthetic.animation import turns
from data_pipelines.synthetic.scene import Pose

POSES = tuple(Pose(yaw=0.1 * np.sin(i / 9), gaze=(0.0, 0.0)) for i in range(100))


def test_some_heads_turn_to_forty_degrees_and_none_further():
    yaw = []
    for seed in range(120):
        added = turns.sample_turns(np.random.default_rng(seed))
        assert added == turns.sample_turns(np.random.default_rng(seed))
        moved = turns.apply_turns(POSES, 25.0, added)
        yaw.append([p.yaw for p in moved])
        assert max(abs(p.pitch) for p in moved) <= turns.PITCH
        assert max(abs(p.roll) for p in moved) <= turns.ROLL
        assert max(abs(p.gaze[0]) for p in moved) <= 0.4
    largest = np.abs(yaw).max(1)
    assert np.radians(33) < largest.max() <= turns.YAW
    assert 0.2 < np.mean(largest > 0.25) < 0.7
    assert np.abs(np.diff(yaw, axis=1)).max() * 25 < 2.5  # radians a second


def test_without_turns_the_poses_are_the_same():
    assert turns.apply_turns(POSES, 25.0, turns.Turns()) == POSES


def test_only_the_head_and_the_eyes_move():
    moved = turns.apply_turns(POSES, 25.0, turns.Turns(yaw=(0.4, 0.1, 2.0, 0.0)))
    assert min(p.yaw for p in moved) > 0.1 and moved[3].gaze[0] < 0
    for before, after in zip(POSES, moved, strict=True):
        assert (before.visemes, before.blink, before.x) == (after.visemes, after.blink, after.x)
