"""The content track: windows, poses and interpolation."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkjax.sampling import completion
from talkjax.training import joint_stage


def fake_windows(first, count):
    """Returns windows that contain their tick."""
    return np.broadcast_to((first + np.arange(count))[:, None, None], (count, 16, 80)).astype(
        np.float32
    )


def content_of(mel, pose):
    """Returns content that depends on tick and pose."""
    out = np.zeros((len(mel), 57, 2), np.float32)
    out[..., 0], out[..., 1] = mel[:, :1, 0], pose[:, :1, 0]
    return out


def poses_at(times, missing=()):
    for i, t in enumerate(times):
        yield t, None if i in missing else np.full((74, 2), t, np.float32)


@given(
    ticks=st.integers(1, 120),
    window=st.integers(1, 30),
    fps=st.floats(3, 120),
    skip=st.floats(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_every_time_gets_its_own_ticks(ticks, window, fps, skip):
    end = (ticks - 1) / 25
    times = np.arange(0, max(end, 1e-3), 1 / fps)
    track = completion.ContentTrack(
        content_of,
        fake_windows,
        completion.PoseTrack(poses_at(times), np.zeros((74, 2), np.float32)),
        ticks,
        window,
    )
    for time in times[times >= skip]:
        got = track.at(time)
        assert got.shape == (57, 2) and got.dtype == np.float32
        assert got[0, 0] == pytest.approx(time * 25, abs=1e-3)
        held = np.clip(np.round(time * 25 * 1e6) / 25e6, times[0], times[-1])
        assert got[0, 1] == pytest.approx(held, abs=1 / 25 + 1e-4)
    assert len(track._totals) <= 3 * window + 2


@given(window=st.integers(1, 40), ticks=st.integers(1, 300))
def test_windows_cover_the_track(window, ticks):
    starts = completion.window_starts(ticks, window)
    covered = set()
    for start in starts:
        covered |= set(range(start, start + window))
    assert covered >= set(range(ticks)) and starts == sorted(set(starts))
    assert max(covered) < max(ticks, window)


def test_overlapping_predictions_are_blended_smoothly():
    """Where windows differ by 1, the track changes from one to the other without a jump."""
    calls = []

    def complete(mel, pose):
        calls.append(len(mel))
        return np.full((len(mel), 57, 2), len(calls) % 2, np.float32)

    poses = completion.PoseTrack(iter(()), np.zeros((74, 2), np.float32))
    track = completion.ContentTrack(complete, fake_windows, poses, 200, 24)
    values = np.array([track.at(t)[0, 0] for t in np.arange(0, 7.9, 0.01)])
    assert values.min() < 0.01 and values.max() > 0.99
    assert np.abs(np.diff(values)).max() < 0.05
    assert len(calls) == len(completion.window_starts(200, 24)) and set(calls) == {24}


def test_skipped_windows_are_not_computed():
    calls = []

    def complete(mel, pose):
        calls.append(int(mel[0, 0, 0]))
        return content_of(mel, pose)

    poses = completion.PoseTrack(poses_at(np.arange(0, 40, 0.04)), np.zeros((74, 2), np.float32))
    track = completion.ContentTrack(complete, fake_windows, poses, 1000, 20)
    assert track.at(20.0)[0] == pytest.approx([500, 20.0], abs=1e-3)
    assert min(calls) > 470


def test_pose_between_frames_and_where_it_is_missing():
    times = [0.1, 0.2, 0.3, 0.4, 0.5]
    track = completion.PoseTrack(poses_at(times, missing=(2, 3)), np.full((74, 2), 9, np.float32))
    got = track.at(np.arange(0, 15))[:, 0, 0]
    known = [0.1, 0.2, 0.2, 0.2, 0.5]  # the last one is held
    np.testing.assert_allclose(got, np.interp(np.arange(15) / 25, times, known), atol=1e-6)
    empty = completion.PoseTrack(poses_at(times, missing=range(5)), np.full((74, 2), 9, np.float32))
    assert (empty.at(np.arange(4)) == 9).all()


def test_interpolation_is_that_of_training():
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=(20, 57, 2)).astype(np.float32)
    poses = completion.PoseTrack(iter(()), np.zeros((74, 2), np.float32))
    track = completion.ContentTrack(lambda mel, pose: predicted, fake_windows, poses, 20, 20)
    times = np.array([0.0, 0.013, 0.2, 0.333, 0.7599])
    batch = {
        "frame_tick": jnp.asarray(times[None] * 25, jnp.float32),
        "frame_landmarks": jnp.zeros((1, 5, 131, 2)),
    }
    want = joint_stage.landmarks_at_frames(jnp.asarray(predicted[None]), batch)[0, :, 74:]
    np.testing.assert_allclose([track.at(t) for t in times], want, atol=1e-5)


@pytest.mark.parametrize("ahead", [0, 7, 40])
def test_windows_start_before_they_are_needed(ahead):
    begun = []

    def complete(mel, pose):
        begun.append(int(mel[0, 0, 0]))
        return content_of(mel, pose)

    poses = completion.PoseTrack(poses_at(np.arange(0, 9, 0.04)), np.zeros((74, 2), np.float32))
    track = completion.ContentTrack(complete, fake_windows, poses, 200, 20, ahead)
    for tick in range(199):
        assert track.at((tick + 0.5) / 25)[0, 0] == pytest.approx(tick + 0.5, abs=1e-3)
        starts = completion.window_starts(200, 20)
        assert begun == [s for s in starts if s <= tick + 1 + ahead]
