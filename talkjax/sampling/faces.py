"""The template's faces, frame by frame: where the crop is and what its pose is.

`FaceTable` reads the template once, as far ahead as it is asked, and keeps of every frame only its
time, its smoothed transform and its smoothed head motion (under 1 KB), so that a ping-pong of any
length detects nothing twice. Jaw and lips are kept for the first seconds alone, from which the
references are chosen: no later answer can leak from there.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from talkjax import conventions, head_pose
from talkjax.media import tracking
from talkjax.media.video import VideoFrame

MAX_GAP_S = 0.4  # longest time without a face that is interpolated
BREAK_S = 0.2  # longest time between two frames that are smoothed together
REACH_S = 3 * head_pose.MOTION_SECONDS + 1e-9  # as `head_pose.smooth` looks around


class Detector(Protocol):
    """`talkjax.media.facemesh.FaceMesh`, or a stand-in."""

    def reset(self) -> None:
        """Forgets earlier frames."""

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to (n, 478, 3) float32 frame pixels."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One frame's face.

    Attributes:
      transform: (2, 3) float64 frame to crop coordinates, smoothed over time.
      motion: (2, 3) float64 smoothed affine motion of the head, template to crop coordinates.
      found: whether it was measured in this frame (else interpolated).
    """

    transform: np.ndarray
    motion: np.ndarray
    found: bool

    def pose(self, shape: np.ndarray) -> np.ndarray:
        """(74, 2) float32 pose points in crop coordinates of a person's `shape` (74, 2)."""
        return head_pose.apply_transforms(shape[None], self.motion[None])[0].astype(np.float32)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A measured face that may become a reference.

    Attributes:
      index: frame number.
      time: seconds.
      face: see `Face`.
      landmarks: (131, 2) float32, crop coordinates; after `first_pass` with the steady pose.
    """

    index: int
    time: float
    face: Face
    landmarks: np.ndarray


def steady(candidates: Sequence[Candidate]) -> tuple[list[Candidate], np.ndarray]:
    """The candidates with steady poses, and the person's (74, 2) shape that they share.

    The counterpart of `head_pose.steady_pose` for footage that streams: the shape comes from the
    candidates, the motion from each face.
    """
    points = np.stack([c.landmarks for c in candidates]).astype(np.float64)
    maps = head_pose.fit_affine(points[:, conventions.positions(conventions.RIGID)])
    shape = head_pose.pose_shape(points[:, : conventions.NUM_POSE], maps)
    content = [c.landmarks[conventions.NUM_POSE :] for c in candidates]
    return [
        dataclasses.replace(c, landmarks=np.concatenate([c.face.pose(shape), own]))
        for c, own in zip(candidates, content, strict=True)
    ], shape


class StreamingSmoother:
    """Smoothed transforms and motions of one unbroken run of frames.

    The streaming form of `head_pose.fit_transforms` and of the motion in `head_pose.steady_pose`,
    with a look-ahead of `REACH_S`.
    """

    def __init__(self) -> None:
        self._times: list[float] = []
        self._parameters: list[np.ndarray] = []
        self._waiting: deque[tuple[float, Any]] = deque()

    def push(self, time: float, points: np.ndarray, item: Any) -> list[tuple[Any, ...]]:
        """Adds a frame.

        Args:
          time: seconds, rising.
          points: (57, 2) `conventions.RIGID`, frame coordinates.
          item: comes back with the frame's transform and motion.

        Returns:
          (item, (2, 3) transform, (2, 3) motion) of the frames that are now certain, in order.
        """
        parameters = np.concatenate(
            [head_pose.fit_similarity(points[None])[0], head_pose.fit_affine(points[None]).ravel()]
        )
        if self._parameters:  # as np.unwrap over the whole run
            last = self._parameters[-1][1]
            parameters[1] = np.unwrap([last, parameters[1]])[1]
        self._times.append(time)
        self._parameters.append(parameters)
        self._waiting.append((time, item))
        ready = []
        while self._waiting[0][0] + REACH_S < time:
            ready.append(self._smoothed())
        if ready:
            old = np.searchsorted(self._times, self._waiting[0][0] - REACH_S)
            del self._times[:old], self._parameters[:old]
        return ready

    def flush(self) -> list[tuple[Any, ...]]:
        """What is left at the run's end; a new run may begin."""
        ready = [self._smoothed() for _ in range(len(self._waiting))]
        self._times, self._parameters = [], []
        return ready

    def _smoothed(self) -> tuple[Any, ...]:
        time, item = self._waiting.popleft()
        values, times = np.array(self._parameters), np.array(self._times)
        at = np.array([time])
        transform = head_pose.transforms_from_parameters(head_pose.smooth(values[:, :4], times, at))
        motion = head_pose.smooth(values[:, 4:], times, at, head_pose.MOTION_SECONDS).reshape(
            1, 2, 3
        )
        motion = head_pose.compose(transform, motion)
        return item, transform[0], motion[0]


