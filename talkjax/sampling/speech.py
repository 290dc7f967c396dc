"""The speech track as log-mel windows, read as they are needed and in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from talkjax.conventions import (
    MEL_FLOOR,
    MEL_WINDOW,
    MELS_PER_SECOND,
    MELS_PER_TICK,
    NUM_MELS,
    SAMPLE_RATE,
)
from talkjax.media import audio

_HOP = SAMPLE_RATE // MELS_PER_SECOND
_REACH = 256  # samples that a mel frame sees on either side of its centre
_LEAD = 2  # frames of overlap between pieces: their `_REACH` in whole hops
_PIECE = 200  # mel frames made at a time


class MelStream:
    """`audio.mel_windows(audio.log_mel(audio.load_audio(path)), ...)` for rising ticks.

    Attributes:
      seconds: exact length of the track from the clip's zero.
      ticks: landmark ticks needed to interpolate everywhere in it.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """Decodes the track once, for its length.

        Raises:
          UserError: as `audio.load_audio`.
        """
        total, rate = 0, SAMPLE_RATE
        for block in audio.aligned_blocks(path):
            total, rate = total + block.samples.shape[1], block.rate
        self.seconds = total / rate
        samples = -(-total * SAMPLE_RATE // rate)
        self.ticks = audio.tick_count(samples) + 1
        self._pieces = mel_pieces(_waves(path, samples))
        self._mel = np.zeros((0, NUM_MELS), np.float32)
        self._first = 0  # number of the first frame in `_mel`

    def windows(self, first: int, count: int) -> np.ndarray:
        """(count, 16, 80) windows of ticks first ... first + count - 1.

        `first` must not be smaller than in an earlier call; what lies before is forgotten.
        """
        half = MEL_WINDOW // 2
        lo, hi = MELS_PER_TICK * first - half, MELS_PER_TICK * (first + count - 1) + half
        while self._first + len(self._mel) < hi:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._mel = np.concatenate([self._mel, piece])
            drop = min(max(lo - self._first, 0), len(self._mel))
            self._mel, self._first = self._mel[drop:], self._first + drop
        if max(lo, 0) < self._first:
            raise ValueError(f"tick {first} comes before an earlier call's")
        span = np.full((hi - lo, NUM_MELS), MEL_FLOOR, np.float32)
        a, b = max(lo, self._first), min(hi, self._first + len(self._mel))
        if a < b:
            span[a - lo : b - lo] = self._mel[a - self._first : b - self._first]
        views = np.lib.stride_tricks.sliding_window_view(span, MEL_WINDOW, axis=0)
        return np.ascontiguousarray(views[::MELS_PER_TICK].transpose(0, 2, 1))


def mel_pieces(waves: Iterable[np.ndarray], piece: int = _PIECE) -> Iterator[np.ndarray]:
    """`audio.log_mel` of concatenated waves, piece by piece.

    Args:
      waves: 16 kHz mono float32, in pieces of any length.
      piece: least number of frames in a piece, except the last.

    Yields:
      (n, 80) float32.
    """
    waiting: list[np.ndarray] = []
    length = lead = 0  # samples waiting; frames at their start that were given already
    for wave in waves:
        waiting.append(wave)
        length += len(wave)
        ready = max(0, (length - _REACH) // _HOP + 1)
        if ready - lead < piece:
            continue
        whole = np.concatenate(waiting)
        yield audio.log_mel(whole)[lead:ready]
        lead = min(ready, _LEAD)
        waiting = [whole[(ready - lead) * _HOP :]]
        length = len(waiting[0])
    yield audio.log_mel(np.concatenate([*waiting, np.zeros(0, np.float32)]))[lead:]


def _waves(path: str | os.PathLike, length: int) -> Iterator[np.ndarray]:
    """`audio.load_audio` in pieces; `length` is that of the whole."""
    import soxr

    resampler, given = None, 0

    def fitted(wave: np.ndarray) -> np.ndarray:
        nonlocal given
        wave = np.clip(wave[: length - given], -1.0, 1.0)
        given += len(wave)
        return wave

    for block in audio.aligned_blocks(path):
        mono = block.samples.mean(axis=0, dtype=np.float32)
        if resampler is None and block.rate != SAMPLE_RATE:
            resampler = soxr.ResampleStream(
                block.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ"
            )
        yield fitted(mono if resampler is None else resampler.resample_chunk(mono))
    if resampler is not None:
        yield fitted(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    yield np.zeros(length - given, np.float32)
