"""Following one face through a clip, and interpolating it where it is missing.

Everything here depends on `conventions.POSE` alone, never on jaw or lips, so that its results
(which frames are used, where a clip is cut) carry no information about the speech.

    track = FaceTrack(face="largest", max_gap=0.4)
    for frame in detection.detect_faces(frames, mesh):
        for item in track.push(frame.index, frame.faces, frame.cut, frame.time, frame.pictures):
            ...  # items come in order, at most `max_gap` seconds late
    for item in track.flush():
        ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from talkjax import conventions
from talkjax.errors import UserError
from talkjax.media.head_motion import HeadMotion

if TYPE_CHECKING:
    from talkjax.media.detection import FrameDetections

# Costs are in face sizes (see `compare_boxes`). From frame to frame, a head moves far less than
# MATCH_LIMIT.
MATCH_LIMIT = 0.5
MATCH_SECONDS = 0.04  # from here on, the limit grows with the time since the face was seen
MATCH_GROWTH = 2.5  # for every second
MATCH_MAX = 1.0
PATIENCE = 0.25  # seconds to wait for a lost face before another is chosen in its place
MEMORY = 2.0  # seconds for which another person is remembered
_ROUNDING = 1e-6  # seconds by which two equal times may differ


class FaceChoiceError(UserError):
    """The parameter `face` does not name a face of the clip."""


def parse_face(face: str | int) -> str | int:
    """Parses the choice of a face: "largest", or a number from left to right, from 0.

    Raises:
      FaceChoiceError: It is neither.
    """
    if face == "largest":
        return "largest"
    if str(face).isdecimal():
        return int(face)
    raise FaceChoiceError(
        f"face={face} is not valid; give 'largest' or a number from 0, left to right"
    )


def pose_boxes(faces: np.ndarray) -> np.ndarray:
    """Returns bounding boxes of the pose points: (..., 478, 2 or 3) -> (..., 4) x0, y0, x1, y1."""
    points = conventions.select(np.asarray(faces), conventions.POSE)
    return np.concatenate([points.min(-2), points.max(-2)], -1).astype(np.float64)


def choose_face(faces: np.ndarray, face: str | int) -> int:
    """Returns the index of the chosen face.

    Args:
      faces: (n, 478, 2 or 3) faces of a frame, n > 0.
      face: "largest", or a number from left to right, from 0.

    Raises:
      FaceChoiceError: There are not that many faces.
    """
    boxes = pose_boxes(faces)
    if face == "largest":
        return int(np.argmax((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
    if not 0 <= face < len(boxes):
        raise FaceChoiceError(
            f"face={face}: the first frame with a face shows {len(boxes)}; "
            f"give a number from 0 to {len(boxes) - 1}, left to right"
        )
    return int(np.argsort(boxes[:, 0] + boxes[:, 2], kind="stable")[face])


def compare_boxes(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Compares boxes (m, 4) and (n, 4): (m, n) distance over size, plus |log size ratio|."""
    old, new = old[:, None], new[None]
    extent = [np.maximum(b[..., 2:] - b[..., :2], 1e-6).mean(-1) for b in (old, new)]
    shift = np.linalg.norm((old[..., :2] + old[..., 2:] - new[..., :2] - new[..., 2:]) / 2, axis=-1)
    return shift * 2 / (extent[0] + extent[1]) + np.abs(np.log(extent[0] / extent[1]))


def match_limit(unseen: np.ndarray | float) -> np.ndarray:
    """Returns the largest cost at which a face is the one that was seen `unseen` seconds ago."""
    grown = MATCH_LIMIT + MATCH_GROWTH * np.maximum(np.asarray(unseen) - MATCH_SECONDS, 0)
    return np.minimum(grown, MATCH_MAX)


@dataclasses.dataclass(eq=False)
class _Person:
    box: np.ndarray  # (4,) where the person was last seen
    seen: float  # seconds


