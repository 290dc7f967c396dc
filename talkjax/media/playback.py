"""Playing a template for as long as the speech lasts, in constant memory."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import av

from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import container as media
from talkjax.media import interlace
from talkjax.media.video import VideoFrame, VideoReader

# What happens where the template is shorter than the speech: it is played back and forth, it is
# played again, the output ends with it, or its last picture stands.
MODES = ("bounce", "loop", "cut_off", "hold")
LONGEST_PICTURE = 0.045  # seconds; film at 24 frames a second stays as it is
REPEATED_EVERY = 0.04
_BACK_OFF_S = 12.0  # of the second attempt at a seek; exceeds the usual key frame interval


def iterate_pictures(
    path: PathLike, mode: str = "bounce", cache_bytes: int = 256 << 20
) -> Iterator[VideoFrame]:
    """Yields the frames of a template that is played in one of `MODES`.

    "bounce" yields frames 0, 1, ..., n-1, n-2, ..., 0, 1, ... without end; no turn repeats a frame.
    "loop" yields 0, 1, ..., n-1, 0, 1, ... without end. Other modes yield all frames once.

    A clip that fits into the cache is decoded once. A longer one is decoded backward in chunks:
    seek to the key frame before a chunk, decode up to its end, keep the chunk. Chunks are compared
    with checksums from the first forward pass. Where a file does not support exact seeking, the
    chunk is decoded from the start of the file instead, which is slower but correct.

    Args:
      path: A local video.
      mode: One of `MODES`.
      cache_bytes: Limit on the memory of cached pictures (at least two are kept).

    Yields:
      `VideoFrame`s, whose `time` is the frame's own time in the template (see `Clock`).
    """
    clip = _Clip(path, cache_bytes)
    yield from clip.first_pass()
    while mode == "bounce":
        yield from clip.backward()
        yield from clip.forward(1)
    while mode == "loop":
        yield from clip.forward(0)


class Shown(NamedTuple):
    """A frame of the output.

    Attributes:
      time: Seconds.
      index: Number of the template's frame that it shows. It is that of the frame before where a
        picture is repeated.
      lap: Number of the pass through the template, from 0, if it is played in a loop.
    """

    time: float
    index: int
    lap: int = 0


@dataclasses.dataclass(frozen=True)
class Clock:
    """Tells when each frame of a template is shown, without decoding a picture.

    Intervals between frames are the template's own, also backward, so a variable rate is kept. A
    picture that stands for longer than `LONGEST_PICTURE` is repeated at even intervals of at most
    `REPEATED_EVERY`, because lips go on moving meanwhile.

    Attributes:
      time_of: Returns a frame's time in the template, or None past its end.
      interval: Seconds between frames: for a template with a single frame, and for its last frame.
      end: Time in seconds at which to stop; the first frame is always shown.
      start: Time at which the first frame is shown, or None for its own time in the template (later
        than 0 where the sound starts first).
      mode: One of `MODES`.
    """

    time_of: Callable[[int], float | None]
    interval: float
    end: float
    start: float | None = 0.0
    mode: str = "bounce"

    def __iter__(self) -> Iterator[Shown]:
        last = None
        for shown in self._pictures():
            if last is not None:
                yield from self._fill(last, shown.time)
                if shown.time >= self.end:
                    return
            last = shown
        if last is not None:  # the template has ended
            until = last.time + self.interval
            if self.mode == "hold":
                left = math.ceil((self.end - last.time) / REPEATED_EVERY)
                until = max(until, last.time + left * REPEATED_EVERY)
            yield from self._fill(last, until)

    def _fill(self, shown: Shown, until: float) -> Iterator[Shown]:
        """Yields a frame, and again while it stands."""
        pause = until - shown.time
        count = _parts(pause)
        yield shown
        for part in range(1, count):
            time = shown.time + pause * part / count
            if time < self.end:
                yield shown._replace(time=time)

    def _pictures(self) -> Iterator[Shown]:
        """Yields what is shown without repetitions, until the template or the time is over."""
        index, step, lap = 0, 1, 0
        first = _known(self.time_of(0))
        time = first if self.start is None else self.start
        while True:
            yield Shown(time, index, lap)
            if time >= self.end:
                return
            after = index + step
            if after < 0 or self.time_of(after) is None:
                if self.mode in ("cut_off", "hold"):
                    return
                if self.mode == "loop" or self.time_of(1) is None:
                    time, index, lap = time + self.interval, 0, lap + (self.mode == "loop")
                    continue
                step = -step
                after = index + step
            time += abs(_known(self.time_of(after)) - _known(self.time_of(index))) or self.interval
            index = after


def _parts(pause: float) -> int:
    """Returns how often a picture is shown that stands for `pause` seconds."""
    return math.ceil(pause / REPEATED_EVERY - 1e-6) if pause > LONGEST_PICTURE else 1


def filled_rate(fps: float) -> float:
    """Returns the frame rate of the output for a template of a constant rate."""
    return fps * _parts(1 / fps)


def _known(time: float | None) -> float:
    if time is None:
        raise ValueError("a template needs at least one frame")
    return time


class _Clip:
    """The index of a clip (times, timestamps, checksums) and a bounded cache of its frames."""

    def __init__(self, path: PathLike, cache_bytes: int) -> None:
        self._reader = VideoReader(path)
        size = 3 * self._reader.info.width * self._reader.info.height
        self._capacity = max(2, cache_bytes // size)
        self._cache: deque[VideoFrame] = deque(maxlen=self._capacity)
        self._times: list[float] = []
        self._ticks: list[int | None] = []
        self._sums: list[int] = []
        self._index: dict[int, int] = {}  # timestamp -> frame number, if timestamps are usable
        self._seekable = True

    def first_pass(self) -> Iterator[VideoFrame]:
        """Yields frames 0 ... n-1 and builds the index."""
        for time, raw in self._reader.decoded():
            frame = VideoFrame(len(self._times), time, self._reader.to_rgb(raw))
            self._times.append(time)
            self._ticks.append(raw.pts)
            self._sums.append(zlib.crc32(frame.rgb))
            self._cache.append(frame)
            yield frame
        self._index = {tick: i for i, tick in enumerate(self._ticks) if tick is not None}
        self._seekable = len(self._index) == len(self._times)

    def backward(self) -> Iterator[VideoFrame]:
        """Yields frames n-2 ... 0, or the only frame of a clip that has one."""
        stop = len(self._times) - 1
        if stop == 0:
            yield self._cache[0]
        while stop > 0:
            start = self._cache[0].index
            if start >= stop:
                start = max(0, stop - self._capacity)
                self._cache.clear()
                self._cache.extend(self._chunk(start, stop))
            for i in range(stop - 1, start - 1, -1):
                yield self._cache[i - start]
            stop = start

    def forward(self, first: int) -> Iterator[VideoFrame]:
        """Yields frames first ... n-1, which may be none."""
        count = len(self._times)
        if len(self._cache) == count:  # the whole clip is cached
            yield from (self._cache[i] for i in range(first, count))
            return
        self._cache.clear()
        for i, (_, raw) in enumerate(self._reader.decoded()):
            if i >= count:
                return
            frame = VideoFrame(i, self._times[i], self._reader.to_rgb(raw))
            self._cache.append(frame)
            if i >= first:
                yield frame

    def _chunk(self, start: int, stop: int) -> list[VideoFrame]:
        """Decodes frames start ... stop-1 again."""
        if self._seekable:
            for back_off in (0.0, _BACK_OFF_S):
                frames = self._decode_from(start, stop, back_off)
                if frames is not None:
                    return frames
            self._seekable = False
        frames = self._decode_from(start, stop, None)
        if frames is None:
            raise UserError(
                f"{media.display_name(self._reader.path)}: decodes differently each time or was "
                "changed during the run; convert it to an intact mp4 first"
            )
        return frames

    def _decode_from(
        self, start: int, stop: int, back_off: float | None
    ) -> list[VideoFrame] | None:
        """Decodes frames start ... stop-1 after a seek, or from the start of the file.

        Args:
          start, stop: Range of frame numbers.
          back_off: Seconds before frame `start` to seek to, or None to begin at the file's start.

        Returns:
          The frames, or None if what was decoded is not exactly these frames.
        """
        frames: list[VideoFrame] = []
        with media.open_input(self._reader.path) as container:
            stream = media.video_stream(container)
            stream.thread_type = "AUTO"
            if back_off is not None:
                first = max(0, start - interlace.WARM_UP)
                target = self._ticks[first] - round(back_off / stream.time_base)
                try:
                    container.seek(target, stream=stream, backward=True)
                except (av.error.FFmpegError, OSError, ValueError):
                    return None
            pictures = interlace.progressive(media.decode(container, stream, media.Damage()))
            for count, raw in enumerate(pictures):
                i = count if back_off is None else self._index.get(raw.pts, -1)
                if i >= stop or (i > start and not frames):
                    break
                if i < start:
                    continue
                rgb = self._reader.to_rgb(raw)
                if i != start + len(frames) or zlib.crc32(rgb) != self._sums[i]:
                    return None
                frames.append(VideoFrame(i, self._times[i], rgb))
                if i == stop - 1:
                    return frames
        return None
