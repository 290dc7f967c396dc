"""Whisper's log-mel against librosa's spectrogram and values of transformers' feature extractor."""

import numpy as np
import pytest

from talkjax.media import whisper_mel


def chirp(samples=16_000):
    """A rising tone from 0.2 to 0.8 s with a faint one throughout."""
    t = np.arange(samples) / 16_000
    rising = 0.3 * np.sin(2 * np.pi * (200 * t + 900 * t * t)) * (t > 0.2) * (t < 0.8)
    return (rising + 0.05 * np.sin(2 * np.pi * 3000 * t)).astype(np.float32)


@pytest.mark.parametrize("bins", whisper_mel.BINS)
@pytest.mark.parametrize("samples", [160, 333, 16_077, 200_000])
def test_matches_librosa(bins, samples):
    librosa = pytest.importorskip("librosa")
    rng = np.random.default_rng(samples)
    wave = rng.normal(size=samples) * np.linspace(0, 0.3, samples)
    wave = wave.astype(np.float32)
    power = librosa.feature.melspectrogram(
        y=np.pad(wave, 200, mode="reflect").astype(np.float64), sr=16_000, n_fft=400,
        hop_length=160, center=False, n_mels=bins,
    )  # fmt: skip
    expected = np.log10(np.maximum(power.T[:-1], 1e-10))
    expected = (np.maximum(expected, expected.max() - 8) + 4) / 4
    found = whisper_mel.log_mel(wave, bins)
    assert found.shape == (samples // 160, bins) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


# transformers 5.24, WhisperFeatureExtractor(feature_size=bins), in NumPy: frames by bins.
FRAMES = [0, 15, 30, 50, 99]
PUBLISHED = {
    80: (
        [0, 10, 40, 79],
        [
            [0.03601217, 0.04049498, 0.13941109, -0.13764071],
            [-0.6689038, -0.6689038, -0.6689038, -0.6689038],
            [-0.6689038, -0.27281928, -0.6689038, -0.6689038],
            [-0.6689038, -0.6689038, -0.6689038, -0.6689038],
            [-0.6689038, -0.66803324, -0.56922185, -0.6689038],
        ],
    ),
    128: (
        [0, 10, 40, 127],
        [
            [-0.039747, -0.03821325, 0.11479396, -0.13834178],
            [-0.6133095, -0.6133095, -0.6133095, -0.6133095],
            [-0.6133095, -0.6133095, 0.05217361, -0.6133095],
            [-0.6133095, -0.6133095, 0.3786615, -0.6133095],
            [-0.6133095, -0.6133095, -0.5935539, -0.6133095],
        ],
    ),
}


@pytest.mark.parametrize("bins", whisper_mel.BINS)
def test_matches_transformers(bins):
    places, expected = PUBLISHED[bins]
    found = whisper_mel.log_mel(chirp(), bins)
    np.testing.assert_allclose(found[FRAMES][:, places], expected, atol=1e-4)


def test_silence_and_nothing():
    # log10(1e-10), raised by 4 and divided by 4
    silence = whisper_mel.log_mel(np.zeros(800))
    np.testing.assert_allclose(silence, np.full((5, 80), -1.5), rtol=1e-6)
    for samples in (0, 1, 159):
        assert whisper_mel.log_mel(np.zeros(samples), 128).shape == (0, 128)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"takes \(S,\) mono audio, not an array of shape \(2, 8"):
        whisper_mel.log_mel(np.zeros((2, 800)))
    with pytest.raises(ValueError, match=r"no filterbank of 64 bins; use one of \(80, 128\)"):
        whisper_mel.log_mel(np.zeros(800), 64)
