"""Choosing a face by a time and a point, or as that of the speaker (`speaker`).

Both read a part of the template ahead and keep only boxes (some 100 bytes a frame). They return the
*path* of the chosen face, {frame number: box, or None where it is absent}, which
`tracking.FaceTrack` then follows in the pass over the whole template.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from talkjax.files import PathLike
from talkjax.media import tracking
from talkjax.media.tracking import FaceChoiceError

if TYPE_CHECKING:
    from talkjax.media.detection import Detector, FrameDetections
    from talkjax.sampling.template import Template

Path = dict[int, np.ndarray | None]

SPEAKING = "speaking"
_LATE_SECONDS = 0.5  # a time that is this much after the last frame is that of the last frame


@dataclasses.dataclass(frozen=True)
class FacePoint:
    """A face that is at a point at a time.

    Attributes:
      text: As the user gave it.
      seconds: Time in the template.
      x: Distance from the left edge of the picture in pixels.
      y: Distance from the top edge of the picture in pixels.
    """

    text: str
    seconds: float
    x: float
    y: float


def parse_face(face: str | int) -> str | int | FacePoint:
    """Parses `Options.face`: "largest", "speaking", a number, or a time and a point.

    Raises:
      FaceChoiceError: It is none of them.
    """
    number = r"(\d+(?:\.\d*)?|\.\d+)"
    match = re.fullmatch(rf"\s*{number}\s*s?\s*:\s*{number}\s*,\s*{number}\s*", str(face))
    if match:
        seconds, x, y = map(float, match.groups())
        return FacePoint(str(face), seconds, x, y)
    if face == SPEAKING:
        return SPEAKING
    try:
        return tracking.parse_face(face)
    except FaceChoiceError:
        raise FaceChoiceError(
            f"face={face} is not valid; give 'largest', 'speaking', a number from 0, left to "
            "right, or a time and a point in pixels such as 12.5s:640,360"
        ) from None


def find_path(
    face: str | int,
    template: Template,
    video: PathLike | None,
    detector: Detector,
    until: float,
) -> Path | None:
    """Finds the face that `Options.face` chooses by a point or as the speaker's.

    Args:
      face: See `Options.face`.
      template: The template.
      video: The file of a template that is a video.
      detector: Face detector.
      until: Time in the template in seconds up to which a speaker is looked for.

    Returns:
      The path of the face, or None for other choices.

    Raises:
      UserError: There is no such face, or no sound.
    """
    from talkjax.media.detection import detect_faces
    from talkjax.sampling import speaker

    parsed = parse_face(face)
    with contextlib.closing(detect_faces(template.frames(), detector)) as detections:
        if isinstance(parsed, FacePoint):
            return trace_point(detections, parsed)
        if parsed == SPEAKING:
            if video is None:
                raise FaceChoiceError(
                    "face=speaking: a photograph has no sound; give a number or a time and a point"
                )
            loudness = speaker.measure_loudness(video, until)
            return speaker.trace_speaker(detections, loudness, until)
    return None


def trace_point(detections: Iterable[FrameDetections], point: FacePoint) -> Path:
    """Finds the face at a point, and follows it back to the beginning of its scene.

    Args:
      detections: Output of `detection.detect_faces`, which is read up to the point's time.
      point: The point.

    Raises:
      FaceChoiceError: There is no such face.
    """
    scene: list[_Boxes] = []  # frames of the last scene, up to the one nearest to the time
    faces = np.zeros((0, 0, 3))
    for frame in detections:
        nearer = bool(scene) and point.seconds - scene[-1].time <= frame.time - point.seconds
        if nearer:
            break
        scene = [] if frame.cut else scene
        faces = frame.faces
        boxes = tracking.pose_boxes(faces) if len(faces) else np.zeros((0, 4))
        scene.append(_Boxes(frame.index, frame.time, boxes))
        if frame.time >= point.seconds:
            break
    if not scene or scene[-1].time < point.seconds - _LATE_SECONDS:
        end = f"{scene[-1].time:.2f} s" if scene else "its start"
        raise FaceChoiceError(f"face={point.text}: the template ends at {end}; give a time before")
    chosen = _face_at(faces, point)
    return _follow_back(scene, scene[-1].boxes[chosen])


@dataclasses.dataclass(frozen=True)
class _Boxes:
    """The (n, 4) boxes of a frame's faces."""

    index: int
    time: float
    boxes: np.ndarray


def _face_at(faces: np.ndarray, point: FacePoint) -> int:
    """Returns the index of the face at a point, or the nearest one if it is a face size away."""
    if not len(faces):
        raise FaceChoiceError(
            f"face={point.text}: no face is found at that time; give a time at which it is seen "
            "from the front"
        )
    low, high = faces[..., :2].min(1), faces[..., :2].max(1)
    centre, size = (low + high) / 2, (high - low).mean(-1)
    away = np.linalg.norm(centre - (point.x, point.y), axis=-1) / size
    chosen = int(np.argmin(away))
    if away[chosen] > 1.0:
        places = " and ".join(f"{x:.0f},{y:.0f}" for x, y in sorted(map(tuple, centre)))
        raise FaceChoiceError(
            f"face={point.text}: no face is there at that time; give one of the points {places}"
        )
    return chosen


def _follow_back(scene: list[_Boxes], box: np.ndarray) -> Path:
    path: Path = {}
    seen = scene[-1].time
    for frame in reversed(scene):
        path[frame.index] = None
        if len(frame.boxes):
            cost = tracking.compare_boxes(box[None], frame.boxes)[0]
            nearest = int(np.argmin(cost))
            if cost[nearest] <= tracking.match_limit(seen - frame.time):
                box, seen = frame.boxes[nearest], frame.time
                path[frame.index] = box
    return path
