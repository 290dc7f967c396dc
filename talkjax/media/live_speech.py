"""Speech that arrives piece by piece, as the landmark network hears it at any moment.

`audio.stream_log_mel` waits for three seconds of later sound, to find the level of speech. A person
who listens cannot wait. Here the level follows from what has been heard so far, and everything that
is asked for again is brought to the newest one; once all sound is there, nothing differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from talkjax.conventions import (
    MEL_FLOOR,
    MEL_WINDOW,
    MELS_PER_TICK,
    NUM_MELS,
    SAMPLE_RATE,
    mel_windows,
)
from talkjax.media import audio
from talkjax.media.loudness import LiveGains

_HALF = MEL_WINDOW // 2


class LiveSpeech:
    """One utterance at 16 kHz inside; it begins and ends with silence.

    Memory grows with the sound that was pushed and not yet forgotten: 97 KB a second.

    Attributes:
      samples: Number of samples of 16 kHz so far. A resampler lags some milliseconds behind.
      ended: Whether `end` was called.
    """

    def __init__(self, rate: int, level: Iterable[float] = ()) -> None:
        """Starts without sound.

        Args:
          rate: Samples a second of what is pushed.
          level: `level` of an earlier utterance of the same speaker.
        """
        import soxr

        self.samples, self.ended = 0, False
        self._rate, self._pushed = rate, 0
        self._resampler = None
        if rate != SAMPLE_RATE:
            self._resampler = soxr.ResampleStream(
                rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ"
            )
        self._gains = LiveGains(level)
        self._first = 0  # number of the first frame in `_powers`
        self._powers = np.zeros((0, NUM_MELS), np.float32)
        self._wave = np.zeros(audio.LEAD, np.float32)  # silence before the first sample

    @property
    def level(self) -> tuple[float, ...]:
        """What is known of the speaker's level, for the next utterance."""
        return tuple(self._gains.speech)

    @property
    def frames(self) -> int:
        """Number of mel frames that no later sound changes, but for their level."""
        return self._first + len(self._powers)

    @property
    def ticks(self) -> int | None:
        """Number of ticks needed to interpolate anywhere in it, once it has ended."""
        return audio.tick_count(self.samples) + 1 if self.ended else None

    def push(self, samples: np.ndarray) -> None:
        """Takes the next (n,) float32 samples in [-1, 1]."""
        if not len(samples):  # which a resampler that has ended does not take
            return
        self._pushed += len(samples)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(np.ascontiguousarray(samples))
        self._add(np.clip(samples, -1.0, 1.0))

    def end(self) -> None:
        """Says that no more sound comes."""
        if self.ended:
            return
        # Rounded up, as in files.
        missing = -(-self._pushed * SAMPLE_RATE // self._rate) - self.samples
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)[:missing]
            self._add(np.clip(rest, -1.0, 1.0))
            self._add(np.zeros(missing - len(rest), np.float32))
        self._compute(np.zeros(audio.LEAD, np.float32))
        self.ended = True

    def windows(self, first: int, count: int) -> np.ndarray:
        """Returns the (count, 16, 80) log-mel windows of ticks first ... first + count - 1.

        Sound that has not arrived is silence, as is what lies before the beginning. What is before
        the tick of `forget` is silence as well.
        """
        low = max(first * MELS_PER_TICK - _HALF, self._first)
        high = min((first + count) * MELS_PER_TICK + _HALF, self.frames)
        mel = np.zeros((0, NUM_MELS), np.float32)
        if high > low:
            gains = self._gains.gains(low, high - low, self.ended)
            power = self._powers[low - self._first : high - self._first] * gains[:, None]
            mel = np.log(np.maximum(power, math.exp(MEL_FLOOR)))
        # Ticks in frames of `mel`, which need not begin with a tick.
        ticks = np.arange(first, first + count) - low / MELS_PER_TICK
        return mel_windows(mel, ticks)

    def forget(self, tick: int) -> None:
        """Drops what only the windows of ticks before `tick` need."""
        first = min(max(tick * MELS_PER_TICK - _HALF, self._first), self.frames)
        # A copy, so that the memory of what is dropped is returned.
        self._powers = self._powers[first - self._first :].copy()
        self._first = first
        self._gains.forget(first)

    def _add(self, samples: np.ndarray) -> None:
        self.samples += len(samples)
        self._compute(samples)

    def _compute(self, samples: np.ndarray) -> None:
        self._wave = np.concatenate([self._wave, samples])
        powers = audio.frame_powers(self._wave)
        self._wave = self._wave[len(powers) * audio.HOP :]
        self._powers = np.concatenate([self._powers, powers[:, :NUM_MELS]])
        self._gains.push(powers[:, NUM_MELS])
