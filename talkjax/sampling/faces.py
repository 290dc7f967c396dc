"""Faces of the template, frame by frame: where the crop is, and its pose.

`FaceTable` reads the template once, only as far ahead as it is asked to. Of every frame it keeps
the time, the smoothed transform and the smoothed head motion (under 1 KB), so that a ping-pong of
any length detects no frame twice. It keeps jaw and lips for the first seconds alone, from which the
references are chosen, so nothing later can leak from there.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from talkjax import conventions, head_pose
from talkjax.media import tracking

if TYPE_CHECKING:
    from talkjax.media.video import VideoFrame

MAX_GAP_SECONDS = 0.4  # longest time without a face that is interpolated
BREAK_SECONDS = 0.2  # longest time between two frames that are smoothed together


class Detector(Protocol):
    """Interface of a face detector: `talkjax.media.facemesh.FaceMesh` or a stand-in."""

    def reset(self) -> None:
        """Forgets earlier frames."""

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        """Detects the faces of a (H, W, 3) uint8 frame: (n, 478, 3) float32 frame pixels."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Face:
    """The face in one frame.

    Attributes:
      transform: (2, 3) float64 transform from frame to crop coordinates, smoothed over time.
      motion: (2, 3) float64 affine motion of the head, from template to crop coordinates, smoothed
        over time.
      found: Whether the face was measured in this frame; otherwise it is interpolated.
    """

    transform: np.ndarray
    motion: np.ndarray
    found: bool

    def pose(self, shape: np.ndarray) -> np.ndarray:
        """Places a person's pose points (74, 2) in this frame's crop: (74, 2) float32."""
        return head_pose.apply_transforms(shape[None], self.motion[None])[0].astype(np.float32)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A measured face that may become a reference.

    Attributes:
      index: Frame number.
      time: Time in seconds.
      face: The frame's `Face`.
      landmarks: (131, 2) float32, crop coordinates. The pose points are as measured until
        `normalize_candidates` replaces them.
      thumbnail: (64, 64, 3) uint8 crop of the face (`appearance.THUMBNAIL`).
    """

    index: int
    time: float
    face: Face
    landmarks: np.ndarray
    thumbnail: np.ndarray | None = None


def normalize_candidates(
    candidates: Sequence[Candidate],
) -> tuple[list[Candidate], np.ndarray]:
    """Replaces the candidates' pose points as `head_pose.normalize_pose` does.

    Returns:
      The candidates with normalized poses, and the (74, 2) shape at rest that they share.
    """
    landmarks = np.stack([c.landmarks for c in candidates]).astype(np.float64)
    shape = head_pose.pose_shape(landmarks)
    normalized = [
        dataclasses.replace(
            c, landmarks=np.concatenate([c.face.pose(shape), c.landmarks[conventions.NUM_POSE :]])
        )
        for c in candidates
    ]
    return normalized, shape


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FrameDetections:
    """What was detected in one frame.

    Attributes:
      index: Frame number.
      time: Time in seconds.
      faces: (n, 478, 3) FaceMesh points of every face, frame pixels.
      cut: Whether a scene begins with this frame.
      thumbnails: (n, 64, 64, 3) uint8 crops of the faces.
    """

    index: int
    time: float
    faces: np.ndarray
    cut: bool
    thumbnails: np.ndarray | None = None


def detect_faces(frames: Iterable[VideoFrame], detector: Detector) -> Iterator[FrameDetections]:
    """Detects the faces and scene cuts of a template's frames, after resetting the detector."""
    from talkjax.media import appearance, crop  # they need OpenCV, which the API loads lazily

    detector.reset()
    cuts = tracking.CutDetector()
    for frame in frames:
        faces = detector.detect(frame.rgb)
        thumbnails = crop.cut_faces(frame.rgb, faces, appearance.THUMBNAIL)
        yield FrameDetections(frame.index, frame.time, faces, cuts.push(frame.rgb), thumbnails)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _PendingFace:
    """A tracked face whose smoothed transform is not final yet."""

    index: int
    found: bool
    points: np.ndarray | None  # (131, 2) frame pixels of a possible candidate
    thumbnail: np.ndarray | None  # of a possible candidate


