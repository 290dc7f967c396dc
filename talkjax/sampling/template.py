"""The template: a video, or one photograph shown at 25 frames a second; and its ping-pong clock."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from talkjax.errors import UserError
from talkjax.media import container, image
from talkjax.media.pingpong import iterate_pingpong
from talkjax.media.video import VideoFrame, VideoReader
from talkjax.media.video_writer import VideoWriter

IMAGE_FPS = 25.0
PIXEL_CACHE = 256 << 20  # bytes of decoded frames that a ping-pong may keep


class Template(Protocol):
    """What the pipeline needs of a template.

    Attributes:
      name: for messages.
      size: (width, height) px.
      fps: average frame rate.
    """

    name: str
    size: tuple[int, int]
    fps: float

    def frames(self) -> Iterator[VideoFrame]:
        """All frames once, forward; may be called again, and run beside `forever`."""

    def forever(self) -> Iterator[VideoFrame]:
        """Frames 0, 1, ..., n-1, n-2, ..., 0, 1, ... without end."""

    def truncated(self) -> bool:
        """Whether a finished pass of `frames` found the file cut short or damaged."""

    def writer(self, out: str | os.PathLike, **options: Any) -> VideoWriter:
        """A writer of the template's size, rate and colours."""


class VideoTemplate:
    """A video file."""

    def __init__(self, path: str | os.PathLike, pixel_cache: int = PIXEL_CACHE) -> None:
        """Raises `UserError` if it cannot be read."""
        self._path, self._pixel_cache = path, pixel_cache
        self._info = VideoReader(path).info
        self._truncated = False
        self.name = container.display_name(path)
        self.size = self._info.width, self._info.height
        self.fps = self._info.fps

    def frames(self) -> Iterator[VideoFrame]:  # noqa: D102
        reader = VideoReader(self._path)
        yield from reader
        self._truncated = self._truncated or reader.truncated

    def forever(self) -> Iterator[VideoFrame]:  # noqa: D102
        return iterate_pingpong(self._path, self._pixel_cache)

    def truncated(self) -> bool:  # noqa: D102
        return self._truncated

    def writer(self, out: str | os.PathLike, **options: Any) -> VideoWriter:  # noqa: D102
        return VideoWriter.like(out, self._info, **options)


class ImageTemplate:
    """One photograph."""

    def __init__(self, path: str | os.PathLike) -> None:
        """Raises `UserError` if it cannot be read."""
        self._frame = VideoFrame(0, 0.0, image.read_image(path))
        self.name = container.display_name(path)
        self.size = self._frame.rgb.shape[1::-1]
        self.fps = IMAGE_FPS

    def frames(self) -> Iterator[VideoFrame]:  # noqa: D102
        return iter([self._frame])

    def forever(self) -> Iterator[VideoFrame]:  # noqa: D102
        return itertools.repeat(self._frame)

    def truncated(self) -> bool:  # noqa: D102
        return False

    def writer(self, out: str | os.PathLike, **options: Any) -> VideoWriter:  # noqa: D102
        return VideoWriter(out, *self.size, self.fps, **options)


def open_template(
    video: str | os.PathLike | None,
    image: str | os.PathLike | None,
    pixel_cache: int = PIXEL_CACHE,
) -> Template:
    """The template that exactly one of the two paths names.

    Raises:
      UserError: none or both are given; the file cannot be read.
    """
    if (video is None) == (image is None):
        raise UserError("give a template: either --video=FILE or --image=FILE")
    return ImageTemplate(image) if video is None else VideoTemplate(video, pixel_cache)


def pingpong_clock(
    time_of: Callable[[int], float | None],
    *,
    interval: float,
    end: float,
    start: float | None = 0.0,
) -> Iterator[tuple[float, int]]:
    """When each frame of a ping-pong is shown, without touching a picture.

    Intervals between frames are the template's own, also backward, so a variable rate is kept.

    Args:
      time_of: a frame's time in the template, None past its end.
      interval: between frames where the template has only one.
      end: frames that would be shown from then on are left out; there is always a first one.
      start: when the first frame is shown; its own time if None.

    Yields:
      (seconds, frame number).
    """
    index, step = 0, 1
    time = time_of(0) if start is None else start
    while True:
        yield time, index
        after = index + step
        if after < 0 or time_of(after) is None:
            step = -step
            after = index + step
        if after < 0 or time_of(after) is None:  # a single frame
            after = index
        time += abs(time_of(after) - time_of(index)) or interval
        index = after
        if time >= end:
            return
