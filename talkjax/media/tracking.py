"""Following one face through a clip, and interpolating it where it is missing.

Everything here depends on `conventions.POSE` alone, never on jaw or lips, so that its results
(which frames are used, where a clip is cut) carry no information about the speech.

    track = FaceTrack(face="largest", max_gap=12)
    cuts = CutDetector()
    for index, rgb in enumerate(frames):
        for item in track.push(index, mesh.detect(rgb), cut=cuts.push(rgb)):
            ...  # items come in order, at most `max_gap` frames late
    for item in track.flush():
        ...
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from talkjax import conventions
from talkjax.errors import UserError

# Costs are in face sizes (see `_cost`). Within a frame, a head moves far less than MATCH_LIMIT.
MATCH_LIMIT = 0.5
MATCH_GROWTH = 0.1  # for every frame in which the face was not seen
MATCH_MAX = 1.0
PATIENCE = 6  # frames to wait for a lost face before another is chosen in its place
MEMORY = 50  # frames for which another person is remembered

# Mean change of a 24 x 24 thumbnail with colours in [0, 1]. Measured changes are at most 0.016
# between frames of talking-head footage and at least 0.05 between different people in one studio.
CUT_CHANGE = 0.035
CUT_RATIO = 5.0  # times the recent change, so that a moving camera is not taken for a cut


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


def _cost(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Compares boxes (m, 4) and (n, 4): (m, n) distance over size, plus |log size ratio|."""
    old, new = old[:, None], new[None]
    extent = [np.maximum(b[..., 2:] - b[..., :2], 1e-6).mean(-1) for b in (old, new)]
    shift = np.linalg.norm((old[..., :2] + old[..., 2:] - new[..., :2] - new[..., 2:]) / 2, axis=-1)
    return shift * 2 / (extent[0] + extent[1]) + np.abs(np.log(extent[0] / extent[1]))


@dataclasses.dataclass(eq=False)
class _Person:
    box: np.ndarray  # (4,) where the person was last seen
    unseen: int = 0  # frames since then


class FaceFollower:
    """Follows the chosen face from frame to frame, independently of other faces.

    Other people are followed as well, so that none of them is taken for the chosen person when that
    person is absent. When the face is lost for more than `PATIENCE` frames or at a cut, another is
    chosen among the people who are not followed yet, which counts as a jump.

    Args:
      face: "largest", or a number from left to right in the first frame that has faces.
    """

    def __init__(self, face: str | int = "largest"):
        self.face = parse_face(face)
        self._chosen: _Person | None = None
        self._others: list[_Person] = []

    def update(self, faces: np.ndarray, cut: bool = False) -> tuple[int | None, bool]:
        """Adds the (n, 478, 2 or 3) faces of the next frame.

        Returns:
          The index of the chosen face, or None if it is absent; and whether it jumped.

        Raises:
          FaceChoiceError: The first frame with faces has too few of them.
        """
        boxes = pose_boxes(faces) if len(faces) else np.zeros((0, 4))
        if self._chosen is None:
            if not len(boxes):
                return None, False
            return self._choose(faces, boxes, list(range(len(boxes)))), False
        if cut:
            self._others = []
            self._chosen.unseen = PATIENCE + 1  # its place is meaningless in another scene
            index, free = None, list(range(len(boxes)))
        else:
            index, free = self._associate(boxes)
        if index is not None:
            return index, False
        if self._chosen.unseen > PATIENCE and free:
            return self._choose(faces, boxes, free), True
        return None, False

    def _choose(self, faces, boxes, among: list[int]) -> int:
        face = self.face
        if self._chosen is not None and face != "largest":  # other scenes may show fewer people
            face = min(face, len(among) - 1)
        index = among[choose_face(np.asarray(faces)[among], face)]
        self._chosen = _Person(boxes[index])
        self._others += [_Person(boxes[i]) for i in among if i != index]
        return index

    def _associate(self, boxes) -> tuple[int | None, list[int]]:
        """Updates all people; returns the index of the chosen face and the unmatched indices."""
        people = [self._chosen, *self._others]
        cost = _cost(np.array([person.box for person in people]), boxes)
        grown = MATCH_LIMIT + MATCH_GROWTH * np.array([person.unseen for person in people])
        cost[cost > np.minimum(grown, MATCH_MAX)[:, None]] = np.inf
        for person in people:
            person.unseen += 1
        chosen = None
        free = set(range(len(boxes)))
        while free and np.isfinite(cost).any():
            who, index = np.unravel_index(np.argmin(cost), cost.shape)
            people[who].box, people[who].unseen = boxes[index], 0
            chosen = int(index) if who == 0 else chosen
            cost[who], cost[:, index] = np.inf, np.inf
            free.discard(int(index))
        self._others = [person for person in self._others if person.unseen <= MEMORY]
        if chosen is not None:  # whoever appears together with the chosen face is somebody else
            self._others += [_Person(boxes[index]) for index in sorted(free)]
        return chosen, sorted(free)


