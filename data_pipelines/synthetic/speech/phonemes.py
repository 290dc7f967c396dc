"""Phonemes with times, whoever speaks them: a synthesizer or a person in a recording."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

STRESS = "ˈˌ"
# Consonants with a closure: (almost) nothing is heard until they are released.
_PLOSIVES = "pbtdkɡgcɟqʔ"

FRAME = 0.004  # Seconds of a value of `compute_level`; espeak-ng works in steps of 2.9 ms.


@dataclass(frozen=True)
class Phoneme:
    """One phoneme. Pauses are not listed.

    Attributes:
      symbol: IPA symbol with stress marks as espeak-ng writes it, e.g. "ˈaɪ" or "tʃ".
      start: Start in seconds. A plosive starts with its closure, which is silent.
      end: End in seconds.
      hold: Seconds from `start` to the release of a plosive; 0 for all other phonemes.
    """

    symbol: str
    start: float
    end: float
    hold: float = 0.0


@dataclass(frozen=True, eq=False)
class Speech:
    """Speech with its phonemes.

    Attributes:
      samples: Mono sound in [-1, 1], (S,) float32.
      rate: Sample rate in Hz.
      phonemes: Phonemes in order, without overlap.
    """

    samples: np.ndarray
    rate: int
    phonemes: tuple[Phoneme, ...]


def is_plosive(symbol: str) -> bool:
    """Whether a phoneme begins with a closure, as plosives and affricates do."""
    return symbol.lstrip(STRESS)[:1] in _PLOSIVES and symbol.strip(STRESS) != ""


def compute_level(samples: np.ndarray, rate: int) -> np.ndarray:
    """Computes the RMS of each frame of `FRAME` seconds."""
    step = round(FRAME * rate)
    count = len(samples) // step
    return np.sqrt((samples[: count * step].reshape(count, step).astype(np.float64) ** 2).mean(1))


def find_release(level: np.ndarray, phoneme: Phoneme) -> float:
    """Returns the time of a plosive's release: the steepest rise of the level in its first 80%."""
    first = int(phoneme.start / FRAME)
    last = min(int((phoneme.start + 0.8 * (phoneme.end - phoneme.start)) / FRAME) + 1, len(level))
    if last - first < 2:
        return phoneme.start
    rise = np.diff(np.log(level[max(first - 1, 0) : last] + 1e-4))
    return max(phoneme.start, (max(first - 1, 0) + 1 + int(rise.argmax())) * FRAME)


def add_holds(phonemes: Sequence[Phoneme], samples: np.ndarray, rate: int) -> tuple[Phoneme, ...]:
    """Finds the release of each plosive whose `start` is that of its closure, as aligners put it.

    Args:
      phonemes: Phonemes in order.
      samples: The sound in which they are heard, (S,).
      rate: Sample rate in Hz.

    Returns:
      The phonemes with their holds.
    """
    level = np.log(compute_level(samples, rate) + 1e-4)
    return tuple(
        replace(p, hold=_find_hold(level, p)) if is_plosive(p.symbol) else p for p in phonemes
    )


def _find_hold(level: np.ndarray, phoneme: Phoneme) -> float:
    """Returns the time from a plosive's start to the steepest rise after its quietest moment."""
    first, last = round(phoneme.start / FRAME), round(phoneme.end / FRAME)
    inside = level[first:last]
    if len(inside) < 3:
        return 0.0
    quietest = first + int(inside[: max(round(0.8 * len(inside)), 2)].argmin())
    rise = np.diff(level[quietest : last + 1])
    if not len(rise) or rise.max() <= 0:
        return phoneme.end - phoneme.start
    release = (quietest + 1 + int(rise.argmax())) * FRAME
    return min(max(release - phoneme.start, 0.0), phoneme.end - phoneme.start)
