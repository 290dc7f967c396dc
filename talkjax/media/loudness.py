"""The level of speech that arrives piece by piece, and the gain that brings it to a standard.

Landmark networks take a quiet recording for somebody who hardly opens the mouth. So every recording
is brought to one level before they hear it, in training, sampling and evaluation alike.

The level is that of active speech, found by the gates of ITU-R BS.1770: an absolute one and one of
10 dB below the mean. A third gate demands that the level rises and falls as it does with syllables.
Without it, the noise of an empty room would be lifted until it is as loud as a voice. Until speech
is heard, the gain is 1.

But for the absolute gate, all thresholds compare levels within the recording, so a quieter copy of
it gets exactly so much more gain. The gain depends on the sound of the past and of the next
`AHEAD_SECONDS` and not on the rest, so that live sound is heard as a file is.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from talkjax.conventions import MELS_PER_SECOND

T = TypeVar("T")

TARGET_DB = -22.5  # of speech that networks hear, as in the synthetic corpus; full scale is 0 dB
ABSOLUTE_DB = -70.0  # what is quieter is never speech
_RELATIVE_DB = -10.0
_RISE_DB = 7.0  # a syllable is louder by so much than some moment shortly before and after it
_UNIT = 5  # mel frames in a unit, 50 ms; all that follows is in units
_BLOCK = 8  # 400 ms, the block of BS.1770
_REACH = 12  # how far from a syllable these quieter moments may be
_MEMORY = 200  # speech that decides the gain, 10 s
_FORWARD = 18  # of which so much is still to come
_CAUTION = 16  # how long before a louder passage the gain falls
_SMOOTH = 8  # to either side; the gain is averaged over these
# A live speaker is expected to be as loud as the standard, as if so many blocks had been heard,
# until enough of his speech is known. Breath and noise before the first words would be lifted.
_EXPECTED, _ENOUGH = 8, 20
AHEAD_SECONDS = _UNIT * (_BLOCK // 2 + _REACH + _FORWARD + _CAUTION + _SMOOTH + 2) / MELS_PER_SECOND


def stream_gains(powers: Iterable[np.ndarray]) -> Iterator[float]:
    """Finds the gain of each mel frame.

    Args:
      powers: Consecutive (n,) mean squares of frames in the band of speech. Full scale is 1.

    Yields:
      Factors of power, without end; the last one is repeated after the last frame. They do not
      depend on how the frames are divided, to the last bit.
    """
    levels = _stream_levels(_stream_units(powers))
    decibels = (0.0 if level is None else TARGET_DB - level for level in levels)
    careful = (min(coming) for _, coming in _windows(decibels, 0, _CAUTION))
    smooth = (
        math.fsum([*past, *coming]) / (len(past) + len(coming))
        for past, coming in _windows(careful, _SMOOTH, _SMOOTH)
    )
    # A unit's value belongs to its middle, and values between are interpolated.
    before = next(smooth, 0.0)
    for _ in range(_UNIT // 2):
        yield 10 ** (before / 10)
    for after in smooth:
        for step in range(_UNIT):
            yield 10 ** ((before + (after - before) * step / _UNIT) / 10)
        before = after
    yield from itertools.repeat(10 ** (before / 10))


def _stream_units(powers: Iterable[np.ndarray]) -> Iterator[float]:
    """Averages the frames of each unit; the last unit may have fewer frames."""
    rest: list[float] = []
    for power in powers:
        rest += power.tolist()
        whole = len(rest) // _UNIT * _UNIT
        for start in range(0, whole, _UNIT):
            yield math.fsum(rest[start : start + _UNIT]) / _UNIT
        del rest[:whole]
    if rest:
        yield math.fsum(rest) / len(rest)


def _stream_levels(units: Iterable[float]) -> Iterator[float | None]:
    """Yields the level of speech around each unit in dB, or None if there was none so far."""
    speech: deque[float] = deque(maxlen=_MEMORY)
    level = None
    # The speech of the next `_FORWARD` units counts, so the first units wait for it.
    waiting = -_FORWARD
    for block in _stream_speech(units):
        if block is not None:
            speech.append(block)
            level = _gated_level(np.array(speech))
        if waiting >= 0:
            yield level
        waiting += 1
    yield from itertools.repeat(level, min(waiting + _FORWARD, _FORWARD))


def _stream_speech(units: Iterable[float]) -> Iterator[float | None]:
    """Yields the mean power of the block around each unit, or None where it is no speech."""
    reach = _BLOCK // 2 + _REACH
    for past, coming in _windows(units, reach, reach):
        yield _speech_power(past, coming)


def _speech_power(past: list[float], coming: list[float]) -> float | None:
    """Returns the mean power of the block around `coming[0]`, or None where it is no speech."""
    quietest, rise = 10 ** (ABSOLUTE_DB / 10), 10 ** (_RISE_DB / 10)
    half, near = _BLOCK // 2, past + coming
    first = max(len(past) - half, 0)
    block = near[first : len(past) + half]
    mean = math.fsum(block) / len(block)
    # Nothing is known of the sound before the beginning and after the end. It is taken to go
    # on, so that the beginning of steady noise is no syllable.
    peak = first + block.index(max(block))
    before, after = near[max(peak - _REACH, 0) : peak + 1], near[peak : peak + _REACH + 1]
    around = max(min(before), min(after))
    return mean if mean > quietest and near[peak] > rise * around else None


def _gated_level(blocks: np.ndarray) -> float:
    """Returns the level in dB of (n,) powers of blocks that passed the absolute gate."""
    loud = blocks[blocks >= 10 ** (_RELATIVE_DB / 10) * blocks.mean()]
    return 10 * math.log10(loud.mean())


def _windows(items: Iterable[T], before: int, after: int) -> Iterator[tuple[list[T], list[T]]]:
    """Yields for each item up to `before` earlier ones, and it with up to `after` later ones."""
    past: deque[T] = deque(maxlen=before)
    coming: deque[T] = deque()
    for item in items:
        coming.append(item)
        if len(coming) > after:
            yield [*past], [*coming]
            past.append(coming.popleft())
    while coming:
        yield [*past], [*coming]
        past.append(coming.popleft())


class LiveGains:
    """The gains of sound that is still arriving, as `stream_gains` finds them if it ended now.

    In the first second of speech, when hardly anything is known of the level, it is one gain, and a
    careful one. The level of speech is remembered for as long as in a file; of the rest only what
    is needed for the frames that may still be asked for is kept.
    """

    def __init__(self, speech: Iterable[float] = ()) -> None:
        """Starts without sound.

        Args:
          speech: Mean powers of earlier blocks of speech of the same speaker (`speech`), so that
            the level is known from the first syllable on.
        """
        self.speech: deque[float] = deque(speech, maxlen=_MEMORY)
        self._level = _gated_level(np.array(self.speech)) if self.speech else None
        self._rest: list[float] = []
        self._first = 0  # number of the first unit in the lists
        self._units: list[float] = []
        self._levels: list[float | None] = []  # of the first units, which no later sound changes
        self._judged = 0  # units that have been tested for speech

    def push(self, powers: np.ndarray) -> None:
        """Takes the (n,) mean squares of the next frames in the band of speech."""
        self._rest += powers.tolist()
        whole = len(self._rest) // _UNIT * _UNIT
        self._units += [
            math.fsum(self._rest[start : start + _UNIT]) / _UNIT for start in range(0, whole, _UNIT)
        ]
        del self._rest[:whole]
        reach = _BLOCK // 2 + _REACH
        while self._judged + reach < self._first + len(self._units):
            self._level = self._judge(self._units, self._judged, self.speech, self._level)
            if self._judged >= _FORWARD:
                self._levels.append(self._level)
            self._judged += 1

    def _judge(
        self, units: list[float], number: int, speech: deque[float], level: float | None
    ) -> float | None:
        """Adds a unit's block to the speech if it is speech; returns the level from then on."""
        reach, place = _BLOCK // 2 + _REACH, number - self._first
        past = units[max(place - reach, 0) : place]
        block = _speech_power(past, units[place : place + reach + 1])
        if block is None:
            return level
        speech.append(block)
        return _gated_level(np.array(speech))

    def gains(self, first: int, count: int, complete: bool = False) -> np.ndarray:
        """Returns (count,) float32 factors of power of the frames from `first` on.

        Args:
          first: First frame, not before that of `forget`.
          count: Number of frames.
          complete: Whether the sound has ended.
        """
        units = self._units + ([math.fsum(self._rest) / len(self._rest)] if self._rest else [])
        if not units:
            return np.ones(count, np.float32)
        last = (first + count) // _UNIT + _CAUTION + _SMOOTH + 2 - self._first
        levels = self._levels[:last]
        speech, level = self.speech.copy(), self._level
        if len(levels) < min(last, len(units)):
            for number in range(self._judged, self._first + len(units)):
                level = self._judge(units, number, speech, level)
                if number >= _FORWARD:
                    levels.append(level)
            levels += [level] * (len(units) - len(levels))
        if not complete and len(speech) < _ENOUGH:
            expected = [10 ** (TARGET_DB / 10)] * _EXPECTED
            careful_level = _gated_level(np.array([*expected, *speech]))
            return np.full(count, 10 ** ((TARGET_DB - careful_level) / 10), np.float32)
        decibels = np.array([0.0 if known is None else TARGET_DB - known for known in levels])
        careful = [decibels[k : k + _CAUTION + 1].min() for k in range(len(levels))]
        smooth = [
            np.mean(careful[max(k - _SMOOTH, 0) : k + _SMOOTH + 1]) for k in range(len(levels))
        ]
        middle = self._first * _UNIT + _UNIT // 2 + _UNIT * np.arange(len(smooth))
        return 10 ** (np.interp(np.arange(first, first + count), middle, smooth) / 10).astype(
            np.float32
        )

    def forget(self, first: int) -> None:
        """Drops what only the gains of frames before `first` need."""
        known = min(first // _UNIT - _SMOOTH - 2, self._judged - _BLOCK // 2 - _REACH)
        drop = min(max(known - self._first, 0), len(self._levels))
        del self._units[:drop], self._levels[:drop]
        self._first += drop
