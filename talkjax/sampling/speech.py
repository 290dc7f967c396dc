"""The speech track as log-mel windows, read on demand and in constant memory."""

from __future__ import annotations

import math

import numpy as np

from talkjax.conventions import MEL_WINDOW, MELS_PER_TICK, NUM_MELS, SAMPLE_RATE
from talkjax.files import PathLike
from talkjax.media import audio

_PIECE = 200  # mel frames computed at a time
_MARGIN = MEL_WINDOW // 2 // MELS_PER_TICK  # ticks that a window reaches to either side


class MelStream:
    """Mel windows of increasing ticks, equal to `audio.mel_windows` of the whole track.

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

        `first` must not be smaller than in an earlier call, because earlier frames are dropped.
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
        return audio.mel_windows(self._mel, np.arange(first, first + count) - self._first)