class CutDetector:
    """Detects scene cuts by comparing small thumbnails of consecutive frames."""

    def __init__(self):
        self._last: np.ndarray | None = None
        self._recent: list[float] = []

    def push(self, rgb: np.ndarray) -> bool:
        """Adds the next (H, W, 3) uint8 frame and returns whether a new scene begins with it."""
        height, width = rgb.shape[:2]
        rows = (np.arange(96) + 0.5) * height / 96
        columns = (np.arange(96) + 0.5) * width / 96
        sample = rgb[rows.astype(int)[:, None], columns.astype(int)].astype(np.float32) / 255
        thumbnail = sample.reshape(24, 4, 24, 4, 3).mean((1, 3))
        last, self._last = self._last, thumbnail
        if last is None:
            return False
        change = float(np.abs(thumbnail - last).mean())
        # At the start there is no recent change, so only a clear change of scene counts.
        usual = np.mean(self._recent) if self._recent else CUT_CHANGE
        if change > max(CUT_CHANGE, CUT_RATIO * usual):
            self._recent = []
            return True
        self._recent = [*self._recent[-7:], change]
        return False


@dataclasses.dataclass(frozen=True)
class TrackItem:
    """The tracked face in one frame.

    Attributes:
      index: Frame number, as pushed.
      landmarks: (478, 2 or 3) in frame pixels, or None where the face is missing.
      found: Whether the landmarks were measured in this frame, not interpolated or missing.
      cut: Whether a scene or another face begins with this frame, so that nothing may be smoothed
        or interpolated across its start.
    """

    index: int
    landmarks: np.ndarray | None
    found: bool
    cut: bool


class FaceTrack:
    """Follows one face through a clip and interpolates short gaps, in constant memory.

    Items come out in order. A frame without the face waits until the face is seen again, but for at
    most `max_gap` frames. Longer gaps, gaps at either end and gaps that contain a cut stay missing.

    Args:
      face: See `FaceFollower`.
      max_gap: Longest gap, in frames, that is interpolated.
    """

    def __init__(self, face: str | int = "largest", max_gap: int = 12):
        self.max_gap = max_gap
        self._follower = FaceFollower(face)
        self._anchor: tuple[float, np.ndarray] | None = None  # time and landmarks when last seen
        self._waiting: list[tuple[int, float, bool]] = []  # index, time, cut

    def push(
        self, index: int, faces: np.ndarray, cut: bool = False, time: float | None = None
    ) -> list[TrackItem]:
        """Adds the next frame.

        Args:
          index: Frame number, which is returned with the frame's item.
          faces: (n, 478, 2 or 3) from FaceMesh.
          cut: Whether a scene begins here (`CutDetector`).
          time: Time of the frame, for footage of variable rate; the index by default.

        Returns:
          The items that have become final.
        """
        time = float(index) if time is None else float(time)
        chosen, jumped = self._follower.update(faces, cut)
        ready = []
        if cut or jumped:
            ready += self.flush()
        if chosen is not None:
            landmarks = np.asarray(faces[chosen])
            ready += self._fill(time, landmarks)
            self._anchor = (time, landmarks)
            ready.append(TrackItem(index, landmarks, True, cut or jumped))
        else:
            self._waiting.append((index, time, cut))
            if self._anchor is None or len(self._waiting) > self.max_gap:
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
    detections: Iterable[np.ndarray],
    cuts: Iterable[bool] | None = None,
    *,
    face: str | int = "largest",
    max_gap: int = 12,
    times: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follows one face through a whole clip; see `FaceTrack`.

    Args:
      detections: (n, 478, 3) faces of each of N frames.
      cuts: Whether a scene begins with each frame; no scene does by default.
      face: See `FaceFollower`.
      max_gap: See `FaceTrack`.
      times: (N,) seconds, increasing; equal steps by default.

    Returns:
      Landmarks (N, 478, 3) float32, NaN where the face is missing; found (N,) bool, False for
      interpolated and missing frames; cuts (N,) bool, which include the jumps of the face.
    """
    detections = list(detections)
    cuts = [False] * len(detections) if cuts is None else list(cuts)
    track = FaceTrack(face, max_gap)
    items = []
    for index, (faces, cut) in enumerate(zip(detections, cuts, strict=True)):
        items += track.push(index, faces, cut, None if times is None else times[index])
    items += track.flush()
    landmarks = np.full((len(items), conventions.FACEMESH_POINTS, 3), np.nan, np.float32)
    for item in items:
        if item.landmarks is not None:
            landmarks[item.index] = item.landmarks
    found, jumps = (np.array([getattr(i, name) for i in items], bool) for name in ("found", "cut"))
    return landmarks, found, jumps