class FaceTable:
    """The template's faces by frame number, detected on demand and in order."""

    def __init__(
        self, detections: Iterator[FrameDetections], fps: float, face: str | int = "largest"
    ) -> None:
        """Starts a pass over the template.

        Args:
          detections: Output of `detect_faces` for the template's frames.
          fps: Average frame rate.
          face: Which face to follow, see `tracking.parse_face`.
        """
        self._detections = detections
        self._track = tracking.FaceTrack(face, max_gap=max(1, round(MAX_GAP_SECONDS * fps)))
        self._break = max(BREAK_SECONDS, 1.5 / fps)
        self._smoother = head_pose.StreamingHeadPose()
        self._pending: deque[_PendingFace] = deque()  # in the smoother
        self._last: float | None = None  # time of the newest frame in the smoother
        self._times: list[float] = []
        self._faces: list[Face | None] = []
        self._candidates: list[Candidate] | None = []
        self._ended = False

    def time(self, index: int) -> float | None:
        """Returns a frame's time in the template in seconds, or None past its end."""
        while index >= len(self._times) and not self._ended:
            self._advance()
        return self._times[index] if index < len(self._times) else None

    def face(self, index: int) -> Face | None:
        """Returns a frame's face, or None where there is none or past the template's end."""
        while index >= len(self._faces) and not self._ended:
            self._advance()
        return self._faces[index] if index < len(self._faces) else None

    def first_pass(self, seconds: float) -> list[Candidate]:
        """Returns the measured faces up to `seconds` after the first one.

        Call it once, before the other methods. The list is empty only if the whole template shows
        no face.
        """
        found = self._candidates
        if found is None:
            raise RuntimeError("first_pass can be called only once")
        while not self._ended and (not found or self._last_time() <= found[0].time + seconds):
            self._advance()
        self._candidates = None
        return [c for c in found if c.time <= found[0].time + seconds]

    def _last_time(self) -> float:
        """Time of the last frame whose face is final."""
        return self._times[len(self._faces) - 1]

    def _advance(self) -> None:
        frame = next(self._detections, None)
        if frame is None:
            self._ended = True
            self._add(self._track.flush())
            self._finish(*self._smoother.flush())
            return
        self._times.append(frame.time)
        self._add(self._track.push(frame.index, frame.faces, frame.cut, frame.time), frame)

    def _add(self, items: list[tracking.TrackItem], frame: FrameDetections | None = None) -> None:
        """Takes items of the track; `frame` is the newest one, the only one measured in a call."""
        for item in items:
            time = self._times[item.index]
            late = self._last is not None and time - self._last > self._break
            if item.landmarks is None or item.cut or late:
                self._finish(*self._smoother.flush())
                self._last = None
            if item.landmarks is None:
                self._faces.append(None)
                continue
            rigid = conventions.select(item.landmarks, conventions.RIGID)
            is_candidate = self._candidates is not None and item.found
            points = conventions.select(item.landmarks) if is_candidate else None
            thumbnail = _thumbnail_of(item.landmarks, frame) if is_candidate else None
            self._pending.append(_PendingFace(item.index, item.found, points, thumbnail))
            self._last = time
            self._finish(*self._smoother.push(np.array([time]), rigid[None]))

    def _finish(self, transforms: np.ndarray, motions: np.ndarray) -> None:
        """Takes the transforms and motions of the next pending faces."""
        for transform, motion in zip(transforms, motions, strict=True):
            pending = self._pending.popleft()
            face = Face(transform, motion, pending.found)
            self._faces.append(face)
            if self._candidates is not None and pending.points is not None:
                landmarks = head_pose.apply_transforms(pending.points[None], transform[None])[0]
                self._candidates.append(
                    Candidate(
                        pending.index,
                        self._times[pending.index],
                        face,
                        landmarks.astype(np.float32),
                        pending.thumbnail,
                    )
                )


def _thumbnail_of(landmarks: np.ndarray, frame: FrameDetections | None) -> np.ndarray | None:
    """Returns the thumbnail of the face of a frame that has these landmarks."""
    if frame is None or frame.thumbnails is None:
        return None
    return frame.thumbnails[np.abs(frame.faces - landmarks).max((1, 2)).argmin()]
