"""A piece of a video: some seconds of it, a part of its picture."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from talkjax.conventions import SAMPLE_RATE
from talkjax.errors import UserError
from talkjax.media.video import VideoFrame, VideoReader


@dataclasses.dataclass(frozen=True)
class PixelBox:
    """A rectangle of a picture.

    Attributes:
      x, y: its top left corner, px.
      width, height: its size, px.
      frame_height: height in px of the pictures that these numbers are for, 0 if unknown; on
        pictures of another height the rectangle is scaled with them.
    """

    x: int
    y: int
    width: int
    height: int
    frame_height: int = 0

    def crop(self, rgb: np.ndarray) -> np.ndarray:
        """The part of a (H, W, 3) picture that lies inside; what sticks out of it is cut off.

        Raises:
          UserError: nothing of the picture lies inside.
        """
        rows, columns = rgb.shape[:2]
        scale = rows / self.frame_height if self.frame_height else 1.0
        left, right = (round(v * scale) for v in (self.x, self.x + self.width))
        top, bottom = (round(v * scale) for v in (self.y, self.y + self.height))
        part = rgb[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if not part.size:
            raise UserError(
                f"the listed crop {self.width}x{self.height} at ({self.x}, {self.y}) lies outside "
                f"of pictures of {columns}x{rows}; fetch the video at the listed resolution"
            )
        return part


class CutReader:
    """Reads a piece of a video as if it were a file of its own; see `VideoReader`.

    Args:
      reader: of the whole video.
      interval: (start, end) seconds; times count from `start`. None for all of it.
      box: of the picture, or None.
    """

    def __init__(
        self, reader: VideoReader, interval: tuple[float, float] | None, box: PixelBox | None
    ) -> None:
        self._reader, self._interval, self._box = reader, interval, box
        self.info = reader.info

    @property
    def truncated(self) -> bool:
        """As of the whole video, if it was read to its end."""
        return self._reader.truncated

    def __iter__(self) -> Iterator[VideoFrame]:
        start, end = self._interval or (0.0, np.inf)
        index = 0
        for time, frame in self._reader.decoded():
            if time >= end:
                break
            if self._interval and time < start:
                continue
            rgb = self._reader.to_rgb(frame)
            yield VideoFrame(index, time - start, self._box.crop(rgb) if self._box else rgb)
            index += 1
        if not index:
            raise UserError(f"the video ends before second {start:g}, where the clip begins")


def cut_wave(wave: np.ndarray, interval: tuple[float, float]) -> np.ndarray:
    """The samples of (S,) 16 kHz audio between two times in seconds."""
    return wave[slice(*(round(time * SAMPLE_RATE) for time in interval))]
