"""The template: a video, or one photograph shown at 25 frames a second."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import container, playback
from talkjax.media import image as image_file
from talkjax.media.video import VideoFrame, VideoReader
from talkjax.media.video_writer import VideoWriter
from talkjax.sampling.options import Options

IMAGE_FPS = 25.0


class Template(Protocol):
    """Interface of a template.

    Attributes:
      name: Name for messages.
      size: (width, height) in pixels.
      fps: Average frame rate.
      endless: Whether it lasts for any time, as a photograph does.
    """

    name: str
    size: tuple[int, int]
    fps: float
    endless: bool

    def frames(self) -> Iterator[VideoFrame]:
        """Yields all frames once, forward. It may be called again, and run beside `pictures`."""

    def pictures(self) -> Iterator[VideoFrame]:
        """Yields the frames as they are played, see `playback.iterate_pictures`."""

    def truncated(self) -> bool:
        """Returns whether a finished pass of `frames` found the file truncated or damaged."""

    def notes(self) -> list[str]:
        """Returns what a user should know of how the frames differ from the file's, in lines."""

    def writer(self, out: PathLike, **options: Any) -> VideoWriter:
        """Opens a writer for the template's size, rate and colours."""


class VideoTemplate:
    """A video file."""

    endless = False

    def __init__(
        self,
        path: PathLike,
        pixel_cache: int = Options.pixel_cache,
        sync_mode: str = Options.sync_mode,
    ) -> None:
        """Opens the video; raises `UserError` if it cannot be read."""
        self._path, self._pixel_cache, self._mode = path, pixel_cache, sync_mode
        self._info = VideoReader(path).info
        self._truncated = False
        self.name = container.display_name(path)
        self.size = self._info.width, self._info.height
        self.fps = self._info.fps

    def frames(self) -> Iterator[VideoFrame]:  # noqa: D102
        reader = VideoReader(self._path)
        yield from reader
        self._truncated = self._truncated or reader.truncated

    def pictures(self) -> Iterator[VideoFrame]:  # noqa: D102
        return playback.iterate_pictures(self._path, self._mode, self._pixel_cache)

    def truncated(self) -> bool:  # noqa: D102
        return self._truncated

    def notes(self) -> list[str]:  # noqa: D102
        return self._info.notes()

    def writer(self, out: PathLike, **options: Any) -> VideoWriter:  # noqa: D102
        settings = {"fps": playback.filled_rate(self.fps)}
        return VideoWriter.like(out, self._info, **(settings | options))


class ImageTemplate:
    """One photograph."""

    endless = True

    def __init__(self, path: PathLike) -> None:
        """Reads the photograph; raises `UserError` if it cannot be read."""
        photograph = image_file.read_photograph(path)
        self._frame = VideoFrame(0, 0.0, photograph.rgb)
        self._transparent = photograph.transparent
        height, width = self._frame.rgb.shape[:2]
        self.name = container.display_name(path)
        self.size = width, height
        self.fps = IMAGE_FPS

    def frames(self) -> Iterator[VideoFrame]:  # noqa: D102
        return iter([self._frame])

    def pictures(self) -> Iterator[VideoFrame]:  # noqa: D102
        return itertools.repeat(self._frame)

    def truncated(self) -> bool:  # noqa: D102
        return False

    def notes(self) -> list[str]:  # noqa: D102
        if not self._transparent:
            return []
        return ["the photograph is partly transparent; the result shows it on white"]

    def writer(self, out: PathLike, **options: Any) -> VideoWriter:  # noqa: D102
        return VideoWriter(out, *self.size, self.fps, **options)


def open_template(
    video: PathLike | None,
    image: PathLike | None,
    pixel_cache: int = Options.pixel_cache,
    sync_mode: str = Options.sync_mode,
) -> Template:
    """Opens the template that exactly one of the two paths names.

    Args:
      video: A video, or a photograph.
      image: A photograph.
      pixel_cache: See `Options`.
      sync_mode: See `Options`.

    Raises:
      UserError: Neither or both are given, or the file cannot be read.
    """
    if image is not None and video is None:
        return ImageTemplate(image)
    if video is not None and image is None:
        if image_file.is_photograph(video):
            return ImageTemplate(video)
        return VideoTemplate(video, pixel_cache, sync_mode)
    raise UserError("one template is required; give either video=FILE or image=FILE")
