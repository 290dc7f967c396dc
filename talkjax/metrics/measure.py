"""Measures a video file: decodes it, finds its face and follows it on one clock.

Generated videos and originals are measured by the same function, so FaceMesh's errors are the same
in both.
"""

import contextlib
import dataclasses
import os
from collections.abc import Generator
from typing import Protocol

import numpy as np

from talkjax import conventions, head_pose
from talkjax.conventions import TICKS_PER_SECOND
from talkjax.media import tracking
from talkjax.media.video import VideoFrame, VideoReader
from talkjax.metrics import signals
from talkjax.sampling.faces import Detector

VERSION = 2  # of the files in a work folder; raise it when a measurement changes
_MAX_GAP_SECONDS = 0.2


class VersionedDetector(Detector, Protocol):
    """A face detector that reports the versions its results depend on.

    Attributes:
      versions: {package: version}.
    """

    versions: dict[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class Measurement:
    """The face in a video file.

    Attributes:
      times: (N,) float64 seconds of the frames from the clip's zero.
      landmarks: (N, 131, 2) float32 landmarks in frame pixels; NaN where no face was found.
      found: (N,) bool. False also where the landmarks are interpolated over a short gap.
      transforms: (N, 2, 3) float64 transforms from frame to crop coordinates
        (`talkjax.media.crop`); NaN where no face was found.
      size: (2,) int64 width and height of the frames in pixels.
    """

    times: np.ndarray
    landmarks: np.ndarray
    found: np.ndarray
    transforms: np.ndarray
    size: np.ndarray

    @property
    def ticks(self) -> int:
        """Number of ticks of 1/25 s that the file covers."""
        return int(np.floor(self.times[-1] * TICKS_PER_SECOND + 1e-3)) + 1

    def crop_landmarks(self) -> np.ndarray:
        """Returns the landmarks of all frames in crop coordinates: (N, 131, 2) float64."""
        return head_pose.apply_transforms(self.landmarks.astype(np.float64), self.transforms)

    def opening(self) -> np.ndarray:
        """Returns the mouth opening at every tick: (ticks,)."""
        openings = conventions.mouth_opening(self.landmarks)
        return signals.resample_to_ticks(openings, self.times, self.ticks)

    def aligned(self) -> np.ndarray:
        """Returns the landmarks in crop coordinates at every tick: (ticks, 131, 2)."""
        return signals.resample_to_ticks(self.crop_landmarks(), self.times, self.ticks)


def read_frames(
    path: str | os.PathLike, seconds: float | None = None
) -> Generator[VideoFrame, None, None]:
    """Yields a file's frames from the clip's zero on, up to `seconds`.

    The file is closed when the generator is exhausted or closed; callers that may stop early close
    it (`contextlib.closing`).
    """
    with contextlib.closing(iter(VideoReader(path))) as frames:
        for frame in frames:
            if seconds is not None and frame.time >= seconds - 1e-6:
                return
            if frame.time >= 0:
                yield frame


def measure_video(
    path: str | os.PathLike, detector: Detector, seconds: float | None = None
) -> Measurement:
    """Runs FaceMesh on a file and tracks the largest face.

    Args:
      path: Video file.
      detector: Face detector; it is reset first.
      seconds: Time at which to stop; None measures the whole file.

    Raises:
      UserError: The file cannot be read.
    """
    reader = VideoReader(path)
    detector.reset()
    cuts = tracking.CutDetector()
    times, faces, breaks = [], [], []
    with contextlib.closing(read_frames(path, seconds)) as frames:
        for frame in frames:
            times.append(frame.time)
            faces.append(detector.detect(frame.rgb))
            breaks.append(cuts.push(frame.rgb))
    gap = max(1, round(_MAX_GAP_SECONDS * reader.info.fps))
    mesh, found, _ = tracking.track_clip(faces, breaks, max_gap=gap, times=np.array(times))
    transforms = np.full((len(times), 2, 3), np.nan)
    visible = np.isfinite(mesh).all((1, 2))
    if visible.any():
        transforms[visible] = head_pose.fit_transforms(mesh[visible], np.array(times)[visible])
    size = np.array([reader.info.width, reader.info.height], np.int64)
    return Measurement(
        np.array(times, np.float64), conventions.select(mesh), found, transforms, size
    )


def save_measurement(path: str | os.PathLike, measurement: Measurement) -> None:
    """Writes a measurement as `.npz`."""
    with open(path, "wb") as file:
        np.savez(file, **dataclasses.asdict(measurement))


def load_measurement(path: str | os.PathLike) -> Measurement:
    """Reads a file that `save_measurement` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Measurement(**{f.name: arrays[f.name] for f in dataclasses.fields(Measurement)})


def match_frames(truth: Measurement, other: Measurement) -> dict[int, int]:
    """Pairs the frames of two files that are shown at the same time.

    Frames of the truth without a face are left out, and so are frames for which the other file
    shows none within half a frame interval.

    Returns:
      {frame number in the truth: frame number in the other file}.
    """
    if not len(other.times) or not len(truth.times):
        return {}
    interval = np.median(np.diff(truth.times)) if len(truth.times) > 1 else 1 / TICKS_PER_SECOND
    matches = {}
    for index in np.flatnonzero(np.isfinite(truth.transforms).all((1, 2))):
        nearest = int(np.argmin(np.abs(other.times - truth.times[index])))
        if abs(other.times[nearest] - truth.times[index]) < 0.5 * interval:
            matches[int(index)] = nearest
    return matches


def read_frame_pairs(
    truth: str | os.PathLike, other: str | os.PathLike, pairs: dict[int, int]
) -> Generator[tuple[int, np.ndarray, np.ndarray], None, None]:
    """Yields the images of frames that `match_frames` paired.

    Yields:
      The frame number in the truth, the truth's image and the other file's image.
    """
    with contextlib.ExitStack() as stack:
        frames, other_frames = (
            stack.enter_context(contextlib.closing(read_frames(path))) for path in (truth, other)
        )
        numbered = enumerate(other_frames)
        position, image = -1, None
        for number, frame in enumerate(frames):
            if number not in pairs:
                continue
            while position < pairs[number]:
                position, other_frame = next(numbered)
                image = other_frame.rgb
            yield number, frame.rgb, image
