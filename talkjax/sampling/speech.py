"""Speech as log-mel windows, read on demand and in constant memory."""

from __future__ import annotations

import math

import numpy as np

from talkjax.conventions import (
    MEL_WINDOW,
    MELS_PER_TICK,
    NUM_MELS,
    SAMPLE_RATE,
    TICKS_PER_SECOND,
    mel_windows,
)
from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import audio, container

_PIECE = 200  # mel frames computed at a time
_MARGIN = MEL_WINDOW // 2 // MELS_PER_TICK  # ticks that a window reaches to either side


class MelStream:
    """Mel windows of increasing ticks, equal to `conventions.mel_windows` of the whole track.

    Attributes:
      seconds: Exact length of the track from the clip's zero.
      ticks: Number of landmark ticks needed to interpolate anywhere in the track.
    """

    def __init__(self, path: PathLike, track: int | None = None) -> None:
        """Decodes the track once to find its length.

        Args:
          path: A media file.
          track: Number of its audio stream, see `container.audio_stream`.

        Raises:
          UserError: As `audio.stream_mono`.
        """
        duration = audio.exact_duration(path, track)
        self.seconds = float(duration)
        self.ticks = audio.tick_count(math.ceil(duration * SAMPLE_RATE)) + 1
        self._pieces = audio.stream_log_mel(audio.stream_mono(path, track=track), _PIECE)
        self._mel = np.zeros((0, NUM_MELS), np.float32)
        self._first = 0  # tick of the first frame in `_mel`

    def windows(self, first: int, count: int) -> np.ndarray:
        """Returns the (count, 16, 80) windows of ticks first ... first + count - 1.

        `first` must not be smaller than in an earlier call, because earlier frames are dropped. It
        may be negative: before the track there is silence.
        """
        oldest = max(first - _MARGIN, 0)
        if oldest < self._first:
            raise ValueError(f"tick {first} comes before that of an earlier call")
        newest = first + count - 1 + _MARGIN
        while self._first * MELS_PER_TICK + len(self._mel) < newest * MELS_PER_TICK:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._mel = np.concatenate([self._mel, piece])
            drop = min(oldest - self._first, len(self._mel) // MELS_PER_TICK)
            self._mel, self._first = self._mel[drop * MELS_PER_TICK :], self._first + drop
        return mel_windows(self._mel, np.arange(first, first + count) - self._first)


class TemplateSound:
    """What is heard in a template at the times of its reference faces."""

    def __init__(self, path: PathLike | None) -> None:
        """Opens the sound; a template without any, or with sound that cannot be read, is silent.

        Args:
          path: The template's file, or None if it is a photograph.
        """
        self._pieces = iter(())
        if path is not None and _has_sound(path):
            self._pieces = audio.stream_log_mel(audio.stream_mono(path), _PIECE)
        self._mel = np.zeros((0, NUM_MELS), np.float32)
        self._first = 0  # tick of the first frame in `_mel`

    def read(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Reads the sound around the faces of a scene.

        Args:
          times: (N,) increasing seconds. They must not be smaller than in an earlier call, because
            earlier sound is dropped.

        Returns:
          (N, 16, 80) log-mel windows and the (M,) loudness (mean log-mel) 100 times a second, from
          the first time to the last; None where there is no sound.
        """
        ticks = np.asarray(times) * TICKS_PER_SECOND
        oldest = max(int(ticks[0]) - _MARGIN, 0)
        newest = int(ticks[-1]) + 1 + _MARGIN
        if oldest < self._first:
            return None
        while self._first * MELS_PER_TICK + len(self._mel) < newest * MELS_PER_TICK:
            try:
                piece = next(self._pieces, None)
            except UserError:  # the picture may be intact
                piece = None
            if piece is None:
                break
            self._mel = np.concatenate([self._mel, piece])
            drop = min(oldest - self._first, len(self._mel) // MELS_PER_TICK)
            self._mel, self._first = self._mel[drop * MELS_PER_TICK :], self._first + drop
        ticks = ticks - self._first
        lo, hi = (round(float(t) * MELS_PER_TICK) for t in (ticks[0], ticks[-1]))
        loudness = self._mel[lo : hi + 1].mean(1)
        if len(loudness) < hi + 1 - lo:
            return None
        return mel_windows(self._mel, ticks), loudness


def _has_sound(path: PathLike) -> bool:
    with container.open_input(path) as opened:
        return container.audio_stream(opened) is not None
