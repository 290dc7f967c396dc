"""A sheet of one run of the sampler: frames and mouths of template and result, sound, openings."""

import contextlib
import itertools
import os
from collections.abc import Iterator

import cv2
import numpy as np

from talkjax import conventions, head_pose
from talkjax.conventions import MOUTH_REGION, TICKS_PER_SECOND
from talkjax.media import audio, crop
from talkjax.media.detection import Detector, detect_faces
from talkjax.media.video import VideoFrame, VideoReader
from talkjax.metrics import packages, plots, sheets, signals
from talkjax.sampling.faces import Face
from talkjax.sampling.template import Template

_COLUMN_WIDTH = 176  # pixels
_GAP = 2
_LABEL_WIDTH = 50
_LINE_HEIGHT = 18
_SOUND_RATE = 8000  # Hz, enough for an envelope


class RunSheet:
    """Records the beginning of a run (see `add_frame`) and draws it.

    Raises:
      UserError: matplotlib is not installed.
    """

    def __init__(self, seconds: float = 20.0) -> None:
        """Records at most the first `seconds` of the output."""
        packages.require("matplotlib")
        self._seconds = seconds
        self._times: list[float] = []
        self._transforms: list[np.ndarray | None] = []
        self._predicted: list[float] = []
        self._indices: list[int] = []

    def add_frame(
        self, time: float, face: Face | None, landmarks: np.ndarray | None, index: int
    ) -> None:
        """Records the next frame of the output; a callback for `Sampler.generate`.

        Args:
          time: Time of the frame in seconds.
          face: The template's face; None where none was found.
          landmarks: (131, 2) predicted landmarks, or None.
          index: Number of the template's frame.
        """
        if time >= self._seconds:
            return
        self._times.append(time)
        self._indices.append(index)
        self._transforms.append(face and face.transform)
        self._predicted.append(
            np.nan if landmarks is None else float(conventions.mouth_opening(landmarks))
        )

    def draw(
        self, template: Template, out: str | os.PathLike, detector: Detector, columns: int = 8
    ) -> np.ndarray:
        """Draws the sheet.

        Args:
          template: Template of the run.
          out: The finished output with its sound.
          detector: Face detector that measures the openings in the output.
          columns: Number of frames to show, evenly spaced.

        Returns:
          (height, width, 3) uint8.

        Raises:
          UserError: A file cannot be read.
        """
        with_face = [i for i, t in enumerate(self._transforms) if t is not None]
        with_face = with_face or list(range(len(self._times)))
        places = (np.arange(columns) + 0.5) / columns * len(with_face)
        chosen = [with_face[i] for i in sorted({int(place) for place in places})]
        images, measured = [], np.full(len(self._times), np.nan)
        with contextlib.ExitStack() as stack:
            streams = (self._as_shown(template.pictures()), iter(VideoReader(out)))
            for stream in streams:
                stack.enter_context(contextlib.closing(stream))
            pairs = zip(streams[0], _detect(streams[1], detector), strict=False)
            for index, (before, (after, faces)) in enumerate(pairs):
                transform = self._transforms[index]
                if transform is not None:
                    measured[index] = _measure_opening(faces, transform)
                if index in chosen:
                    images.append(_draw_column(before.rgb, after.rgb, transform))
        times = np.array(self._times)
        grid = _arrange_columns(images, times[chosen[: len(images)]])
        end = times[-1] + (times[1] - times[0] if len(times) > 1 else 0.04)
        ticks = max(2, round(end * TICKS_PER_SECOND))
        curves = {
            "predicted": signals.resample_to_ticks(np.array(self._predicted), times, ticks),
            "measured": signals.resample_to_ticks(measured, times, ticks),
        }
        sound = audio.load_audio(out, _SOUND_RATE)[: round(end * _SOUND_RATE)]
        plot = plots.plot_openings(
            curves, "mouth opening / inter-ocular distance", grid.shape[1], sound, _SOUND_RATE,
            times[chosen],
        )  # fmt: skip
        return sheets.stack_images([grid, plot])

    def _as_shown(self, pictures: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yields the template's picture of every recorded frame."""
        last, picture = None, None
        for index in self._indices:
            if index != last:
                last, picture = index, next(pictures)
            yield picture


def _detect(
    frames: Iterator[VideoFrame], detector: Detector
) -> Iterator[tuple[VideoFrame, np.ndarray]]:
    """Yields every frame with its faces."""
    first, second = itertools.tee(frames)
    for detected in detect_faces(first, detector):
        yield next(second), detected.faces


def _measure_opening(faces: np.ndarray, transform: np.ndarray) -> float:
    """Returns the mouth opening of the face that the transform maps to the crop's centre."""
    if not len(faces):
        return np.nan
    points = conventions.select(faces).astype(np.float64)
    centres = head_pose.apply_transforms(points.mean(1)[None], transform[None])[0]
    return float(conventions.mouth_opening(points[np.linalg.norm(centres - 0.5, axis=-1).argmin()]))


def _draw_column(
    before: np.ndarray, after: np.ndarray, transform: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """Returns the frames and the mouths of template and output, all of a column's width."""
    height = max(1, round(before.shape[0] * _COLUMN_WIDTH / before.shape[1]))
    frames = [
        cv2.resize(x, (_COLUMN_WIDTH, height), interpolation=cv2.INTER_AREA)
        for x in (before, after)
    ]
    box = MOUTH_REGION
    size = round(_COLUMN_WIDTH / (box.x1 - box.x0))
    y0, x0, y1, x1 = box.pixels(size)
    if transform is None:
        mouths = [np.full((y1 - y0, x1 - x0, 3), 255, np.uint8)] * 2
    else:
        mouths = [box.cut(crop.warp_crop(x, transform, size)) for x in (before, after)]
    return tuple(x[:, :_COLUMN_WIDTH] for x in (*frames, *mouths))


def _arrange_columns(columns: list[tuple[np.ndarray, ...]], times: np.ndarray) -> np.ndarray:
    heights = [image.shape[0] + _GAP for image in columns[0]]
    width = _LABEL_WIDTH + len(columns) * (_COLUMN_WIDTH + _GAP)
    sheet = np.full((_LINE_HEIGHT + sum(heights), width, 3), 255, np.uint8)
    top = _LINE_HEIGHT
    for label, height in zip(("frame", "result", "mouth", "result"), heights, strict=True):
        sheets.put_text(sheet, label, 2, top + 14)
        top += height
    for number, (images, time) in enumerate(zip(columns, times, strict=True)):
        left, top = _LABEL_WIDTH + number * (_COLUMN_WIDTH + _GAP), _LINE_HEIGHT
        sheets.put_text(sheet, f"{time:.2f} s", left + 2, _LINE_HEIGHT - 5)
        for image, height in zip(images, heights, strict=True):
            rows, columns_ = image.shape[:2]
            sheet[top : top + rows, left : left + columns_] = image
            top += height
    return sheet
