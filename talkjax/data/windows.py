"""Pure functions that choose windows, frames and references, and that distort samples.

Times are in *ticks* of the 25 Hz landmark clock. A window of T ticks that starts at tick s covers
the times s ... s + T - 1. References always come from outside the window, so that they do not
contain the answer.
"""

import math

import numpy as np

from talkjax.conventions import (
    MEL_FLOOR,
    MEL_WINDOW,
    MELS_PER_TICK,
    NUM_MELS,
    NUM_POSE,
    mouth_opening,
    spread_faces,
)

_REFERENCE_POOL = 24  # frames among which reference images are chosen in training
_SLACK = 1e-3  # ticks; timestamps are float32


def usable_frames(frame_ticks: np.ndarray, face_found: np.ndarray, num_ticks: int) -> np.ndarray:
    """Returns which frames have a face and lie on the landmark clock, (N,) bool.

    Args:
      frame_ticks: (N,) frame times in ticks.
      face_found: (N,) bool.
      num_ticks: Length of the clip.
    """
    return face_found & (frame_ticks > -_SLACK) & (frame_ticks < num_ticks - 1 + _SLACK)


def half_ticks(frame_ticks: np.ndarray) -> np.ndarray:
    """Rounds frame times so that every window holds the same frames as before.

    Windows begin and end with a tick. So it is enough to know of a frame which tick it is at, or
    which two ticks it is between.

    Args:
      frame_ticks: (N,) frame times in ticks.

    Returns:
      (N,) int64 times in halves of a tick.
    """
    ends = np.ceil(frame_ticks - _SLACK) + np.floor(frame_ticks + _SLACK)
    return ends.astype(np.int64)


def possible_starts(num_ticks: int, window: int) -> np.ndarray:
    """Returns all first ticks of windows that leave at least one tick outside, (S,) int64."""
    return np.arange(max(0, num_ticks - window + 1 if num_ticks > window else 0))


def covering_starts(num_ticks: int, window: int) -> np.ndarray:
    """Returns first ticks of the fewest windows that cover a clip; the last ends with the clip."""
    if num_ticks <= window:
        return np.zeros(0, np.int64)
    starts = np.arange(0, num_ticks - window + 1, window)
    last = num_ticks - window
    return starts if starts[-1] == last else np.append(starts, last)


