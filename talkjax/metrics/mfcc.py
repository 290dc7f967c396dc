"""MFCCs as SyncNet was trained on: those of python_speech_features 0.6, with its defaults."""

import functools
import math

import numpy as np

RATE = 16000  # Hz
_WINDOW, _HOP, _N_FFT = 400, 160, 512
_FILTERS, _COEFFICIENTS = 26, 13
_EMPHASIS, _LIFTER = 0.97, 22
_TINY = np.finfo(np.float64).eps


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Cepstra at 100 Hz; frame m begins at m / 100 s.

    Args:
      samples: (S,) at 16 kHz, in the scale of 16-bit integers.

    Returns:
      (max(1, 1 + ceil((S - 400) / 160)), 13) float64; the first column is the log-energy.
    """
    samples = np.asarray(samples, np.float64)
    samples = np.append(samples[:1], samples[1:] - _EMPHASIS * samples[:-1])
    count = 1 + max(0, math.ceil((len(samples) - _WINDOW) / _HOP))
    padded = np.pad(samples, (0, (count - 1) * _HOP + _WINDOW - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames, _N_FFT)) ** 2 / _N_FFT
    filtered = power @ _filterbank().T
    cepstra = np.log(np.where(filtered == 0, _TINY, filtered)) @ _cosines()
    energy = power.sum(1)
    cepstra[:, 0] = np.log(np.where(energy == 0, _TINY, energy))
    return cepstra


@functools.lru_cache(maxsize=1)
def _filterbank() -> np.ndarray:
    """Triangles between whole FFT bins, (26, 257)."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, _FILTERS + 2) / 2595) - 1)
    edges = np.floor((_N_FFT + 1) * hertz / RATE)
    bins = np.arange(_N_FFT // 2 + 1)[None]
    low, middle, high = (edges[i : i + _FILTERS, None] for i in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):  # triangles without a flank
        rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    out = np.where((bins >= low) & (bins < middle), rising, 0.0)
    return np.where((bins >= middle) & (bins < high), falling, out)


@functools.lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """Orthonormal DCT-II and lifter, (26, 13); the first column is replaced by the energy."""
    order = np.arange(_COEFFICIENTS)
    basis = np.cos(np.pi * (np.arange(_FILTERS)[:, None] + 0.5) * order[None] / _FILTERS)
    lifter = 1 + _LIFTER / 2 * np.sin(np.pi * order / _LIFTER)
    return basis * math.sqrt(2 / _FILTERS) * lifter[None]
