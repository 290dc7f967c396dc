"""Lip and jaw landmarks of the whole speech track, window by window on the 25 Hz clock.

Windows have the length that the landmark network was trained on and overlap by half. Where they
overlap, their predictions are averaged with weights that fall towards the ends of a window (Hann),
so that the start of a window is not visible. Only one window's poses and a few predictions are held
at a time.

A template whose scenes show different people has one `ContentTrack` for each visit to a scene, so
that no window mixes two people. All of them read the same speech, through one `MelBuffer`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from talkjax.conventions import TICKS_PER_SECOND

# Maps (past + T + future, 16, 80) log-mel windows and (T, 74, 2) poses to (T, 57, 2) content
# landmarks. The result may be an array that is still being computed.
Complete = Callable[[np.ndarray, np.ndarray], Any]


class PoseTrack:
    """Poses at landmark ticks, interpolated between the frames of the output."""

    def __init__(
        self, frames: Iterator[tuple[float, np.ndarray | None]], before: np.ndarray
    ) -> None:
        """Starts a track.

        Args:
          frames: (seconds, (74, 2) pose or None) of the output's frames. Where the face is missing,
            the last pose is held; before the first and after the last frame, theirs is.
          before: (74, 2) pose until the first face is seen.
        """
        self._frames = frames
        self._ended = False
        self._last = before
        self._times: list[float] = []
        self._poses: list[np.ndarray] = []

    @property
    def end(self) -> float | None:
        """Time of the last frame in seconds, once it is known."""
        return self._times[-1] if self._ended and self._times else None

    def at(self, ticks: np.ndarray) -> np.ndarray:
        """Returns the (T, 74, 2) float32 poses at (T,) increasing tick numbers.

        The first tick must not be smaller than in an earlier call.
        """
        times = np.asarray(ticks) / TICKS_PER_SECOND
        while not self._ended and (not self._times or self._times[-1] < times[-1]):
            frame = next(self._frames, None)
            if frame is None:
                self._ended = True
                break
            time, pose = frame
            self._last = self._last if pose is None else pose
            self._times.append(time)
            self._poses.append(self._last)
        old = max(0, int(np.searchsorted(self._times, times[0])) - 1)
        del self._times[:old], self._poses[:old]
        if len(self._times) < 2:
            return np.repeat((self._poses or [self._last])[0][None], len(times), 0)
        known, poses = np.array(self._times), np.stack(self._poses)
        right = np.clip(np.searchsorted(known, times), 1, len(known) - 1)
        share = np.clip((times - known[right - 1]) / (known[right] - known[right - 1]), 0.0, 1.0)
        share = share[:, None, None].astype(np.float32)
        return poses[right - 1] * (1 - share) + poses[right] * share


class MelBuffer:
    """Mel windows that may be read again: a visit's first windows begin before the visit does."""

    def __init__(self, mel_windows: Callable[[int, int], np.ndarray], window: int) -> None:
        """Starts with nothing.

        Args:
          mel_windows: Returns (count, 16, 80) windows from (first tick, count), in increasing order
            only, such as `speech.MelStream.windows`.
          window: Largest count.
        """
        self._read, self._keep = mel_windows, 2 * window
        self._first = 0  # tick of the first row
        self._rows: np.ndarray | None = None

    def windows(self, first: int, count: int) -> np.ndarray:
        """Returns the (count, 16, 80) windows of ticks first ... first + count - 1.

        `first` may be smaller than in an earlier call by `window` ticks at most.
        """
        rows = self._rows
        if rows is None or first > self._first + len(rows):
            rows, self._first = self._read(first, count), first
        if first < self._first:
            raise ValueError(f"tick {first} is too long before that of an earlier call")
        known = self._first + len(rows)
        if first + count > known:
            rows = np.concatenate([rows, self._read(known, first + count - known)])
        drop = max(len(rows) - self._keep, 0)
        result = rows[first - self._first : first - self._first + count]
        self._rows, self._first = rows[drop:], self._first + drop
        return result