def count_frames(
    frame_ticks: np.ndarray, starts: np.ndarray, window: int, margin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts image frames in windows, and outside of them by more than `margin` ticks.

    Args:
      frame_ticks: (N,) increasing frame times in ticks.
      starts: (S,) first ticks of windows.
      window: T.
      margin: Frames within so many ticks of the window count as neither.

    Returns:
      inside (S,), outside (S,).
    """
    ends = starts + window - 1
    inside = np.searchsorted(frame_ticks, ends + _SLACK, "right") - np.searchsorted(
        frame_ticks, starts - _SLACK, "left"
    )
    before = np.searchsorted(frame_ticks, starts - margin - _SLACK, "left")
    after = len(frame_ticks) - np.searchsorted(frame_ticks, ends + margin + _SLACK, "right")
    return inside, before + after


def starts_with_frames(
    frame_ticks: np.ndarray, starts: np.ndarray, window: int, margin: int
) -> tuple[np.ndarray, int]:
    """Selects starts whose windows hold an image frame and leave one outside for the reference.

    Returns:
      (starts, margin); the margin is 0 if no start allows the given one.
    """
    for reach in (margin, 0):
        inside, outside = count_frames(frame_ticks, starts, window, reach)
        good = starts[(inside > 0) & (outside > 0)]
        if len(good):
            break
    return good, reach


def split_frames(
    frame_ticks: np.ndarray, start: int, window: int, margin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions of the frames inside the window and of those outside, each (n,) int64."""
    end = start + window - 1
    inside = (frame_ticks >= start - _SLACK) & (frame_ticks <= end + _SLACK)
    outside = (frame_ticks < start - margin - _SLACK) | (frame_ticks > end + margin + _SLACK)
    return np.flatnonzero(inside), np.flatnonzero(outside)


def outside_ticks(num_ticks: int, start: int, window: int, margin: int) -> np.ndarray:
    """Returns ticks outside the window by more than `margin`, or by less if there are none."""
    for reach in (margin, 0):
        before = np.arange(0, max(0, start - reach))
        after = np.arange(start + window + reach, num_ticks)
        if len(before) + len(after):
            break
    return np.concatenate([before, after])


def draw(rng: np.random.Generator | None, pool: np.ndarray, count: int) -> np.ndarray:
    """Draws `count` of `pool` at random, or evenly spread without `rng`; repeats if necessary."""
    if rng is None:
        return pool[np.linspace(0, len(pool) - 1, count + 2)[1:-1].round().astype(int)]
    return rng.choice(pool, count, replace=len(pool) < count)


def draw_references(
    rng: np.random.Generator | None, pool: np.ndarray, landmarks: np.ndarray, count: int
) -> np.ndarray:
    """Draws one of `pool` as `draw` does, and others that differ from it and from each other.

    Args:
      rng: Random numbers, or None.
      pool: (n,) numbers of frames.
      landmarks: (n, 131, 2) their landmarks.
      count: Number to draw.

    Returns:
      (count,) numbers of frames, the one at random first; see `conventions.spread_faces`.
    """
    first = draw(rng, np.arange(len(pool)), 1)
    if count == 1:
        return pool[first]
    some = np.arange(len(pool))
    if rng is not None:  # not the same extremes in every sample
        some = rng.choice(some, min(len(some), _REFERENCE_POOL), replace=False)
    some = np.concatenate([first, some])
    return pool[some[spread_faces(landmarks[some], 0, count)]]


def rest_tick(landmarks: np.ndarray) -> int:
    """Returns the tick of (T, 131, 2) landmarks at which the mouth is closed most tightly."""
    return int(mouth_opening(landmarks).argmin())


# ---- audio --------------------------------------------------------------------------------------


def mel_span(
    mel: np.ndarray, start: int, window: int, past: int = 0, future: int = 0
) -> np.ndarray:
    """Cuts the mel frames of a window's ticks and of some on either side, padded with silence.

    Args:
      mel: (M, 80) log-mel of the clip.
      start: First tick of the window.
      window: T.
      past, future: Ticks before and after the window.

    Returns:
      (4 (past + T + future - 1) + 16, 80) float32.
    """
    lo = MELS_PER_TICK * (start - past) - MEL_WINDOW // 2
    hi = MELS_PER_TICK * (start + window + future - 1) + MEL_WINDOW // 2
    out = np.full((hi - lo, NUM_MELS), MEL_FLOOR, np.float32)
    a, b = max(lo, 0), max(min(hi, len(mel)), max(lo, 0))
    out[a - lo : b - lo] = mel[a:b]
    return out


def move_mel(mel: np.ndarray, frames: int) -> np.ndarray:
    """Moves (M, 80) log-mel by a number of its frames, positive for later; silence moves in."""
    if not frames:
        return mel
    out = np.full_like(mel, MEL_FLOOR)
    if frames > 0:
        out[frames:] = mel[:-frames]
    else:
        out[:frames] = mel[-frames:]
    return out


def tick_windows(span: np.ndarray) -> np.ndarray:
    """Cuts a `mel_span` into the (n, 16, 80) windows of its ticks, a view."""
    views = np.lib.stride_tricks.sliding_window_view(span, MEL_WINDOW, axis=0)
    return views[::MELS_PER_TICK].transpose(0, 2, 1)


# ---- geometry -----------------------------------------------------------------------------------


def random_similarity(
    rng: np.random.Generator, scale: float, rotation: float, shift: float
) -> np.ndarray:
    """Draws a small (2, 3) similarity of the unit crop about its center.

    Applied to all points of a sample, it moves pose, content and references together, so the
    relations that the model learns stay true.

    Args:
      rng: The sample's generator.
      scale, rotation, shift: Standard deviations of the scale's logarithm, of the angle in radians
        and of the shift in crop units.
    """
    log_scale, angle, dx, dy = rng.normal(size=4) * (scale, rotation, shift, shift)
    a, b = math.exp(log_scale) * math.cos(angle), math.exp(log_scale) * math.sin(angle)
    linear = np.array([[a, -b], [b, a]])
    return np.concatenate([linear, (0.5 + np.array([dx, dy]) - linear @ (0.5, 0.5))[:, None]], 1)


def move_points(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Applies one (2, 3) transform to (..., 2) points, in float32."""
    transform = transform.astype(np.float32)
    return points @ transform[:, :2].T + transform[:, 2]


def stretch_content(
    rng: np.random.Generator, points: np.ndarray, faces: np.ndarray, amount: float
) -> tuple[np.ndarray, np.ndarray]:
    """Stretches and shifts lips and jaw alone, by the same transform in all faces of a sample.

    Args:
      rng: The sample's generator.
      points: (T, 131, 2) landmarks of the window.
      faces: (R, 131, 2) landmarks of the references.
      amount: Deviation of the logarithms of the two scales; a tenth of it is that of the shift in
        crop units.

    Returns:
      Copies of `points` and `faces`.
    """
    if not amount:
        return points, faces
    scale = np.exp(rng.normal(0, amount, 2)).astype(np.float32)
    shift = rng.normal(0, amount / 10, 2).astype(np.float32)
    centre = faces[:, NUM_POSE:].mean((0, 1))
    moved = []
    for part in (points, faces):
        part = part.copy()
        part[:, NUM_POSE:] = (part[:, NUM_POSE:] - centre) * scale + centre + shift
        moved.append(part)
    return moved[0], moved[1]


# ---- pixels -------------------------------------------------------------------------------------


def decode_jpeg(data: bytes) -> np.ndarray:
    """Decodes one crop to (H, W, 3) uint8 RGB with OpenCV or, without it, Pillow."""
    if not data:
        raise ValueError("it is empty; speech without pictures trains only stage landmark")
    try:
        import cv2
    except ImportError:
        import io

        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError("a frame is not a JPEG image")
    return image
