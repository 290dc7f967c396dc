"""Finding who speaks: the face whose lips move with the template's own sound.

How fast a mouth opens goes with how fast the sound becomes louder: vowels are loud and open, and
between them lips close. The score of a face is the correlation of the two over a scene, at the best
of a few small offsets. Faces that hardly move score less, so that noise of the measurement is not
taken for speech.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from talkjax import conventions
from talkjax.conventions import MELS_PER_SECOND
from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import audio, container, tracking
from talkjax.media.detection import FrameDetections

# Measured on 3 s clips of 13 speakers: of a speaker and somebody who says another sentence at the
# same time, 90% are told apart; of a speaker and somebody who listens, all. See `score`.
MAX_OFFSET = 0.12  # seconds between sound and lips, either way
STILL_SPEED = 0.125  # inter-ocular distances per second; noise of the measurement has about this
MIN_SCORE = 0.05
MIN_SECONDS = 1.0  # of a face that is judged
_SMOOTHING = 0.11  # seconds over which the loudness is averaged
_PIECE = 500  # mel frames computed at a time


def measure_loudness(path: PathLike, seconds: float) -> np.ndarray:
    """Returns the loudness (mean log-mel, smoothed) of a file's sound, 100 values a second.

    Raises:
      UserError: The file has no sound, or it cannot be read.
    """
    with container.open_input(path) as opened:
        if container.audio_stream(opened) is None:
            raise UserError(
                f"face=speaking: {container.display_name(path)} has no sound; give a number or a "
                "time and a point instead"
            )
    count = round(seconds * MELS_PER_SECOND)
    pieces, have = [], 0
    for piece in audio.stream_log_mel(audio.stream_mono(path), _PIECE):
        pieces.append(piece.mean(1))
        have += len(piece)
        if have >= count:
            break
    return smooth_loudness(np.concatenate(pieces))


def smooth_loudness(loudness: np.ndarray) -> np.ndarray:
    """Averages (M,) mean log-mels over a syllable: the same shape."""
    half = round(_SMOOTHING * MELS_PER_SECOND) // 2
    kernel = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(loudness, half, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), "valid")


def score(times: np.ndarray, openings: np.ndarray, loudness: np.ndarray) -> float:
    """Returns how well a mouth goes with a sound, at most 1.

    Args:
      times: (N,) seconds of the measurements, increasing; N > 1.
      openings: (N,) mouth openings in inter-ocular distances.
      loudness: Output of `measure_loudness`.
    """
    clock = np.arange(len(loudness)) / MELS_PER_SECOND
    speed = np.gradient(openings, times)
    speed = speed - speed.mean()
    best = -1.0
    for offset in np.arange(-MAX_OFFSET, MAX_OFFSET + 1e-6, 0.04):
        rise = np.gradient(np.interp(times + offset, clock, loudness), times)
        rise = rise - rise.mean()
        scale = (rise.std() + 1e-6) * (speed.std() + STILL_SPEED)
        best = max(best, float((speed * rise).mean() / scale))
    return best


class _Mouth:
    """One face of a scene."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.openings: list[float] = []
        self.boxes: dict[int, np.ndarray] = {}  # by frame number
        self.box = np.zeros(4)  # the newest

    def add(self, index: int, time: float, box: np.ndarray, opening: float) -> None:
        self.times.append(time)
        self.openings.append(opening)
        self.boxes[index] = self.box = box


def trace_speaker(
    detections: Iterable[FrameDetections], loudness: np.ndarray, seconds: float
) -> dict[int, np.ndarray | None]:
    """Finds the speaker of each scene that shows several faces.

    Args:
      detections: Output of `detection.detect_faces`.
      loudness: Output of `measure_loudness`.
      seconds: Time at which to stop.

    Returns:
      {frame number: box of the speaker, or None where the speaker is absent}, see
      `tracking.FaceTrack`. Scenes without a clear speaker are left out.
    """
    path: dict[int, np.ndarray | None] = {}
    first, mouths = 0, []
    for frame in detections:
        if frame.time > seconds:
            break
        if frame.cut:
            path |= _choose(mouths, first, loudness)
            first, mouths = frame.index, []
        _associate(mouths, frame)
    return path | _choose(mouths, first, loudness)


def _associate(mouths: list[_Mouth], frame: FrameDetections) -> None:
    """Adds a frame's faces to those they continue; a face that continues none is a new one."""
    if not len(frame.faces):
        return
    boxes = tracking.pose_boxes(frame.faces)
    openings = conventions.mouth_opening(conventions.select(frame.faces).astype(np.float64))
    free = set(range(len(boxes)))
    if mouths:
        cost = tracking.compare_boxes(np.array([mouth.box for mouth in mouths]), boxes)
        unseen = np.array([frame.time - mouth.times[-1] for mouth in mouths])
        cost[cost > tracking.match_limit(unseen)[:, None]] = np.inf
        while np.isfinite(cost).any():
            who, index = np.unravel_index(np.argmin(cost), cost.shape)
            mouths[who].add(frame.index, frame.time, boxes[index], float(openings[index]))
            cost[who], cost[:, index] = np.inf, np.inf
            free.discard(int(index))
    for index in sorted(free):
        mouths.append(_Mouth())
        mouths[-1].add(frame.index, frame.time, boxes[index], float(openings[index]))


def _choose(mouths: list[_Mouth], first: int, loudness: np.ndarray) -> dict[int, np.ndarray | None]:
    """Returns the path of a scene's speaker, from its first frame to where he is last seen."""
    long = [m for m in mouths if m.times[-1] - m.times[0] >= MIN_SECONDS]
    if len(long) < 2:
        return {}
    scores = [score(np.array(m.times), np.array(m.openings), loudness) for m in long]
    best = int(np.argmax(scores))
    if scores[best] < MIN_SCORE:
        return {}
    boxes = long[best].boxes
    return {index: boxes.get(index) for index in range(first, max(boxes) + 1)}
