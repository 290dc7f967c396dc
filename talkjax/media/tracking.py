"""Which face, the same face in every frame, and what to do where it is missing.

Everything here looks at `conventions.POSE` alone, never at jaw or lips, so that what follows from
it (which frames are used, where a clip is cut) says nothing about speech.

    track = FaceTrack(face="largest", max_gap=12)
    cuts = CutDetector()
    for index, rgb in enumerate(frames):
        for item in track.push(index, mesh.detect(rgb), cut=cuts.push(rgb)):
            ...  # items come in order, at most `max_gap` frames late
    for item in track.flush():
        ...
"""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np

from talkjax import conventions
from talkjax.errors import UserError

# Costs are in face sizes (see `_cost`). A head at 25 frames a second stays far below the first.
MATCH_LIMIT = 0.5
MATCH_GROWTH = 0.1  # for every frame without a sight of the face
MATCH_MAX = 1.0
PATIENCE = 6  # frames that a lost face is waited for, before another is taken for it
MEMORY = 50  # frames that another person is remembered for

# Mean change of a 24 x 24 thumbnail, colours in [0, 1]. Measured: at most 0.016 between the frames
# of talking-head footage, at least 0.05 between different people in one studio.
CUT_CHANGE = 0.035
CUT_RATIO = 5.0  # and this many times the recent change, so that a moving camera is no cut


def parse_face(text: str | int) -> str | int:
    """Reads `--face`: "largest" or an index, counted from 0.

    Raises:
        UserError: it is neither.
    """
    if text == "largest":
        return "largest"
    if str(text).isdecimal():
        return int(text)
    raise UserError(
        f"--face={text} is not a face; give `largest` or a number from 0, left to right"
    )


def pose_boxes(faces: np.ndarray) -> np.ndarray:
    """Bounding boxes of the pose points: (..., 478, 2 or 3) -> (..., 4) x0, y0, x1, y1."""
    points = conventions.select(np.asarray(faces), conventions.POSE)
    return np.concatenate([points.min(-2), points.max(-2)], -1).astype(np.float64)