class ContentTrack:
    """Content landmarks at any time, predicted on demand and in order."""

    def __init__(
        self,
        complete: Complete,
        mel_windows: Callable[[int, int], np.ndarray],
        poses: PoseTrack,
        ticks: int,
        window: int,
        ahead: int = 0,
        context: tuple[int, int] = (0, 0),
    ) -> None:
        """Starts a track.

        Args:
          complete: The landmark network with its references bound.
          mel_windows: Returns (count, 16, 80) windows from (first tick, count), such as
            `MelBuffer.windows`. The first tick may be negative.
          poses: Poses of the output's frames.
          ticks: Length of the track in ticks.
          window: Number of ticks T in a window.
          ahead: Number of ticks by which predictions start before they are needed. A device works
            in order, so a prediction that starts after a batch of images waits for that batch.
          context: Ticks of sound that the network hears before and after a window.
        """
        self._complete, self._mel_windows, self._poses = complete, mel_windows, poses
        self._count, self._window = ticks, window
        self._weights = np.sin(np.pi * (np.arange(window) + 0.5) / window).astype(np.float32) ** 2
        self._starts = window_starts(ticks, window)
        self._next, self._ahead, self._context = 0, ahead, context
        self._started: deque[tuple[int, Any]] = deque()  # (first tick, prediction) of windows
        self._first = 0  # tick of the first row of the sums
        self._sums = np.zeros((0, 0, 2), np.float32)  # (n, 57, 2) weighted predictions
        self._totals = np.zeros(0, np.float32)  # (n,) their weights

    def at(self, time: float) -> np.ndarray:
        """Returns the (57, 2) float32 landmarks at `time` seconds.

        The time must not be smaller than in an earlier call.
        """
        tick = min(max(time * TICKS_PER_SECOND, 0.0), self._count - 1.0)
        low = min(int(tick), max(self._count - 2, 0))
        high = min(low + 1, self._count - 1)
        while self._next < len(self._starts) and self._is_due(self._starts[self._next], high):
            start = self._starts[self._next]
            self._next += 1
            if start + self._window > low:
                self._started.append((start, self._predict(start)))
        while self._started and self._started[0][0] <= high:
            start, predicted = self._started.popleft()
            self._add_window(start, np.asarray(predicted), low)
        a, b = (self._sums[k - self._first] / self._totals[k - self._first] for k in (low, high))
        share = np.float32(tick - low)
        return a * (1 - share) + b * share

    def _is_due(self, start: int, high: int) -> bool:
        """Returns whether the window from `start` on is predicted now, to know tick `high`."""
        end = self._poses.end
        wanted = end is None or start <= end * TICKS_PER_SECOND + 1
        return start <= high or (start <= high + self._ahead and wanted)

    def _predict(self, start: int) -> Any:
        ticks = start + np.arange(self._window)
        # Beyond the end of the track the last pose is held, and `mel_windows` returns silence.
        poses = self._poses.at(np.minimum(ticks, max(self._count - 1, 0)))
        past, future = self._context
        heard = self._mel_windows(start - past, past + self._window + future)
        return self._complete(heard, poses)

    def _add_window(self, start: int, predicted: np.ndarray, low: int) -> None:
        """Adds the predictions of a window, and drops ticks before `low`."""
        if not self._sums.size:
            self._sums = np.zeros((0, *predicted.shape[1:]), np.float32)
        drop = min(max(min(low, start) - self._first, 0), len(self._totals))
        self._sums, self._totals = self._sums[drop:], self._totals[drop:]
        self._first = self._first + drop if len(self._totals) else start
        grow = start + self._window - self._first - len(self._totals)
        self._sums = np.pad(self._sums, ((0, grow), (0, 0), (0, 0)))
        self._totals = np.pad(self._totals, (0, grow))
        rows = slice(start - self._first, start - self._first + self._window)
        self._sums[rows] += predicted * self._weights[:, None, None]
        self._totals[rows] += self._weights


def window_starts(ticks: int, window: int) -> list[int]:
    """Returns the first ticks of half-overlapping windows; the last one ends with the track."""
    last = max(0, ticks - window)
    return [*range(0, last, max(1, window // 2)), last]
