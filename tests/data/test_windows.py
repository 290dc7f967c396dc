import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkjax.conventions import MEL_FLOOR, SAMPLE_RATE, mel_frequencies
from talkjax.data import windows
from talkjax.media import audio


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
    whole = audio.mel_windows(mel, 40)
    for start in (0, 3, 15):
        cut = windows.tick_windows(windows.mel_span(mel, start, 25))
        np.testing.assert_array_equal(cut, whole[start : start + 25])
    assert pytest.approx(MEL_FLOOR) == MEL_FLOOR


def test_mel_augmentation_keeps_silence_silent_and_changes_speech():
    rng = np.random.default_rng(0)
    silence = np.full((112, 80), MEL_FLOOR, np.float32)
    for _ in range(20):
        out = windows.augment_mel(rng, silence, gain=1.0, noise=0.0, masks=2)
        np.testing.assert_allclose(out, MEL_FLOOR, rtol=1e-6)
    speech = rng.normal(-3, 2, (112, 80)).astype(np.float32)
    original = speech.copy()
    out = windows.augment_mel(rng, speech, gain=1.0, noise=5.0, masks=2)
    assert out.dtype == np.float32 and out.min() >= np.float32(MEL_FLOOR)
    assert not np.array_equal(out, speech)
    np.testing.assert_array_equal(speech, original)  # it belongs to the store


def test_warping_moves_a_formant_by_the_factor():
    centres = mel_frequencies()
    spacing = SAMPLE_RATE / 512  # of the filterbank's columns
    peaks = audio.mel_filterbank().argmax(1) * spacing
    assert np.abs(peaks - centres).max() <= spacing
    bump = -((np.log(centres / 1500.0) / 0.2) ** 2)
    span = np.tile(bump.astype(np.float32), (5, 1))
    warped = windows.warp_frequencies(span, 1.2)
    assert warped.dtype == np.float32 and warped.shape == span.shape
    assert abs(centres[warped[0].argmax()] / 1500.0 - 1.2) < 0.05
    np.testing.assert_allclose(windows.warp_frequencies(span, 1.0), span, atol=1e-5)
    silence = np.full((5, 80), MEL_FLOOR, np.float32)
    np.testing.assert_allclose(windows.warp_frequencies(silence, 0.8), silence, rtol=1e-6)


def test_equalizer_is_smooth_and_as_strong_as_asked():
    rng = np.random.default_rng(2)
    curves = np.stack([windows.random_equalizer(rng, 0.8) for _ in range(2000)])
    assert curves.shape == (2000, 80) and curves.dtype == np.float32
    assert abs(curves.std() - 0.8) < 0.05 and abs(curves.mean()) < 0.05
    assert np.abs(np.diff(curves)).max() < 0.5  # neighbours change together
    np.testing.assert_array_equal(windows.random_equalizer(rng, 0.0), 0)
    speech = rng.normal(-3, 2, (112, 80)).astype(np.float32)
    out = windows.augment_mel(rng, speech, gain=0.0, noise=0.0, masks=0, equalizer=1.0)
    np.testing.assert_allclose(np.ptp(out - speech, axis=0), 0, atol=1e-4)  # constant in time
    assert np.ptp(out - speech, axis=1).min() > 0.3


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
