"""The log-mel spectrogram that Whisper's encoder was trained on.

It follows whisper/audio.py of openai/whisper (Radford et al. 2022, arXiv 2212.04356), and differs
from `audio.log_mel` in its window, logarithm, scale and number of frames.
"""

import functools

import numpy as np

from talkjax.conventions import MELS_PER_SECOND, SAMPLE_RATE

BINS = (80, 128)  # large-v3 and its successors take 128, all earlier models 80
_N_FFT, _HOP = 400, SAMPLE_RATE // MELS_PER_SECOND
_FLOOR = 1e-10
_RANGE = 8.0  # bels below the loudest value, where the spectrogram is cut off
_CHUNK = 1000  # frames computed at a time


@functools.lru_cache(maxsize=len(BINS))
def _filters(bins: int) -> np.ndarray:
    """Returns librosa's Slaney mel filterbank from 0 to 8000 Hz, (201, bins) float32."""
    import librosa

    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=_N_FFT, n_mels=bins).T.astype(np.float32)


def log_mel(wave: np.ndarray, bins: int = 80) -> np.ndarray:
    """Computes Whisper's log-mel spectrogram of 16 kHz mono audio.

    Frame m is centred at m / 100 s. The clip is continued by reflection at both ends. Values more
    than 8 bels below the loudest one of the clip are raised to that level, so the spectrogram of a
    part is not always the part of the spectrogram.

    Args:
      wave: (S,) in [-1, 1]. Whisper itself fills it with zeros to 30 s (480 000 samples) first.
      bins: Number of mel bins, one of `BINS`.

    Returns:
      (S // 160, bins) float32. The lowest value is at most 2 below the highest.

    Raises:
      ValueError: `wave` is not mono audio, or there is no filterbank of `bins`.
    """
    wave = np.asarray(wave, np.float32)
    if wave.ndim != 1:
        raise ValueError(f"log_mel takes (S,) mono audio, not an array of shape {wave.shape}")
    if bins not in BINS:
        raise ValueError(f"Whisper has no filterbank of {bins} bins; use one of {BINS}")
    count = len(wave) // _HOP
    if not count:
        return np.zeros((0, bins), np.float32)
    # (count + 1, 400); Whisper leaves out the last frame
    frames = np.lib.stride_tricks.sliding_window_view(
        np.pad(wave, _N_FFT // 2, mode="reflect"), _N_FFT
    )[::_HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_N_FFT) / _N_FFT)).astype(np.float32)
    mel = np.empty((count, bins), np.float32)
    for start in range(0, count, _CHUNK):
        chunk = slice(start, min(start + _CHUNK, count))
        power = np.abs(np.fft.rfft(frames[chunk] * hann)) ** 2
        mel[chunk] = np.log10(np.maximum(power @ _filters(bins), _FLOOR))
    return (np.maximum(mel, mel.max() - _RANGE) + 4.0) / 4.0
