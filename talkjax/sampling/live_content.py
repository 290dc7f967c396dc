"""Lips and jaw of a live session: how one utterance becomes landmarks, some ticks at a time.

Where enough later sound is known, predictions are those of a whole file: the same half-overlapping
windows, averaged in the same way (`completion`). That is so whenever speech arrives faster than it
is said, as from a synthesiser. Otherwise one window is predicted for each piece, laid so that its
ticks have as much later sound as there is.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from talkjax.conventions import MELS_PER_TICK, SAMPLE_RATE, TICKS_PER_SECOND
from talkjax.media import audio, loudness
from talkjax.media.live_speech import LiveSpeech
from talkjax.sampling.completion import Complete, window_starts

# What is left, a tick later, of the difference between a new prediction and what was shown before.
EASE = 0.6


class Samples:
    """Sound that waits, first in, first out."""

    def __init__(self) -> None:
        self._pieces: deque[np.ndarray] = deque()
        self.count = 0

    def push(self, samples: np.ndarray) -> None:
        """Appends (n,) samples."""
        if len(samples):
            self._pieces.append(samples)
            self.count += len(samples)

    def take(self, count: int) -> np.ndarray:
        """Removes the first samples and returns them; there may be fewer than `count`."""
        taken = [np.zeros(0, np.float32)]
        while count > 0 and self._pieces:
            piece = self._pieces.popleft()
            if len(piece) > count:
                self._pieces.appendleft(piece[count:])
                piece = piece[:count]
            taken.append(piece)
            count -= len(piece)
            self.count -= len(piece)
        return np.concatenate(taken)


class Utterance:
    """What is said from the first sound to `flush`.

    Attributes:
      rate: Samples a second.
      pushed: Number of samples so far.
      flushed: Whether no more comes.
      tick: Number of ticks that have been taken.
      speech: What the network hears of it.
      windows: Predictions of whole windows by their first tick (`predict`).
    """

    def __init__(self, rate: int, level: tuple[float, ...]) -> None:
        self.rate, self.pushed, self.flushed, self.tick = rate, 0, False, 0
        self.speech = LiveSpeech(rate, level)
        self.windows: dict[int, np.ndarray] = {}
        self._heard, self._played = Samples(), Samples()

    @property
    def seconds(self) -> float:
        """Seconds of sound so far."""
        return self.pushed / self.rate

    @property
    def waiting(self) -> float:
        """Seconds of sound that have not been taken."""
        return self._played.count / self.rate

    @property
    def length(self) -> int | None:
        """Number of its ticks, once it is flushed."""
        return -(-self.pushed * TICKS_PER_SECOND // self.rate) if self.flushed else None

    @property
    def ticks(self) -> int | None:
        """Number of ticks for which a file of this sound has predictions, once it is flushed."""
        if not self.flushed:
            return None
        return audio.tick_count(-(-self.pushed * SAMPLE_RATE // self.rate)) + 1

    def push(self, samples: np.ndarray) -> None:
        """Appends (n,) float32 samples."""
        self.pushed += len(samples)
        self._heard.push(samples)
        self._played.push(samples)

    def ready(self, chunk: int, look_ahead: float | None) -> int:
        """Returns how many ticks can be predicted now: `chunk`, the rest of the utterance, or 0.

        Args:
          chunk: Number of ticks that are predicted together.
          look_ahead: Seconds of sound that must be known after the last of them; None waits for
            the end.
        """
        if self.length is not None:
            return min(chunk, self.length - self.tick)
        if look_ahead is None:
            return 0
        last = (self.tick + chunk - 1) / TICKS_PER_SECOND
        return chunk if self.seconds >= last + look_ahead - 1e-9 else 0

    def take(self, count: int, window: int) -> tuple[np.ndarray, bool, list[np.ndarray]]:
        """Takes the sound of the next ticks.

        Args:
          count: Number of ticks.
          window: Ticks after them that predictions may need.

        Returns:
          Samples to be heard now, whether they are the last ones, and the sound of each tick, the
          last one padded with silence.
        """
        first, self.tick = self.tick, self.tick + count
        ahead = (self.tick + window) / TICKS_PER_SECOND + loudness.AHEAD_SECONDS + 0.1
        known = self.pushed - self._heard.count
        heard = self._heard.take(max(round(ahead * self.rate) - known, 0))
        ends = [k * self.rate // TICKS_PER_SECOND for k in range(first, self.tick + 1)]
        sound = [self._played.take(b - a) for a, b in itertools.pairwise(ends)]
        short = ends[-1] - ends[-2] - len(sound[-1])
        sound[-1] = np.pad(sound[-1], (0, max(short, 0)))
        return heard, self.flushed and not self._heard.count, sound


class LiveContent:
    """Predicts the content landmarks of utterances."""

    def __init__(self, complete: Complete, window: int, context: tuple[int, int]) -> None:
        """Binds the network.

        Args:
          complete: The landmark network with its references bound.
          window: Number of ticks T in a window.
          context: Ticks of sound that it hears before and after a window.
        """
        self._complete, self._window, self._context = complete, window, context
        weights = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
        self._weights = weights.astype(np.float32)[:, None, None]

    @property
    def reach(self) -> int:
        """Ticks after a tick whose sound predictions may need."""
        return self._window + self._context[1]

    def warm_up(self, pose: Callable[[np.ndarray], np.ndarray]) -> None:
        """Compiles the network, and loads what hearing needs."""
        speech = Utterance(SAMPLE_RATE, ())
        speech.speech.push(np.zeros(SAMPLE_RATE // 10, np.float32))
        self._run(speech, 0, pose(np.arange(self._window)))

    def predict(
        self,
        utterance: Utterance,
        first: int,
        count: int,
        pose: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """Predicts ticks first ... first + count - 1 of an utterance, and the one before.

        Args:
          utterance: The utterance; ticks before `first` are forgotten but for what the next ones
            need.
          first: First tick, not smaller than in an earlier call.
          count: Number of ticks.
          pose: Returns the (n, 74, 2) poses at (n,) ticks, which may be negative.

        Returns:
          (count + 1, 57, 2) float32 crop coordinates.
        """
        low, high = first - 1, first + count
        windows = utterance.windows
        for start in [start for start in windows if start + self._window <= low]:
            del windows[start]
        needed = self._whole_windows(utterance, max(low, 0), high)
        if needed is None:
            result = self._predict_latest(utterance, low, high, pose)
        else:
            total = utterance.ticks
            for start in needed:
                if start not in windows:
                    ticks = start + np.arange(self._window)
                    # As in files, the last pose is held beyond the end.
                    ticks = ticks if total is None else np.minimum(ticks, max(total - 1, 0))
                    windows[start] = self._run(utterance, start, pose(ticks))
            result = np.stack([self._average(windows, tick) for tick in range(max(low, 0), high)])
            if low < 0:
                result = np.concatenate([result[:1], result])
        utterance.speech.forget(high - self._window - self._context[0] - 2)
        return result

    def _whole_windows(self, utterance: Utterance, low: int, high: int) -> list[int] | None:
        """Returns where a file's windows over these ticks begin, or None for want of sound."""
        total, half = utterance.ticks, max(1, self._window // 2)
        if total is None:
            starts = [*range(max(low - self._window, 0) // half * half, high, half)]
        else:
            starts = window_starts(total, self._window)
        needed = [start for start in starts if start < high and start + self._window > low]
        if not needed or utterance.speech.ended:
            return needed or None
        known = self._known(utterance)
        return needed if needed[-1] + self.reach <= known else None

    def _known(self, utterance: Utterance) -> int:
        """Returns the number of ticks around which all sound is known."""
        return (utterance.speech.frames - MELS_PER_TICK) // MELS_PER_TICK

    def _predict_latest(
        self,
        utterance: Utterance,
        low: int,
        high: int,
        pose: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """Predicts ticks low ... high - 1 with one window, with as much later sound as there is."""
        start = min(max(self._known(utterance) - self.reach, high - self._window), low)
        predicted = self._run(utterance, start, pose(start + np.arange(self._window)))
        return predicted[low - start : high - start]

    def _run(self, utterance: Utterance, start: int, poses: np.ndarray) -> Any:
        past, future = self._context
        heard = utterance.speech.windows(start - past, past + self._window + future)
        return np.array(self._complete(heard, poses))

    def _average(self, windows: dict[int, np.ndarray], tick: int) -> np.ndarray:
        parts = [(s, w) for s, w in windows.items() if s <= tick < s + self._window]
        weights = [self._weights[tick - start] for start, _ in parts]
        total = sum(w * p[tick - s] for w, (s, p) in zip(weights, parts, strict=True))
        return total / sum(weights)


def ease(predicted: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Continues what was shown, without a jump.

    Args:
      predicted: (n + 1, 57, 2): a new prediction of the tick that was shown last, and of the next.
      shown: (57, 2) that tick as it was shown.

    Returns:
      (n, 57, 2) predictions, moved towards what was shown by ever less.
    """
    left = np.float32(EASE) ** np.arange(1, len(predicted), dtype=np.float32)
    return predicted[1:] + left[:, None, None] * (shown - predicted[0])
