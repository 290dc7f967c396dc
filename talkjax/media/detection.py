"""Detecting the faces of a clip, scene by scene.

FaceMesh looks for a face where it was in the frame before. Over a cut, that is the wrong place: for
some frames it fits the points to whatever is there. `detect_faces` therefore looks for cuts before
it detects, and lets the detector begin anew. Whether a sudden change of the picture is a cut is
decided by the faces: where one goes on at its place and looks the same, it was a flash, a fade, a
caption or something that moved through the picture.

Only `conventions.RIGID` places what is compared, and the compared part ends above the mouth, so
that cuts carry no information about the speech.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from talkjax.media import crop, head_motion, tracking
from talkjax.media.appearance import thumbnail

if TYPE_CHECKING:
    from talkjax.media.video import VideoFrame

# Mean change of a 24 x 24 thumbnail with colours in [0, 1]. Measured changes are at most 0.024
# between frames of talking-head footage and at least 0.05 between different people in one studio.
CUT_CHANGE = 0.035
DOUBT_CHANGE = 0.01  # of a change that is a cut only if no face goes on
CUT_RATIO = 5.0  # times the recent change, so that a moving camera is not taken for a cut
# Share of the thumbnail that a cut changes where there is no face to compare.
CUT_SHARE = 0.5
_CELL_CHANGE = 0.02
# Deviation of the thumbnail of a picture of one colour. Such a picture that lasts (a fade through
# black) parts two scenes, and a shorter one (a flash) does not count.
BLANK = 0.012
BLANK_SECONDS = 0.1

# Correlation of the upper face with the same face in the next frame. Measured: at least 0.78 for
# one person and at most 0.74 between different people.
SAME_LOOK = 0.76
LOST_LOOK = 0.6  # below it, the points no longer lie on the face
# A head moves by at most 0.1 face sizes between two frames of 25 fps footage.
SAME_PLACE = 0.12
COMPARED_SECONDS = 0.15  # faces of frames that are farther apart are not compared
_CONTRAST = 4.0  # deviation of grey values below which the look of a face says nothing
_UPPER_FACE, _EYES = slice(4, 34), slice(4, 24)  # rows of a crop of 64 pixels
_LOOK_SIZE = (24, 15)
SAME_EYES = 0.9  # of eyes and brows at the very place where they were


class Detector(Protocol):
    """Interface of a face detector: `talkjax.media.facemesh.FaceMesh` or a stand-in."""

    def reset(self) -> None:
        """Forgets earlier frames."""

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        """Detects the faces of a (H, W, 3) uint8 frame: (n, 478, 3) float32 frame pixels."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FrameDetections:
    """What was detected in one frame.

    Attributes:
      index: Frame number.
      time: Time in seconds.
      faces: (n, 478, 3) FaceMesh points of every face, frame pixels.
      cut: Whether a scene begins with this frame.
      pictures: n pictures of the faces' upper parts (`head_motion.upper_face`), or none.
      thumbnails: n crops of the faces, (64, 64, 3) uint8, or none.
    """

    index: int
    time: float
    faces: np.ndarray
    cut: bool
    pictures: Sequence[np.ndarray] = ()
    thumbnails: Sequence[np.ndarray] = ()


def detect_faces(frames: Iterable[VideoFrame], detector: Detector) -> Iterator[FrameDetections]:
    """Detects the faces and scene cuts of a clip's frames, after resetting the detector."""
    detector.reset()
    changes = ChangeMeter()
    last: _Seen | None = None
    for frame in frames:
        change = changes.push(frame.rgb, frame.time)
        if change.doubtful:
            detector.reset()
        seen = _Seen(frame.time, frame.rgb, detector.detect(frame.rgb))
        near = last is not None and seen.time - last.time <= COMPARED_SECONDS
        cut = change.cut
        if near and len(last.faces) and len(seen.faces):
            cut = change.doubtful and not last.goes_on(seen)
            if not change.doubtful and last.similarity(seen).max() < LOST_LOOK:
                detector.reset()  # the points have slipped off the face
                seen = _Seen(frame.time, frame.rgb, detector.detect(frame.rgb))
        if cut:
            changes.restart()
        last = seen
        pictures = [head_motion.upper_face(each) for each in seen.crops]
        yield FrameDetections(frame.index, frame.time, seen.faces, cut, pictures, seen.thumbnails)


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """How a frame differs from the one before it.

    Attributes:
      doubtful: Whether it changed so suddenly that it may be another scene.
      cut: Whether the whole picture changed so much that it is another scene, whatever faces say.
    """

    doubtful: bool
    cut: bool


