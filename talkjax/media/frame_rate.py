"""Finding a stream's average frame rate where the header is silent or wrong.

Browsers write live WebM without a rate, for which FFmpeg reports the tick of its clock: 1000 frames
a second. Other recorders write a nominal rate which their timestamps contradict. A rate that comes
with an exact count of frames is believed; any other is compared with the first timestamps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np

DEFAULT = 25.0
_MAX = 1000.0
_MAX_UNPROVEN = 240.0  # a rate above it needs a count of frames or timestamps that support it
_TOLERANCE = 1.1  # ratio from which timestamps contradict a header
_HOLD = 4.0  # an interval of this many usual ones is a pause of the recorder
_STANDARD = tuple(
    float(rate)
    for rate in (
        *(10, 12, 12.5, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120),
        *(Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)),
    )
)
_SNAP = 1e-3  # relative distance within which a measured rate is a standard one
_PACKETS = 400
_BYTES = 32 << 20
_REORDERED = 8  # last packets in decoding order, whose neighbours in time may be missing


def average_rate(
    container: av.container.InputContainer, stream: av.VideoStream, duration: float | None
) -> float:
    """Returns the average frame rate of a stream; reads on in the container at most a few seconds.

    Args:
      container: An open container, anywhere in the file.
      stream: Its video stream.
      duration: Length of the stream in seconds, or None if unknown.
    """
    average, nominal, base = (
        float(rate) if rate and 0 < float(rate) <= _MAX else None
        for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate)
    )
    count = stream.frames
    if average and count:
        if nominal and abs(average - nominal) <= nominal / count:
            return nominal  # the rate is constant; a short or long last frame changes its average
        return average
    measured = rate_of_times(list(_packet_times(container, stream)))
    for rate in (average, nominal, base):
        if rate and (measured or rate <= _MAX_UNPROVEN):
            agrees = measured is None or 1 / _TOLERANCE < rate / measured < _TOLERANCE
            return rate if agrees else measured
    return measured or (count / duration if count and duration else DEFAULT)


def rate_of_times(times: Sequence[float]) -> float | None:
    """Returns the rate at which pictures follow each other, or None for fewer than three.

    Pauses, in which a screen recorder holds its picture, are left out. A rate close to a standard
    one is that one, because clocks of milliseconds round.

    Args:
      times: Seconds, in any order.
    """
    steps = np.diff(np.unique(times))
    if len(steps) < 2:
        return None
    steps = steps[steps <= _HOLD * np.median(steps)]
    rate = float(1 / steps.mean())
    nearest = min(_STANDARD, key=lambda standard: abs(standard - rate))
    return nearest if abs(nearest - rate) <= _SNAP * nearest else min(rate, _MAX)


def _packet_times(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[float]:
    """Yields the times in seconds of the next packets that have one, up to a jump of the clock."""
    shown: list[float] = []
    decoded: list[float] = []
    size = 0
    try:
        for packet in container.demux(stream):
            size += packet.size
            if packet.pts is not None:
                shown.append(float(packet.pts * packet.time_base))
            if packet.dts is not None:
                decoded.append(float(packet.dts * packet.time_base))
            if max(len(shown), len(decoded)) >= _PACKETS or size > _BYTES:
                shown = sorted(shown)[:-_REORDERED]
                break
    except (av.error.FFmpegError, OSError):
        pass  # what was read before is enough, or the header decides
    # Some containers, such as AVI, store decoding times alone.
    yield from shown if 2 * len(shown) > len(decoded) else decoded