class Sight(NamedTuple):
    """What one frame shows: its number, time, (n, 478, 3) faces, and whether a scene begins."""

    index: int
    time: float
    faces: np.ndarray
    cut: bool


def look(frames: Iterable[VideoFrame], detector: Detector) -> Iterator[Sight]:
    """Detects the faces of a template's frames; the detector's tracking is reset first."""
    detector.reset()
    cuts = tracking.CutDetector()
    for frame in frames:
        faces = detector.detect(frame.rgb)
        yield Sight(frame.index, frame.time, faces, cuts.push(frame.rgb))


class FaceTable:
    """Faces of a template by frame number, found as they are asked for, in order."""

    def __init__(self, sights: Iterator[Sight], fps: float, face: str | int = "largest") -> None:
        """Starts a pass.

        Args:
          sights: of the template's frames, in order (`look`).
          fps: average rate of the frames.
          face: see `tracking.parse_face`.
        """
        self._sights = sights
        self._track = tracking.FaceTrack(face, max_gap=max(1, round(MAX_GAP_S * fps)))
        self._break = max(BREAK_S, 1.5 / fps)
        self._smoother = StreamingSmoother()
        self._last: float | None = None  # time of the newest frame in the smoother
        self._times: list[float] = []
        self._faces: list[Face | None] = []
        self._candidates: list[Candidate] | None = []
        self._ended = False
        self.any_face = False

    def time(self, index: int) -> float | None:
        """A frame's time in the template in seconds; None past its end."""
        while index >= len(self._times) and not self._ended:
            self._advance()
        return self._times[index] if index < len(self._times) else None

    def face(self, index: int) -> Face | None:
        """A frame's face; None where there is none, or past the template's end."""
        while index >= len(self._faces) and not self._ended:
            self._advance()
        return self._faces[index] if index < len(self._faces) else None

    def first_pass(self, seconds: float) -> list[Candidate]:
        """Measured faces up to `seconds` after the first of them; call it once, before the rest.

        Empty only if the whole template shows no face.
        """
        found = self._candidates
        while not self._ended and (not found or self._times_known() <= found[0].time + seconds):
            self._advance()
        self._candidates = None
        return [c for c in found if c.time <= found[0].time + seconds]

    def _times_known(self) -> float:
        """Time of the last frame whose face is settled."""
        return self._times[len(self._faces) - 1]

    def _advance(self) -> None:
        sight = next(self._sights, None)
        if sight is None:
            self._ended = True
            self._take(self._track.flush())
            self._settle(self._smoother.flush())
            return
        self._times.append(sight.time)
        self._take(self._track.push(sight.index, sight.faces, sight.cut, sight.time))

    def _take(self, items: list[tracking.TrackItem]) -> None:
        for item in items:
            time = self._times[item.index]
            missing = item.landmarks is None
            if missing or item.cut or (self._last is not None and time - self._last > self._break):
                self._settle(self._smoother.flush())
                self._last = None
            if missing:
                self._faces.append(None)
                continue
            fixed = conventions.select(item.landmarks, conventions.RIGID)
            wanted = self._candidates is not None and item.found
            points = conventions.select(item.landmarks) if wanted else None
            self._last = time
            self._settle(self._smoother.push(time, fixed, (item.index, item.found, points)))

    def _settle(self, ready: list[tuple[Any, ...]]) -> None:
        for (index, found, points), transform, motion in ready:
            face = Face(transform, motion, found)
            self._faces.append(face)
            self.any_face = True
            if self._candidates is not None and points is not None:
                points = head_pose.apply_transforms(points[None], transform[None])[0]
                points = points.astype(np.float32)
                self._candidates.append(Candidate(index, self._times[index], face, points))
