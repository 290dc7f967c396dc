"""Room acoustics and background noise, added to dry speech."""

import numpy as np
from scipy import signal

_RT60 = (0.1, 0.5)  # Seconds until the reverberation has decayed by 60 dB.
_DIRECT_DB = (5.0, 14.0)  # Energy of the direct sound over that of all reflections.
_GAP = (0.004, 0.015)  # Seconds from the direct sound to the first reflection.
_WALLS = (2500.0, 6500.0)  # Hz above which the walls absorb.
_ACTIVE = 0.1  # A 20 ms block counts as speech above this share of the loudest block's RMS.


def add_room(samples: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Adds reverberation to speech.

    The direct sound is not delayed, so phoneme times stay valid.

    Args:
      samples: Dry mono sound, (S,).
      rate: Sample rate in Hz.
      rng: Generator that draws the room.

    Returns:
      (S,) float32 with the RMS of `samples`.
    """
    dry = np.asarray(samples, np.float64)
    rt60, direct_db = rng.uniform(*_RT60), rng.uniform(*_DIRECT_DB)
    gap, cutoff = rng.uniform(*_GAP), rng.uniform(*_WALLS)
    time = np.arange(round(rt60 * rate)) / rate
    echoes = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    echoes = signal.lfilter(*signal.butter(1, min(cutoff, 0.45 * rate), fs=rate), echoes)
    echoes *= 10 ** (-direct_db / 20) / np.sqrt((echoes**2).sum())
    response = np.concatenate([[1.0], np.zeros(round(gap * rate) - 1), echoes])
    wet = signal.fftconvolve(dry, response)[: len(dry)]
    scale = np.sqrt((dry**2).mean() / max((wet**2).mean(), 1e-20)) if len(dry) else 1.0
    return (wet * scale).astype(np.float32)


def add_noise(
    samples: np.ndarray, rate: int, rng: np.random.Generator, snr_db: float
) -> np.ndarray:
    """Adds stationary background noise to speech.

    The noise spectrum falls by 0 to 6 dB per octave, and its level fluctuates slowly.

    Args:
      samples: Mono sound, (S,).
      rate: Sample rate in Hz.
      rng: Generator that draws the noise.
      snr_db: Signal-to-noise ratio in dB. Pauses do not count towards the signal's power.

    Returns:
      (S,) float32.
    """
    clean = np.asarray(samples, np.float64)
    if not len(clean):
        return clean.astype(np.float32)
    slope = rng.uniform(0.0, 1.0)
    frequency = np.fft.rfftfreq(len(clean), 1 / rate)
    # Without the high-pass, rumble below the range of speech would take most of the noise energy.
    shape = np.maximum(frequency, 80.0) ** -slope * (frequency > 30)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(clean))) * shape, len(clean))
    time = np.arange(len(clean)) / rate
    noise *= 1 + 0.15 * np.sin(2 * np.pi * (rng.uniform(0.1, 0.5) * time + rng.random()))
    noise *= np.sqrt(_speech_power(clean, rate) / max((noise**2).mean(), 1e-20))
    return (clean + noise * 10 ** (-snr_db / 20)).astype(np.float32)


def _speech_power(samples: np.ndarray, rate: int) -> float:
    step = max(round(0.02 * rate), 1)
    count = max(len(samples) // step, 1)
    power = (samples[: count * step].reshape(count, -1) ** 2).mean(1)
    return float(power[power >= _ACTIVE**2 * power.max()].mean())
