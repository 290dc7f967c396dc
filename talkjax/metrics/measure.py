"""From a video file to what is measured in it: decode, FaceMesh, one clock.

Generated videos and the truth go through the same function, so whatever FaceMesh gets wrong it gets
wrong in both.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from talkjax import conventions, head_pose
from talkjax.conventions import TICKS_PER_SECOND
from talkjax.media import tracking
from talkjax.media.video import VideoReader
from talkjax.metrics import signals

VERSION = 1  # of what is kept in a work folder: raise it when a measurement changes
_MAX_GAP_SECONDS = 0.2


class Detector(Protocol):
    """Finds faces: `talkjax.media.facemesh.FaceMesh`, or a stand-in."""

    versions: dict[str, str]

    def reset(self) -> None:
        """Forgets the clip before."""

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to (n, 478, 3) frame pixels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Measurement:
    """The face in a video file.

    Attributes:
      times: (N,) float64 seconds from the clip's zero.
      landmarks: (N, 131, 2) float32 frame pixels, NaN where there is no face.
      found: (N,) bool; False too where the landmarks are interpolated over a short gap.
      transforms: (N, 2, 3) float64 frame to crop coordinates (`talkjax.media.crop`), NaN alike.
      size: (2,) int64, width and height of the frames.
    """

    times: np.ndarray
    landmarks: np.ndarray
    found: np.ndarray
    transforms: np.ndarray
    size: np.ndarray

    @property
    def ticks(self) -> int:
        """Ticks of 1/25 s that the file covers."""
        return int(np.floor(self.times[-1] * TICKS_PER_SECOND + 1e-3)) + 1

    def crop_landmarks(self) -> np.ndarray:
        """(N, 131, 2) float64 landmarks of the frames in crop coordinates."""
        return head_pose.apply_transforms(self.landmarks.astype(np.float64), self.transforms)

    def opening(self) -> np.ndarray:
        """(ticks,) mouth opening."""
        return signals.on_clock(conventions.mouth_opening(self.landmarks), self.times, self.ticks)

    def aligned(self) -> np.ndarray:
        """(ticks, 131, 2) landmarks in crop coordinates."""
        return signals.on_clock(self.crop_landmarks(), self.times, self.ticks)


def frames(path: str | os.PathLike, seconds: float | None = None) -> Iterator[Any]:
    """A file's `VideoFrame`s from the clip's zero to `seconds`."""
    for frame in VideoReader(path):
        if seconds is not None and frame.time >= seconds - 1e-6:
            return
        if frame.time >= 0:
            yield frame


def measure(
    path: str | os.PathLike, detector: Detector, seconds: float | None = None
) -> Measurement:
    """Runs FaceMesh over a file and follows the largest face.

    Args:
      path: video file.
      detector: its tracking is reset first.
      seconds: where to stop.

    Raises:
      UserError: the file cannot be read.
    """
    reader = VideoReader(path)
    detector.reset()
    cuts = tracking.CutDetector()
    times, faces, breaks = [], [], []
    for frame in frames(path, seconds):
        times.append(frame.time)
        faces.append(detector.detect(frame.rgb))
        breaks.append(cuts.push(frame.rgb))
    gap = max(1, round(_MAX_GAP_SECONDS * reader.info.fps))
    mesh, found, _ = tracking.track_clip(faces, breaks, max_gap=gap, times=np.array(times))
    transforms = np.full((len(times), 2, 3), np.nan)
    seen = np.isfinite(mesh).all((1, 2))
    if seen.any():
        transforms[seen] = head_pose.fit_transforms(mesh[seen], np.array(times)[seen])
    size = np.array([reader.info.width, reader.info.height], np.int64)
    return Measurement(
        np.array(times, np.float64), conventions.select(mesh), found, transforms, size
    )


def save(path: str | os.PathLike, measurement: Measurement) -> None:
    """Writes a measurement as `.npz`."""
    with open(path, "wb") as file:
        np.savez(file, **dataclasses.asdict(measurement))


def load(path: str | os.PathLike) -> Measurement:
    """Reads what `save` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Measurement(**{f.name: arrays[f.name] for f in dataclasses.fields(Measurement)})


def matches(truth: Measurement, other: Measurement) -> dict[int, int]:
    """{frame of the truth: frame of the other file that is shown at the same time}.

    Frames without a face in the truth are left out, and those that the other file does not show
    within half an interval.
    """
    if not len(other.times) or not len(truth.times):
        return {}
    interval = np.median(np.diff(truth.times)) if len(truth.times) > 1 else 1 / TICKS_PER_SECOND
    out = {}
    for index in np.flatnonzero(np.isfinite(truth.transforms).all((1, 2))):
        nearest = int(np.argmin(np.abs(other.times - truth.times[index])))
        if abs(other.times[nearest] - truth.times[index]) < 0.5 * interval:
            out[int(index)] = nearest
    return out


def paired_frames(
    truth: str | os.PathLike, other: str | os.PathLike, pairs: dict[int, int]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Streams (frame number of the truth, its picture, the other's) of `matches`."""
    others = enumerate(frames(other))
    at, picture = -1, None
    for number, frame in enumerate(frames(truth)):
        if number not in pairs:
            continue
        while at < pairs[number]:
            at, held = next(others)
            picture = held.rgb
        yield number, frame.rgb, picture
