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
    quietest, rise = 10 ** (ABSOLUTE_DB / 10), 10 ** (_RISE_DB / 10)
    half = _BLOCK // 2
    for past, coming in _windows(units, half + _REACH, half + _REACH):
        near = past + coming
        first = max(len(past) - half, 0)
        block = near[first : len(past) + half]
        mean = math.fsum(block) / len(block)
        # Nothing is known of the sound before the beginning and after the end. It is taken to go
        # on, so that the beginning of steady noise is no syllable.
        peak = first + block.index(max(block))
        before, after = near[max(peak - _REACH, 0) : peak + 1], near[peak : peak + _REACH + 1]
        around = max(min(before), min(after))
        yield mean if mean > quietest and near[peak] > rise * around else None


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