class ChangeMeter:
    """Compares small thumbnails of consecutive frames."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None  # thumbnail of the last frame that is not blank
        self._recent: list[float] = []
        self._blank_since: float | None = None

    def push(self, rgb: np.ndarray, time: float) -> Change:
        """Adds the next (H, W, 3) uint8 frame, which is shown at `time` seconds."""
        thumbnail = _thumbnail(rgb)
        if (thumbnail - thumbnail.mean((0, 1))).std() < BLANK:
            self._blank_since = time if self._blank_since is None else self._blank_since
            return Change(False, False)
        since, self._blank_since = self._blank_since, None
        last, self._last = self._last, thumbnail
        if since is not None and time - since > BLANK_SECONDS:
            return Change(True, True)
        if last is None:
            return Change(False, False)
        cells = np.abs(thumbnail - last).mean(-1)
        change = float(cells.mean())
        # At the start there is no recent change, so only a clear change of scene counts.
        usual = np.mean(self._recent) if self._recent else CUT_CHANGE
        sudden = change > CUT_RATIO * usual
        self._recent = [*self._recent[-7:], change]
        whole = float((cells > _CELL_CHANGE).mean()) > CUT_SHARE
        return Change(
            doubtful=bool(sudden and change > DOUBT_CHANGE),
            cut=bool(sudden and whole and change > CUT_CHANGE),
        )

    def restart(self) -> None:
        """Forgets how much earlier frames changed, because a scene begins."""
        self._recent = []


def _thumbnail(rgb: np.ndarray) -> np.ndarray:
    """Reduces a picture to (24, 24, 3) float32 colours in [0, 1]."""
    height, width = rgb.shape[:2]
    rows = (np.arange(96) + 0.5) * height / 96
    columns = (np.arange(96) + 0.5) * width / 96
    sample = rgb[rows.astype(int)[:, None], columns.astype(int)].astype(np.float32) / 255
    return sample.reshape(24, 4, 24, 4, 3).mean((1, 3))


class _Seen:
    """A frame, its faces, and what they look like."""

    def __init__(self, time: float, rgb: np.ndarray, faces: np.ndarray) -> None:
        self.time, self.faces = time, faces
        self._rgb = rgb

    @functools.cached_property
    def crops(self) -> np.ndarray:
        """(n, 192, 192, 3) uint8 crops of the faces, each by its own fit."""
        return crop.cut_faces(self._rgb, self.faces, head_motion.SIZE)

    @functools.cached_property
    def thumbnails(self) -> list[np.ndarray]:
        """The n crops as (64, 64, 3) uint8."""
        return [thumbnail(each) for each in self.crops]

    @functools.cached_property
    def looks(self) -> np.ndarray:
        """(n, 360) standardized grey values of the upper faces; NaN where they are too dark."""
        return np.stack([_look(each, _UPPER_FACE) for each in self.thumbnails])

    def similarity(self, later: _Seen) -> np.ndarray:
        """Correlations of all m faces here with all n of a later frame: (m, n).

        They are 1 where a face is too dark to be compared.
        """
        correlations = self.looks @ later.looks.T / self.looks.shape[1]
        return np.where(np.isfinite(correlations), correlations, 1.0)

    def goes_on(self, later: _Seen) -> bool:
        """Returns whether a face of this frame is there in a later one, at nearly its place."""
        boxes = tracking.pose_boxes(self.faces), tracking.pose_boxes(later.faces)
        near = tracking.compare_boxes(*boxes) < SAME_PLACE
        if (near & (self.similarity(later) > SAME_LOOK)).any():
            return True
        # Where something comes before the mouth, the detector fits the face differently, but eyes
        # and brows stay where they were.
        there = crop.cut_faces(later._rgb, self.faces, head_motion.SIZE)
        return any(
            (_look(before, _EYES) * _look(thumbnail(after), _EYES)).mean() > SAME_EYES
            for before, after in zip(self.thumbnails, there, strict=True)
        )


def _look(small: np.ndarray, rows: slice) -> np.ndarray:
    """Returns standardized grey values (360,) of some rows of a (64, 64, 3) crop."""
    grey = small[rows, 8:56].astype(np.float32).mean(-1)
    grey = cv2.resize(grey, _LOOK_SIZE, interpolation=cv2.INTER_AREA).reshape(-1)
    contrast = grey.std()
    return (grey - grey.mean()) / (contrast if contrast > _CONTRAST else np.nan)
