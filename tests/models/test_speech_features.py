"""Whisper's log-mel from talkjax's, and which tokens belong to a tick."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.conventions import MEL_FLOOR, mel_windows
from talkjax.models.speech_features import join_windows, tick_features, to_whisper_mel


def test_the_conversion_is_close_to_whispers_spectrogram(repository):
    """Measured: correlation 0.973, error 0.100 where values span 2, mean over bins 0.960."""
    pytest.importorskip("librosa")
    from talkjax.media import audio, whisper_mel

    wave = audio.load_audio(repository / "talkjax/assets/demo/speech.flac")
    own = audio.log_mel(wave)
    # Talkjax brings the speech to its level. A gain of the waveform does the same, but for changes
    # of the level within the clip.
    gain = np.median((own - _without_gain(wave))[own > MEL_FLOOR + 1])
    true = whisper_mel.log_mel(wave * np.exp(gain / 2))
    found = np.asarray(to_whisper_mel(jnp.asarray(own[: len(true)])))
    assert found.dtype == np.float32 and found.shape == true.shape
    assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.965
    assert np.abs(found - true).mean() < 0.11
    by_bin = [np.corrcoef(a, b)[0, 1] for a, b in zip(found.T, true.T, strict=True)]
    assert np.mean(by_bin) > 0.95 and min(by_bin[1:]) > 0.86
    heard = own[: len(true), 5:75] > MEL_FLOOR + 2
    error = np.abs(found - true)[:, 5:75][heard]
    assert error.mean() < 0.05


def _without_gain(wave):
    import librosa

    power = librosa.feature.melspectrogram(
        y=wave, sr=16_000, n_fft=512, win_length=400, hop_length=160, n_mels=80, fmin=55, fmax=7600
    )
    return np.log(np.maximum(power.T, 1e-12))


def test_silence():
    found = np.asarray(to_whisper_mel(jnp.full((3, 80), MEL_FLOOR)))
    np.testing.assert_allclose(found[:, 2:78], -0.52, atol=0.01)


@pytest.mark.parametrize("ticks", [1, 2, 9])
def test_windows_are_joined(ticks):
    mel = np.random.default_rng(0).normal(size=(100, 80)).astype(np.float32)
    first = np.array([3, 11])
    windows = np.stack([mel_windows(mel, k + np.arange(ticks)) for k in first])
    expected = np.stack([mel[4 * k - 8 : 4 * (k + ticks - 1) + 8] for k in first])
    np.testing.assert_array_equal(join_windows(jnp.asarray(windows)), expected)


@pytest.mark.parametrize("ticks", [1, 7])
def test_features_of_a_tick_are_centred_at_it(ticks):
    """The encoder is one whose token t is mel frame 2 t; the sound rises steadily."""
    encoder = SimpleNamespace(apply=lambda variables, mel: mel[:, ::2])
    rising = (np.arange(60)[:, None] * np.full((1, 80), 0.1)).astype(np.float32)
    windows = jnp.asarray(mel_windows(rising, 3 + np.arange(ticks)))[None]
    found = tick_features(encoder, {}, windows)
    expected = to_whisper_mel(jnp.asarray(rising[4 * (3 + np.arange(ticks))]))
    assert found.shape == (1, ticks, 80)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