class FaceFollower:
    """Follows the chosen face from frame to frame, independently of other faces.

    Other people are followed as well, so that none of them is taken for the chosen person when that
    person is absent. When the face is lost for more than `PATIENCE` seconds or at a cut, another is
    chosen among the people who are not followed yet, which counts as a jump.

    Args:
      face: "largest", or a number from left to right in the first frame that has faces.
    """

    def __init__(self, face: str | int = "largest"):
        self.face = parse_face(face)
        self._chosen: _Person | None = None
        self._others: list[_Person] = []

    def update(self, faces: np.ndarray, time: float, cut: bool = False) -> tuple[int | None, bool]:
        """Adds the (n, 478, 2 or 3) faces of the next frame, which is shown at `time` seconds.

        Returns:
          The index of the chosen face, or None if it is absent; and whether it jumped.

        Raises:
          FaceChoiceError: The first frame with faces has too few of them.
        """
        boxes = pose_boxes(faces) if len(faces) else np.zeros((0, 4))
        if self._chosen is None:
            if not len(boxes):
                return None, False
            return self._choose(faces, boxes, time, list(range(len(boxes)))), False
        if cut:
            self._others = []
            self._chosen.seen = -np.inf  # its place is meaningless in another scene
            index, free = None, list(range(len(boxes)))
        else:
            index, free = self._associate(boxes, time)
        if index is not None:
            return index, False
        if time - self._chosen.seen > PATIENCE + _ROUNDING and free:
            return self._choose(faces, boxes, time, free), True
        return None, False

    def update_at(
        self, faces: np.ndarray, time: float, box: np.ndarray | None
    ) -> tuple[int | None, bool]:
        """Does the same as `update` where the chosen face is known to be at a box, or absent."""
        if box is None or not len(faces):
            return None, False
        boxes = pose_boxes(faces)
        cost = compare_boxes(box[None], boxes)[0]
        index = int(np.argmin(cost))
        if cost[index] > MATCH_LIMIT:
            return None, False
        self._chosen = _Person(boxes[index], time)
        self._others = [_Person(other, time) for i, other in enumerate(boxes) if i != index]
        return index, False

    def _choose(self, faces, boxes, time: float, among: list[int]) -> int:
        face = self.face
        if self._chosen is not None and face != "largest":  # other scenes may show fewer people
            face = min(face, len(among) - 1)
        index = among[choose_face(np.asarray(faces)[among], face)]
        self._chosen = _Person(boxes[index], time)
        self._others += [_Person(boxes[i], time) for i in among if i != index]
        return index

    def _associate(self, boxes, time: float) -> tuple[int | None, list[int]]:
        """Updates all people; returns the index of the chosen face and the unmatched indices."""
        people = [self._chosen, *self._others]
        cost = compare_boxes(np.array([person.box for person in people]), boxes)
        unseen = np.array([time - person.seen for person in people])
        cost[cost > match_limit(unseen)[:, None]] = np.inf
        chosen = None
        free = set(range(len(boxes)))
        while free and np.isfinite(cost).any():
            who, index = np.unravel_index(np.argmin(cost), cost.shape)
            people[who].box, people[who].seen = boxes[index], time
            chosen = int(index) if who == 0 else chosen
            cost[who], cost[:, index] = np.inf, np.inf
            free.discard(int(index))
        oldest = time - MEMORY - _ROUNDING
        self._others = [person for person in self._others if person.seen >= oldest]
        if chosen is not None:  # whoever appears together with the chosen face is somebody else
            self._others += [_Person(boxes[index], time) for index in sorted(free)]
        return chosen, sorted(free)


@dataclasses.dataclass(frozen=True)
class TrackItem:
    """The tracked face in one frame.

    Attributes:
      index: Frame number, as pushed.
      landmarks: (478, 2 or 3) in frame pixels, or None where the face is missing.
      found: Whether the landmarks were measured in this frame, not interpolated or missing.
      cut: Whether a scene or another face begins with this frame, so that nothing may be smoothed
        or interpolated across its start.
      drift: (4,) drift of the face's fit since the previous frame, see `HeadMotion.push`; None
        where it is unknown.
      number: Which of the frame's faces it is; None where it was not measured.
    """

    index: int
    landmarks: np.ndarray | None
    found: bool
    cut: bool
    drift: np.ndarray | None = None
    number: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """The tracked face in all N frames of a clip.

    Attributes:
      times: (N,) float64 seconds.
      landmarks: (N, 478, 3) float32 frame pixels, NaN where the face is missing.
      found: (N,) bool, False for interpolated and missing frames.
      cuts: (N,) bool, whether a scene or another face begins with the frame.
      drifts: (N, 4) see `HeadMotion.push`; NaN where unknown.
    """

    times: np.ndarray
    landmarks: np.ndarray
    found: np.ndarray
    cuts: np.ndarray
    drifts: np.ndarray

    def runs(self, max_gap: float) -> list[np.ndarray]:
        """Returns the frame numbers of each part that shows one face without interruption.

        Args:
          max_gap: Longest time in seconds between two frames of a part.
        """
        usable = np.isfinite(self.landmarks).all((1, 2))
        pause = np.diff(self.times, prepend=self.times[:1]) > max_gap + _ROUNDING
        begins = self.cuts | ~usable | pause
        groups = np.split(np.arange(len(self.times)), np.flatnonzero(begins[1:]) + 1)
        return [group for group in (group[usable[group]] for group in groups) if len(group)]


