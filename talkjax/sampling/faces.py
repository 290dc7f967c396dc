"""Faces of the template, frame by frame: where the crop is, and its pose.

`FaceTable` reads the template once, only as far ahead as it is asked to. Of every frame it keeps
the time, the transform and the smoothed head motion (under 1 KB), so that a template that is played
again is not detected again. It keeps jaw and lips for the first seconds of each scene alone,
from which its references are chosen, so nothing later can leak from there.

A *scene* is a part of the template that shows one person in one shot. It begins at a cut, or where
another face is followed.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from talkjax import conventions, head_pose
from talkjax.media import tracking

if TYPE_CHECKING:
    from talkjax.media.detection import FrameDetections

MAX_GAP_SECONDS = 0.4  # longest time from one measured face to the next that is interpolated
BREAK_SECONDS = 0.2  # see `longest_pause`


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Face:
    """The face in one frame.

    Attributes:
      transform: (2, 3) float64 transform from frame to crop coordinates, which follows the head.
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


def longest_pause(fps: float) -> float:
    """Returns the longest time in seconds between two frames that are smoothed together."""
    return max(BREAK_SECONDS, 1.5 / fps)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _PendingFace:
    """A tracked face whose transform is not final yet."""

    index: int
    found: bool
    points: np.ndarray | None  # (131, 2) frame pixels of a possible candidate
    thumbnail: np.ndarray | None  # of a possible candidate


class FaceTable:
    """The template's faces by frame number, detected on demand and in order."""

    def __init__(
        self,
        detections: Iterator[FrameDetections],
        fps: float,
        face: str | int = "largest",
        *,
        path: Mapping[int, np.ndarray | None] | None = None,
        first_seconds: float = 10.0,
    ) -> None:
        """Starts a pass over the template.

        Args:
          detections: Output of `detection.detect_faces` for the template's frames.
          fps: Average frame rate.
          face: Which face to follow, see `tracking.parse_face`.
          path: Where the face is known to be, see `tracking.FaceTrack`.
          first_seconds: Seconds of every scene, from its first face on, that references come from.
        """
        self._detections = detections
        self._track = tracking.FaceTrack(face, MAX_GAP_SECONDS, path)
        self._pause = longest_pause(fps)
        self._smoother = head_pose.StreamingHeadPose()
        self._pending: deque[_PendingFace] = deque()  # in the smoother
        self._last: float | None = None  # time of the newest frame in the smoother
        self._times: list[float] = []
        self._faces: list[Face | None] = []
        self._starts = [0]  # first frame of each scene
        self._first_seconds = first_seconds
        self._candidates: dict[int, list[Candidate]] = {}  # by scene, until they are taken
        self._first_times: list[float | None] = [None]  # of the first measured face of each scene
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

    def scene(self, index: int) -> int:
        """Returns the number of a frame's scene, from 0."""
        self.face(index)
        return bisect_right(self._starts, index) - 1

    def scene_frames(self, scene: int) -> tuple[int, int]:
        """Returns the first and the last frame of a scene, as far as it is known."""
        following = self._starts[scene + 1 : scene + 2] or [len(self._faces)]
        return self._starts[scene], following[0] - 1

    def has_face(self) -> bool:
        """Reads ahead to the first measured face; returns False if the template shows none."""
        while not self._ended and not any(time is not None for time in self._first_times):
            self._advance()
        return any(time is not None for time in self._first_times)

    def first_faces(self, scene: int) -> list[Candidate]:
        """Returns the measured faces of a scene up to `first_seconds` after its first one.

        Call it once for each scene, in their order. The list is empty if the scene shows no face.
        """
        while not self._ended and not self._is_complete(scene):
            self._advance()
        for older in [number for number in self._candidates if number < scene]:
            del self._candidates[older]
        return self._candidates.pop(scene, [])

    def _is_complete(self, scene: int) -> bool:
        """Returns whether the first faces of a scene are final."""
        if scene + 1 < len(self._starts) and len(self._faces) >= self._starts[scene + 1]:
            return True
        first = self._first_times[scene] if scene < len(self._first_times) else None
        if first is None or not self._faces:
            return False
        return self._times[len(self._faces) - 1] > first + self._first_seconds

    def _advance(self) -> None:
        frame = next(self._detections, None)
        if frame is None:
            self._ended = True
            self._add(self._track.flush())
            self._finish(*self._smoother.flush())
            return
        self._times.append(frame.time)
        pushed = self._track.push(frame.index, frame.faces, frame.cut, frame.time, frame.pictures)
        self._add(pushed, frame)

    def _add(self, items: list[tracking.TrackItem], frame: FrameDetections | None = None) -> None:
        """Takes items of the track; `frame` is the newest one."""
        for item in items:
            time = self._times[item.index]
            late = self._last is not None and time - self._last > self._pause
            if item.landmarks is None or item.cut or late:
                self._finish(*self._smoother.flush())
                self._last = None
            if item.cut and item.index > 0:
                self._starts.append(item.index)
                self._first_times.append(None)
            if item.landmarks is None:
                self._faces.append(None)
                continue
            rigid = conventions.select(item.landmarks, conventions.RIGID)
            is_first = self._is_first(item, time)
            points = conventions.select(item.landmarks) if is_first else None
            # The newest frame is the only one in a call whose face was measured.
            shown = is_first and frame is not None and len(frame.thumbnails) > 0
            thumbnail = frame.thumbnails[item.number] if shown else None
            self._pending.append(_PendingFace(item.index, item.found, points, thumbnail))
            self._last = time
            drift = None if item.drift is None else item.drift[None]
            self._finish(*self._smoother.push(np.array([time]), rigid[None], drift))

    def _is_first(self, item: tracking.TrackItem, time: float) -> bool:
        """Returns whether a tracked face is a measured one of its scene's first seconds."""
        if not item.found:
            return False
        if self._first_times[-1] is None:
            self._first_times[-1] = time
        return time <= self._first_times[-1] + self._first_seconds

    def _finish(self, transforms: np.ndarray, motions: np.ndarray) -> None:
        """Takes the transforms and motions of the next pending faces."""
        for transform, motion in zip(transforms, motions, strict=True):
            pending = self._pending.popleft()
            face = Face(transform, motion, pending.found)
            self._faces.append(face)
            if pending.points is not None:
                landmarks = head_pose.apply_transforms(pending.points[None], transform[None])[0]
                scene = bisect_right(self._starts, pending.index) - 1
                self._candidates.setdefault(scene, []).append(
                    Candidate(
                        pending.index,
                        self._times[pending.index],
                        face,
                        landmarks.astype(np.float32),
                        pending.thumbnail,
                    )
                )
