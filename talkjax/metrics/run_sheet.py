"""A picture of one run of the sampler: template above result, mouths, sound and opening below."""

import os

import cv2
import numpy as np

from talkjax import conventions, head_pose
from talkjax.conventions import MOUTH_REGION, TICKS_PER_SECOND
from talkjax.media import audio, crop
from talkjax.media.video import VideoReader
from talkjax.metrics import sheets, signals
from talkjax.metrics.measure import Detector
from talkjax.sampling.faces import Face
from talkjax.sampling.template import Template

_COLUMN = 176  # px
_GAP = 2
_LABEL = 50  # left of the pictures and of the curves (`sheets.plot`)
_RIGHT = 15  # as `sheets.plot`
_LINE = 18
_WAVE = 64
_WAVE_RATE = 8000  # Hz, enough for an envelope


class RunSheet:
    """Remembers the beginning of a run (`Sampler.generate(callback=sheet.watch)`), and draws it."""

    def __init__(self, seconds: float = 20.0) -> None:
        """`seconds`: how much of the output is shown at most."""
        self._seconds = seconds
        self._times: list[float] = []
        self._transforms: list[np.ndarray | None] = []
        self._wanted: list[float] = []

    def watch(self, at: float, face: Face | None, landmarks: np.ndarray | None) -> None:
        """Takes the next frame of the output, as `Sampler.generate` tells of it."""
        if at >= self._seconds:
            return
        self._times.append(at)
        self._transforms.append(face and face.transform)
        self._wanted.append(
            np.nan if landmarks is None else float(conventions.mouth_opening(landmarks))
        )

    def draw(
        self, template: Template, out: str | os.PathLike, detector: Detector, columns: int = 8
    ) -> np.ndarray:
        """The sheet: (height, width, 3) uint8.

        Args:
          template: as it was used.
          out: the finished output, with its sound.
          detector: measures the openings in it.
          columns: frames to show, evenly spaced.

        Raises:
          UserError: a file cannot be read.
        """
        made = [i for i, t in enumerate(self._transforms) if t is not None]
        made = made or list(range(len(self._times)))
        places = (np.arange(columns) + 0.5) / columns * len(made)
        chosen = [made[i] for i in sorted({int(place) for place in places})]
        pictures, measured = [], np.full(len(self._times), np.nan)
        detector.reset()
        for index, (before, after) in enumerate(
            zip(template.pingpong(), VideoReader(out), strict=False)
        ):
            if index == len(self._times):
                break
            transform = self._transforms[index]
            if transform is not None:
                measured[index] = _opening(detector.detect(after.rgb), transform)
            if index in chosen:
                pictures.append(_column(before.rgb, after.rgb, transform))
        times = np.array(self._times)
        grid = _grid(pictures, times[chosen[: len(pictures)]])
        end = times[-1] + (times[1] - times[0] if len(times) > 1 else 0.04)
        wave = _waveform(out, end, grid.shape[1], times[chosen])
        ticks = max(2, round(end * TICKS_PER_SECOND))
        curves = {
            "wanted": signals.on_clock(np.array(self._wanted), times, ticks),
            "measured": signals.on_clock(measured, times, ticks),
        }
        plot = sheets.plot(curves, "opening of the mouth / distance of the eyes", grid.shape[1])
        return sheets.stack([grid, wave, plot])


def _opening(faces: np.ndarray, transform: np.ndarray) -> float:
    """Opening of the mouth of the face that the transform puts into the crop's middle."""
    if not len(faces):
        return np.nan
    points = conventions.select(faces).astype(np.float64)
    centres = head_pose.apply_transforms(points.mean(1)[None], transform[None])[0]
    return float(conventions.mouth_opening(points[np.linalg.norm(centres - 0.5, axis=-1).argmin()]))


def _column(
    before: np.ndarray, after: np.ndarray, transform: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """Whole frames and mouths of template and output, all as wide as a column."""
    height = max(1, round(before.shape[0] * _COLUMN / before.shape[1]))
    whole = [
        cv2.resize(x, (_COLUMN, height), interpolation=cv2.INTER_AREA) for x in (before, after)
    ]
    box = MOUTH_REGION
    size = round(_COLUMN / (box.x1 - box.x0))
    y0, x0, y1, x1 = box.pixels(size)
    if transform is None:
        mouths = [np.full((y1 - y0, x1 - x0, 3), 255, np.uint8)] * 2
    else:
        mouths = [box.cut(crop.warp_crop(x, transform, size)) for x in (before, after)]
    return tuple(x[:, :_COLUMN] for x in (*whole, *mouths))


def _grid(columns: list[tuple[np.ndarray, ...]], times: np.ndarray) -> np.ndarray:
    heights = [picture.shape[0] + _GAP for picture in columns[0]]
    shape = _LINE + sum(heights), _LABEL + len(columns) * (_COLUMN + _GAP) + _RIGHT, 3
    sheet = np.full(shape, 255, np.uint8)
    top = _LINE
    for label, height in zip(("frame", "result", "mouth", "result"), heights, strict=True):
        sheets.put_text(sheet, label, 2, top + 14)
        top += height
    for number, (pictures, time) in enumerate(zip(columns, times, strict=True)):
        left, top = _LABEL + number * (_COLUMN + _GAP), _LINE
        sheets.put_text(sheet, f"{time:.2f} s", left + 2, _LINE - 5)
        for picture, height in zip(pictures, heights, strict=True):
            rows, width = picture.shape[:2]
            sheet[top : top + rows, left : left + width] = picture
            top += height
    return sheet


def _waveform(path: str | os.PathLike, seconds: float, width: int, marks: np.ndarray) -> np.ndarray:
    """Envelope of a file's first seconds, above the curves; lines where the pictures are."""
    image = np.full((_WAVE, width, 3), 255, np.uint8)
    pixels, middle = width - _LABEL - _RIGHT, _WAVE // 2
    total = max(1, round(seconds * _WAVE_RATE))
    wave = audio.load_audio(path, _WAVE_RATE)[:total]
    wave = np.pad(wave, (0, total - len(wave)))
    peak = max(float(np.abs(wave).max()), 1e-3)
    for time in marks:
        x = _LABEL + round(time / seconds * pixels)
        cv2.line(image, (x, 0), (x, _WAVE), (200, 200, 200), 1)
    starts = np.linspace(0, total, pixels, endpoint=False).astype(int)
    heights = np.maximum.reduceat(np.abs(wave), starts) / peak * (middle - 2)
    for x, height in enumerate(heights, _LABEL):
        cv2.line(image, (x, middle - round(height)), (x, middle + round(height)), (120, 120, 120))
    sheets.put_text(image, "sound", 2, middle + 4)
    return image