class FaceTrack:
    """Follows one face through a clip and interpolates short gaps, in constant memory.

    Items come out in order. A frame without the face waits until the face is seen again, but for at
    most `max_gap` seconds. Longer gaps, gaps at either end and gaps that contain a cut stay
    missing.

    Args:
      face: See `FaceFollower`.
      max_gap: Longest time in seconds, from one measured face to the next, that is interpolated.
      path: {frame number: (4,) box of the chosen face, or None where it is absent} for frames in
        which it is known (`face_choice`).
    """

    def __init__(
        self,
        face: str | int = "largest",
        max_gap: float = 0.5,
        path: Mapping[int, np.ndarray | None] | None = None,
    ):
        self.max_gap, self._path = max_gap, path or {}
        self._follower = FaceFollower(face)
        self._motion = HeadMotion()
        self._anchor: tuple[float, np.ndarray] | None = None  # time and landmarks when last seen
        self._waiting: list[tuple[int, float, bool]] = []  # index, time, cut

    def push(
        self,
        index: int,
        faces: np.ndarray,
        cut: bool,
        time: float,
        pictures: Sequence[np.ndarray] = (),
    ) -> list[TrackItem]:
        """Adds the next frame.

        Args:
          index: Frame number, which is returned with the frame's item.
          faces: (n, 478, 2 or 3) from FaceMesh.
          cut: Whether a scene begins here.
          time: Time of the frame in seconds.
          pictures: n pictures of the upper faces (`head_motion.upper_face`), from which drifts
            are measured, or none.

        Returns:
          The items that have become final.
        """
        time = float(time)
        if index in self._path:
            chosen, jumped = self._follower.update_at(faces, time, self._path[index])
        else:
            chosen, jumped = self._follower.update(faces, time, cut)
        ready = []
        late = self._anchor is not None and time - self._anchor[0] > self.max_gap + _ROUNDING
        if cut or jumped or (late and self._waiting):
            ready += self.flush()
        if chosen is not None:
            landmarks = np.asarray(faces[chosen])
            ready += self._fill(time, landmarks)
            self._anchor = (time, landmarks)
            drift = self._motion.push(pictures[chosen] if pictures else None, cut or jumped)
            ready.append(TrackItem(index, landmarks, True, cut or jumped, drift, chosen))
        else:
            self._waiting.append((index, time, cut))
            self._motion.push(None)
            if self._anchor is None or late:
                ready += self.flush()
        return ready

    def flush(self) -> list[TrackItem]:
        """Ends the open gap and returns its items as missing. Call it at the end of the clip."""
        ready = [TrackItem(index, None, False, cut) for index, _, cut in self._waiting]
        self._waiting, self._anchor = [], None
        return ready

    def _fill(self, time: float, landmarks: np.ndarray) -> list[TrackItem]:
        if not self._waiting:
            return []
        start, first = self._anchor
        items = []
        for index, at, cut in self._waiting:
            weight = (at - start) / (time - start)
            between = (first + weight * (landmarks - first)).astype(landmarks.dtype)
            items.append(TrackItem(index, between, False, cut))
        self._waiting = []
        return items


def track_clip(
    detections: Iterable[FrameDetections], *, face: str | int = "largest", max_gap: float = 0.5
) -> Track:
    """Follows one face through a whole clip; see `FaceTrack`.

    Args:
      detections: Output of `detection.detect_faces` for N frames.
      face: See `FaceFollower`.
      max_gap: See `FaceTrack`.
    """
    track = FaceTrack(face, max_gap)
    items, times = [], []
    for frame in detections:
        times.append(frame.time)
        items += track.push(len(times) - 1, frame.faces, frame.cut, frame.time, frame.pictures)
    items += track.flush()
    landmarks = np.full((len(items), conventions.FACEMESH_POINTS, 3), np.nan, np.float32)
    drifts = np.full((len(items), 4), np.nan)
    for item in items:
        if item.landmarks is not None:
            landmarks[item.index] = item.landmarks
        if item.drift is not None:
            drifts[item.index] = item.drift
    found, cuts = (np.array([getattr(i, name) for i in items], bool) for name in ("found", "cut"))
    return Track(np.array(times, np.float64), landmarks, found, cuts, drifts)
