import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkjax.conventions import MEL_FLOOR, mel_windows, positions
from talkjax.data import windows


@given(st.integers(1, 200), st.integers(1, 30))
def test_covering_windows_cover_every_tick(ticks, window):
    starts = windows.covering_starts(ticks, window)
    if ticks <= window:
        assert not len(starts)
        return
    covered = {int(t) for s in starts for t in range(s, s + window)}
    assert covered == set(range(ticks))


@settings(deadline=None)
@given(st.integers(26, 120), st.sampled_from([12.5, 24.0, 25.0, 29.97, 60.0]), st.integers(0, 10))
def test_frames_and_references_are_disjoint(ticks, fps, margin):
    frame_ticks = np.arange(0, ticks - 1 + 1e-9, 25 / fps)
    starts = windows.possible_starts(ticks, 25)
    good, used = windows.starts_with_frames(frame_ticks, starts, 25, margin)
    for start in good:
        inside, outside = windows.split_frames(frame_ticks, start, 25, used)
        assert len(inside) and len(outside)
        assert frame_ticks[inside].min() >= start - 0.01
        assert frame_ticks[inside].max() <= start + 24.01
        distance = np.maximum(start - frame_ticks[outside], frame_ticks[outside] - start - 24)
        assert distance.min() > used - 0.01
    counts = windows.count_frames(frame_ticks, starts, 25, margin)
    for start, *count in zip(starts, *counts, strict=True):
        assert [len(p) for p in windows.split_frames(frame_ticks, start, 25, margin)] == count


@given(st.integers(26, 100), st.integers(0, 10))
def test_outside_ticks(ticks, margin):
    for start in windows.possible_starts(ticks, 25):
        outside = windows.outside_ticks(ticks, start, 25, margin)
        assert len(outside)
        assert not set(outside) & set(range(start, start + 25))
        assert outside.min() >= 0 and outside.max() < ticks


def test_mel_windows_are_those_of_the_audio_module():
    mel = np.random.default_rng(0).normal(size=(130, 80)).astype(np.float32)
    whole = mel_windows(mel, 40)
    for start in (0, 3, 15):
        cut = windows.tick_windows(windows.mel_span(mel, start, 25))
        np.testing.assert_array_equal(cut, whole[start : start + 25])
    assert pytest.approx(MEL_FLOOR) == MEL_FLOOR


def test_stretching_moves_lips_and_jaw_of_all_faces_alike():
    rng = np.random.default_rng(4)
    points, faces = (rng.uniform(size=(n, 131, 2)).astype(np.float32) for n in (5, 3))
    originals = points.copy(), faces.copy()
    moved = windows.stretch_content(rng, points, faces, 0.1)
    np.testing.assert_array_equal(points, originals[0])  # they belong to the store
    np.testing.assert_array_equal(faces, originals[1])
    both, before = np.concatenate(moved), np.concatenate(originals)
    np.testing.assert_array_equal(both[:, :74], before[:, :74])
    for axis in (0, 1):
        x, y = before[:, 74:, axis].ravel(), both[:, 74:, axis].ravel()
        slope, offset = np.polyfit(x, y, 1)
        np.testing.assert_allclose(slope * x + offset, y, atol=1e-5)
        assert abs(slope - 1) > 1e-3


def test_similarity_keeps_shapes():
    rng = np.random.default_rng(1)
    points = rng.uniform(size=(3, 131, 2)).astype(np.float32)
    moved = windows.move_points(points, windows.random_similarity(rng, 0.1, 0.1, 0.05))
    assert moved.dtype == np.float32
    before = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    after = np.linalg.norm(moved[:, :, None] - moved[:, None], axis=-1)
    apart = before > 0.05
    scale = after[apart] / before[apart]
    np.testing.assert_allclose(scale, scale[0], 1e-3)


def test_reference_images_differ():
    pool = np.arange(100, 200)
    landmarks = np.zeros((100, 131, 2), np.float32)
    openings = np.random.default_rng(0).permutation(100) / 100
    lower = positions((14, 17))
    landmarks[:, lower, 1] = openings[:, None]
    for rng in (None, np.random.default_rng(1)):
        chosen = windows.draw_references(rng, pool, landmarks, 4)
        assert chosen.shape == (4,) and set(chosen) <= set(pool)
        assert np.ptp(openings[chosen - 100]) > 0.7
    first, second = openings[windows.draw_references(None, pool, landmarks, 2) - 100]
    assert second == (max(openings) if first < 0.495 else min(openings))
    assert len(windows.draw_references(None, pool[:1], landmarks[:1], 3)) == 3
