"""Deinterlacing: pictures that are flagged as two fields become progressive, at the same rate."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av

WARM_UP = 1  # pictures before the first wanted one that `progressive` needs for the exact result


def progressive(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Deinterlaces the pictures of a stream that are flagged as interlaced.

    FFmpeg's `bwdif` fills in the lines of the second field from the picture itself and from both
    neighbours, so still parts keep their full resolution. A picture depends on nothing else, so
    that decoding after a seek gives the same pixels. Progressive pictures pass unchanged, at no
    cost before the first interlaced one.

    Args:
      frames: Decoded pictures in presentation order.

    Yields:
      As many pictures, with the same timestamps; one picture late.
    """
    before = graph = None
    for frame in frames:
        if graph is not None and not graph.fits(frame):
            yield from graph.finish()
            before = graph = None
        if graph is None and frame.interlaced_frame:
            graph = _Graph(frame)
            if before is not None and graph.fits(before):
                graph.push(before, wanted=False)
        if graph is None:
            yield frame
        else:
            yield from graph.push(frame)
        before = frame
    if graph is not None:
        yield from graph.finish()


class _Graph:
    """A running filter for pictures of one size and format."""

    def __init__(self, first: av.VideoFrame) -> None:
        self._kind = _kind(first)
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=first.width,
            height=first.height,
            format=first.format.name,
            time_base=Fraction(1, 1000),  # the filter sees numbers of pictures
        )
        bwdif = self._graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()
        self._waiting: deque[tuple[int | None, int | None, Fraction, bool]] = deque()

    def fits(self, frame: av.VideoFrame) -> bool:
        return _kind(frame) == self._kind

    def push(self, frame: av.VideoFrame, wanted: bool = True) -> list[av.VideoFrame]:
        """Adds a picture and returns those that are ready and wanted."""
        self._waiting.append((frame.pts, frame.dts, frame.time_base, wanted))
        self._graph.push(frame)
        return self._pull()

    def finish(self) -> list[av.VideoFrame]:
        """Returns the last picture; the graph cannot be used any more."""
        self._graph.push(None)
        return self._pull()

    def _pull(self) -> list[av.VideoFrame]:
        ready = []
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return ready
            pts, dts, time_base, wanted = self._waiting.popleft()
            frame.pts, frame.dts, frame.time_base = pts, dts, time_base
            if wanted:
                ready.append(frame)


def _kind(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
