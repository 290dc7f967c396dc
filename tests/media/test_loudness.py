"""The level of speech: quiet recordings are lifted, noise and silence are not."""

import itertools

import numpy as np
import pytest

from talkjax.conventions import MEL_FLOOR
from talkjax.media import audio, loudness
from tests.media.test_downmix import voice


def noise(seconds: float, decibels: float, slope: float = 1.0) -> np.ndarray:
    """(S,) steady noise; 0 is white, 1 pink and 2 brown."""
    count = round(seconds * 16000)
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=count))
    spectrum *= np.maximum(np.arange(len(spectrum)), 20 * seconds) ** (-slope / 2)
    wave = np.fft.irfft(spectrum, count)
    return (10 ** (decibels / 20) * wave / wave.std()).astype(np.float32)


def gains(wave: np.ndarray) -> np.ndarray:
    """Gains of a wave's mel frames in dB."""
    levels = [powers[:, 80] for powers in audio._stream_powers([np.float32(wave)])]
    count = sum(len(level) for level in levels)
    return 10 * np.log10(list(itertools.islice(loudness.stream_gains(levels), count)))


@pytest.mark.parametrize("decibels", [-35, -20, -6, 6])
def test_the_level_makes_no_difference(decibels):
    wave = voice(8.0)
    whole, other = audio.log_mel(wave), audio.log_mel(np.float32(10 ** (decibels / 20)) * wave)
    np.testing.assert_allclose(other, whole, atol=1e-3)


def test_speech_has_the_standard_level():
    assert loudness.TARGET_DB == -22.5
    square = np.sign(np.sin(2 * np.pi * 500 * np.arange(16000 * 6) / 16000))
    level = 10 * np.log10(np.concatenate([p[:, 80] for p in audio._stream_powers([square])])[50])
    assert level == pytest.approx(0, abs=0.4)  # its overtones above 5.5 kHz are missing
    syllables = np.repeat(np.tile([1.0, 0.0], 12), 4000) * square
    # Blocks of 400 ms hold about half of the sound.
    assert np.median(gains(syllables)) == pytest.approx(loudness.TARGET_DB - level + 3, abs=0.8)


@pytest.mark.parametrize("slope", [0, 1, 2])
@pytest.mark.parametrize("decibels", [-65, -45, -20])
def test_noise_is_not_lifted(slope, decibels):
    steady = noise(12.0, decibels, slope)
    assert (gains(steady) == 0).all()
    silence = np.zeros(48000, np.float32)
    assert (gains(np.concatenate([silence, steady, silence])) == 0).all()


def test_silence_stays_silence():
    assert (audio.log_mel(np.zeros(80000, np.float32)) == np.float32(MEL_FLOOR)).all()
    quiet = 1e-2 * voice(5.0)
    mel = audio.log_mel(np.concatenate([np.zeros(80000, np.float32), quiet]))
    assert (mel[:495] == np.float32(MEL_FLOOR)).all()


def test_noise_before_and_after_speech():
    """The noise of the room is lifted with the speech that it belongs to, and not before."""
    room = noise(12.0, -60)
    speech = 10 ** (-20 / 20) * voice(4.0) + room[:64000]
    got = gains(np.concatenate([room, speech, room]))
    assert (got[:850] == 0).all()
    level = np.median(got[1200:1600])
    assert level == pytest.approx(np.median(gains(voice(4.0))) + 20, abs=1.0)
    np.testing.assert_allclose(got[1200:], level, atol=1.0)


def test_another_speaker_is_lifted_in_time():
    loud, quiet = voice(14.0), 0.1 * voice(16.0, seed=1)
    got = gains(np.concatenate([loud, quiet]))
    assert abs(got[1000] - got[500]) < 1
    assert got[-1] - got[1000] == pytest.approx(20, abs=1.5)
    # A louder speaker is never too loud, because what comes is known.
    got = gains(np.concatenate([quiet, loud]))
    np.testing.assert_allclose(got[1650:], got[-1], atol=1.5)


def test_the_future_beyond_some_seconds_does_not_count():
    wave = voice(12.0)
    other = np.concatenate([wave[:96000], 5 * voice(6.0, seed=5)])
    known = round(600 - 100 * loudness.AHEAD_SECONDS)
    assert loudness.AHEAD_SECONDS <= 3
    np.testing.assert_array_equal(gains(wave)[:known], gains(other)[:known])


@pytest.mark.parametrize("size", [1, 37, 200, 5000])
def test_pieces_make_no_difference(size):
    wave = np.concatenate([0.02 * voice(5.0), noise(2.0, -50)])
    whole = audio.log_mel(wave)
    cuts = np.sort(np.random.default_rng(size).integers(0, len(wave), 50))
    pieces = list(audio.stream_log_mel(np.split(wave, cuts), size))
    assert all(len(piece) == size for piece in pieces[:-1])
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("count", [1, 159, 799, 8000])
def test_short_sounds(count):
    assert np.isfinite(audio.log_mel(voice()[4000 : 4000 + count])).all()
