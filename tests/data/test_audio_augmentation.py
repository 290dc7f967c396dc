"""Distortions of log-mel spectrograms."""

import math

import numpy as np
import pytest

from talkjax.conventions import MEL_FLOOR, SAMPLE_RATE, mel_frequencies
from talkjax.data import audio_augmentation as augmentation
from talkjax.data.audio_augmentation import Amounts, Channel, draw_channel
from talkjax.media import audio

ALL = Amounts(gain=0.5, noise=8.0, masks=2, warp=0.1, equalizer=0.8, room=1.0, line=1.0)


def speech(seed=0, frames=112):
    return np.random.default_rng(seed).normal(-3, 2, (frames, 80)).astype(np.float32)


def test_nothing_is_changed_by_amounts_of_zero():
    channel = draw_channel(np.random.default_rng(0), Amounts())
    np.testing.assert_array_equal(channel.apply(speech()), speech())
    original = speech()
    assert augmentation.mask_moments(np.random.default_rng(0), original, 0) is original


def test_silence_stays_silent_without_noise():
    rng = np.random.default_rng(0)
    silence = np.full((112, 80), MEL_FLOOR, np.float32)
    amounts = Amounts(gain=1.0, masks=2, warp=0.1, equalizer=1.0, room=1.0, line=1.0)
    for _ in range(20):
        out = draw_channel(rng, amounts).apply(silence)
        np.testing.assert_allclose(augmentation.mask_moments(rng, out, 2), MEL_FLOOR, rtol=1e-5)


def test_a_channel_changes_speech_but_not_the_array_it_got():
    rng, original = np.random.default_rng(0), speech()
    for _ in range(20):
        out = augmentation.mask_moments(rng, draw_channel(rng, ALL).apply(original), 2)
        assert out.dtype == np.float32 and out.shape == original.shape
        assert out.min() >= np.float32(MEL_FLOOR) and np.isfinite(out).all()
        assert not np.allclose(out, original)
    np.testing.assert_array_equal(original, speech())  # it belongs to the store


def test_all_frames_of_a_sample_pass_the_same_channel():
    """The references' windows sound like the speech."""
    channel = draw_channel(np.random.default_rng(3), Amounts(0.5, 8.0, 2, 0.1, 0.8, 0.0, 1.0))
    span = speech()
    parts = np.stack([span[0:16], span[40:56]])
    whole = channel.apply(span)
    np.testing.assert_allclose(
        channel.apply(parts), np.stack([whole[0:16], whole[40:56]]), atol=1e-5
    )


def test_reverberation_decays_as_its_time_says_and_adds_its_energy():
    click = np.full((200, 80), MEL_FLOOR, np.float32)
    click[10] = 0.0
    decay = 10 ** (-6 / 100 / 0.5)  # 60 dB in half a second
    power = np.exp(augmentation.reverberate(click, decay, level=-1.0))[:, 0]
    assert power[:10].max() < 1e-4 and power[10] == pytest.approx(1.0)
    assert power[11:].sum() == pytest.approx(math.exp(-1.0), rel=0.05)
    assert power[21] / power[11] == pytest.approx(decay**10, rel=0.02)


def test_a_line_cuts_high_frequencies_and_a_telephone_low_ones_as_well():
    rng, flat = np.random.default_rng(0), np.zeros((5, 80), np.float32)
    out = np.stack([draw_channel(rng, Amounts(line=1.0)).apply(flat)[0] for _ in range(40)])
    middle = (mel_frequencies() > 450) & (mel_frequencies() < 2900)
    np.testing.assert_array_equal(out[:, middle], 0)
    assert (out[:, -1] < 0).all()
    assert 8 < (out[:, 0] < -1).sum() < 32


def test_silence_of_a_room_is_steady_and_at_most_as_loud_as_asked():
    rng = np.random.default_rng(0)
    made = [augmentation.random_silence(rng, 100, 6.0) for _ in range(60)]
    levels = np.array([m.mean(0).max() for m in made]) - MEL_FLOOR
    assert levels.max() < 7.0 and levels.max() > 3.0 and (levels < 1e-3).any()
    loudest = made[int(levels.argmax())]
    assert abs(loudest[:50].mean() - loudest[50:].mean()) < 0.2
    assert loudest.std(0).mean() > 0.1  # noise, not a tone


def test_noise_fills_silence():
    silence = np.full((30, 80), MEL_FLOOR, np.float32)
    level = np.linspace(-9, -6, 80).astype(np.float32)
    np.testing.assert_allclose(Channel(noise=level).apply(silence)[3], level, atol=0.1)


def test_warping_moves_a_formant_by_the_factor():
    centres = mel_frequencies()
    spacing = SAMPLE_RATE / 512  # of the filterbank's columns
    peaks = audio.mel_filterbank().argmax(1) * spacing
    assert np.abs(peaks - centres).max() <= spacing
    bump = -((np.log(centres / 1500.0) / 0.2) ** 2)
    span = np.tile(bump.astype(np.float32), (5, 1))
    warped = augmentation.warp_frequencies(span, 1.2)
    assert warped.dtype == np.float32 and warped.shape == span.shape
    assert abs(centres[warped[0].argmax()] / 1500.0 - 1.2) < 0.05
    np.testing.assert_allclose(augmentation.warp_frequencies(span, 1.0), span, atol=1e-5)
    silence = np.full((5, 80), MEL_FLOOR, np.float32)
    np.testing.assert_allclose(augmentation.warp_frequencies(silence, 0.8), silence, rtol=1e-6)


def test_equalizer_is_smooth_and_as_strong_as_asked():
    rng = np.random.default_rng(2)
    curves = np.stack([augmentation.random_equalizer(rng, 0.8) for _ in range(2000)])
    assert curves.shape == (2000, 80) and curves.dtype == np.float32
    assert abs(curves.std() - 0.8) < 0.05 and abs(curves.mean()) < 0.05
    assert np.abs(np.diff(curves)).max() < 0.5  # neighbours change together
    np.testing.assert_array_equal(augmentation.random_equalizer(rng, 0.0), 0)
