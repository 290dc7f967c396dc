"""Channels are mixed to one so that no speech is cancelled."""

import numpy as np
import pytest

from talkjax.media import audio
from talkjax.media.downmix import Downmix
from tests.media_files import write_wav

RATE = 16000
STEREO, SURROUND = ("FL", "FR"), ("FL", "FR", "FC", "LFE", "BL", "BR")


def voice(seconds: float = 3.0, seed: int = 0) -> np.ndarray:
    """(S,) noise with the spectrum and the rhythm of syllables."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.normal(size=round(seconds * RATE)))
    hertz = np.arange(len(spectrum)) / seconds
    wave = np.fft.irfft(spectrum / (1 + hertz / 500), round(seconds * RATE))
    rhythm = np.maximum(np.sin(2 * np.pi * 3 * np.arange(len(wave)) / RATE), 0) ** 2
    return (0.1 * wave / wave.std() * rhythm).astype(np.float32)


def mix(channels: tuple[str, ...], samples: np.ndarray, cuts=()) -> np.ndarray:
    downmix = Downmix(channels, RATE)
    pieces = [downmix.push(piece) for piece in np.split(samples, cuts, axis=1)]
    return np.concatenate([*pieces, downmix.flush()])


@pytest.mark.parametrize("scale", [1.0, -1.0, 0.0, -0.7, -0.3])
def test_no_channel_cancels_another(scale):
    wave = voice()
    mono = mix(STEREO, np.stack([wave, np.float32(scale) * wave]))
    np.testing.assert_allclose(mono, wave * (1 + abs(scale)) / 2, atol=1e-4)


@pytest.mark.parametrize("samples", [3, 8, 32])
def test_microphones_at_a_distance(samples):
    """A comb filter would take whole bands out of the speech."""
    wave = voice()
    mono = mix(STEREO, np.stack([wave, np.roll(wave, samples)]))
    spectra = [np.abs(np.fft.rfft(x.reshape(-1, 800))) ** 2 for x in (mono, wave)]
    bands = [s[:, :400].reshape(len(s), 40, 10).sum((0, 2)) for s in spectra]
    assert np.abs(10 * np.log10(bands[0] / bands[1])).max() < 1.5


def test_channel_that_becomes_inverted():
    wave = voice()
    other = np.where(np.arange(len(wave)) < 20000, wave, -wave)
    mono = mix(STEREO, np.stack([wave, other]))
    levels = [np.square(x[: 46 * 1024].reshape(-1, 1024)).mean(1) for x in (mono, wave)]
    quiet = levels[0] < 0.3 * levels[1]
    assert quiet.sum() <= 2  # the time in which the average phase turns


def test_dialogue_of_two_channels():
    first, second = voice(seed=1), voice(seed=2)
    half = np.arange(len(first)) < len(first) // 2
    mono = mix(STEREO, np.stack([first * half, second * ~half]))
    np.testing.assert_allclose(mono, (first * half + second * ~half) / 2, atol=2e-3)


def test_noise_of_the_channels_is_averaged():
    rng = np.random.default_rng(0)
    wave, noise = voice(), rng.normal(0, 0.01, (2, 3 * RATE)).astype(np.float32)
    rest = mix(STEREO, wave + noise) - wave
    assert 0.6 < rest.std() / noise.std() < 0.85  # 0.71 for independent noise


def test_surround_speech_is_in_the_centre():
    wave, music = voice(), 3 * voice(seed=3)
    channels = np.stack([music, music, wave, 0 * wave, music, music])
    mono = mix(SURROUND, channels)
    np.testing.assert_allclose(mono[2000:], wave[2000:], atol=1e-4)


def test_surround_without_a_centre():
    wave, music = voice(), voice(seed=3)
    mono = mix(SURROUND, np.stack([wave, wave, 0 * wave, 5 * music, music, music]))
    np.testing.assert_allclose(mono, wave, atol=1e-4)


@pytest.mark.parametrize("channels", [STEREO, SURROUND])
def test_pieces_make_no_difference(channels):
    samples = np.random.default_rng(0).normal(0, 0.1, (len(channels), 60000)).astype(np.float32)
    whole = mix(channels, samples)
    assert len(whole) == 60000
    for cuts in ([1, 777, 5000, 5001], range(1024, 60000, 1024)):
        np.testing.assert_array_equal(mix(channels, samples, list(cuts)), whole)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 8192, 8193])
def test_any_length(length):
    samples = np.repeat(voice()[None, :length], 2, 0)
    np.testing.assert_allclose(mix(STEREO, samples), samples[0], atol=1e-6)


def test_files_are_mixed(tmp_path):
    wave = voice()
    path = write_wav(tmp_path / "a.wav", np.stack([wave, -wave]), RATE)
    np.testing.assert_allclose(audio.load_audio(path), wave, atol=1e-5)


def test_recording_with_an_inverted_channel(shared_data):
    """The mean of its channels is digital silence."""
    wave = audio.load_audio(shared_data / "field" / "phase.wav")
    assert wave.std() > 0.03