def choose_face(faces: np.ndarray, face: str | int) -> int:
    """Picks one of the n > 0 faces (n,478,2 or 3): the largest, or the index-th from the left.

    Raises:
        UserError: there are not that many faces.
    """
    boxes = pose_boxes(faces)
    if face == "largest":
        return int(np.argmax((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
    if not 0 <= face < len(boxes):
        raise UserError(
            f"--face={face}: the first frame with a face shows {len(boxes)}; "
            f"give a number from 0 to {len(boxes) - 1}, left to right"
        )
    return int(np.argsort(boxes[:, 0] + boxes[:, 2], kind="stable")[face])


def _cost(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """How unlike boxes (m,4) and (n,4) are: (m,n) distance over size plus |log size ratio|."""
    old, new = old[:, None], new[None]
    extent = [np.maximum(b[..., 2:] - b[..., :2], 1e-6).mean(-1) for b in (old, new)]
    shift = np.linalg.norm((old[..., :2] + old[..., 2:] - new[..., :2] - new[..., 2:]) / 2, axis=-1)
    return shift * 2 / (extent[0] + extent[1]) + np.abs(np.log(extent[0] / extent[1]))


@dataclasses.dataclass(eq=False)
class _Person:
    box: np.ndarray  # (4,) where last seen
    unseen: int = 0  # frames since


class FaceFollower:
    """Follows the chosen face from frame to frame, whatever other faces do.

    Other people are followed too, so that the chosen one's absence does not turn a neighbour into
    them. A face that is lost for more than `PATIENCE` frames, or across a cut, is chosen anew
    among those who are not such neighbours, and that counts as a jump.

    Args:
        face: "largest", or the index from left to right in the first frame that has faces.
    """

    def __init__(self, face: str | int = "largest"):
        self.face = parse_face(face)
        self._chosen: _Person | None = None
        self._others: list[_Person] = []

    def update(self, faces: np.ndarray, cut: bool = False) -> tuple[int | None, bool]:
        """Takes the next frame's (n,478,2 or 3) faces.

        Returns:
            The index of the chosen face, None if it is not there, and whether it jumped.

        Raises:
            UserError: the first frame with faces has too few for the index.
        """
        boxes = pose_boxes(faces) if len(faces) else np.zeros((0, 4))
        if self._chosen is None:
            if not len(boxes):
                return None, False
            return self._choose(faces, boxes, list(range(len(boxes)))), False
        if cut:
            self._others = []
            self._chosen.unseen = PATIENCE + 1  # the place means nothing in another scene
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
        """Updates all people; returns the chosen one's index and those that are nobody's."""
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
        if chosen is not None:  # who is here together with the chosen face is somebody else
            self._others += [_Person(boxes[index]) for index in sorted(free)]
        return chosen, sorted(free)


class CutDetector:
    """Tells where the picture changes all at once, from tiny thumbnails."""

    def __init__(self):
        self._last: np.ndarray | None = None
        self._recent: list[float] = []

    def push(self, rgb: np.ndarray) -> bool:
        """Whether (H,W,3) uint8 `rgb` begins another scene than the frame before it."""
        height, width = rgb.shape[:2]
        rows = (np.arange(96) + 0.5) * height / 96
        columns = (np.arange(96) + 0.5) * width / 96
        sample = rgb[rows.astype(int)[:, None], columns.astype(int)].astype(np.float32) / 255
        thumbnail = sample.reshape(24, 4, 24, 4, 3).mean((1, 3))
        last, self._last = self._last, thumbnail
        if last is None:
            return False
        change = float(np.abs(thumbnail - last).mean())
        # With nothing to compare with, at the start, only an outright change of scene is one.
        usual = np.mean(self._recent) if self._recent else CUT_CHANGE
        if change > max(CUT_CHANGE, CUT_RATIO * usual):
            self._recent = []
            return True
        self._recent = [*self._recent[-7:], change]
        return False


@dataclasses.dataclass(frozen=True)
class TrackItem:
    """One frame's result.

    Attributes:
        index: as pushed.
        landmarks: (478,2 or 3) in frame pixels; None where the face is missing.
        found: whether they were measured in this frame (else interpolated or missing).
        cut: whether this frame starts anew: nothing may be smoothed or interpolated across.
    """

    index: int
    landmarks: np.ndarray | None
    found: bool
    cut: bool


class FaceTrack:
    """One face through a clip: chosen, followed, short gaps interpolated, in constant memory.

    Items come out in order; one without a face waits for the next sight of it, but never for more
    than `max_gap` frames. Gaps longer than that, gaps at either end and gaps with a cut in them
    stay missing.

    Args:
        face: see `FaceFollower`.
        max_gap: longest gap, in frames, that is interpolated.
    """

    def __init__(self, face: str | int = "largest", max_gap: int = 12):
        self.max_gap = max_gap
        self._follower = FaceFollower(face)
        self._anchor: tuple[float, np.ndarray] | None = None  # last sight, and its time
        self._waiting: list[tuple[int, float, bool]] = []  # index, time, cut

    def push(
        self, index: int, faces: np.ndarray, cut: bool = False, time: float | None = None
    ) -> list[TrackItem]:
        """Adds the next frame.

        Args:
            index: the frame's number, returned with its item.
            faces: (n,478,2 or 3) from FaceMesh.
            cut: whether a scene begins here (`CutDetector`).
            time: its time, for footage of variable rate; default the index.

        Returns:
            The items that are now certain.
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
        """Gives up on the open gap: its items, missing. Call it at the clip's end."""
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
    """`FaceTrack` over a whole clip.

    Args:
        detections: for each of N frames the (n,478,3) faces.
        cuts: for each frame whether a scene begins there; default none does.
        face: see `FaceFollower`.
        max_gap: see `FaceTrack`.
        times: (N,) seconds, increasing; default equal steps.

    Returns:
        landmarks (N,478,3) float32 with NaN rows where the face is missing; found (N,) bool, False
        for interpolated and missing frames; cuts (N,) bool, those given and the face's own jumps.
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


def interpolate_missing(
    landmarks: np.ndarray,
    max_gap: int,
    cuts: np.ndarray | None = None,
    times: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fills short gaps linearly.

    Args:
        landmarks: (N,K,D); a row with a NaN in it is missing.
        max_gap: longest gap, in frames, to fill. Gaps at either end stay.
        cuts: (N,) bool, True where a scene begins; no gap is filled across one.
        times: (N,) increasing; default equal steps.

    Returns:
        (N,K,D) with NaN rows where still missing, and (N,) bool: measured, not filled.
    """
    count = len(landmarks)
    times = np.arange(count, dtype=np.float64) if times is None else np.asarray(times, np.float64)
    scene = np.zeros(count, int) if cuts is None else np.cumsum(np.asarray(cuts, bool))
    found = np.isfinite(landmarks).all((1, 2))
    filled = np.where(found[:, None, None], landmarks, np.nan).astype(landmarks.dtype)
    seen = np.flatnonzero(found)
    for a, b in itertools.pairwise(seen):
        if not 1 < b - a <= max_gap + 1 or scene[a] != scene[b]:
            continue
        weight = ((times[a + 1 : b] - times[a]) / (times[b] - times[a]))[:, None, None]
        filled[a + 1 : b] = landmarks[a] + weight * (landmarks[b] - landmarks[a])
    return filled, found
