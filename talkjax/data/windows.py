"""Pure functions that choose windows, frames and references, and that distort samples.

Times are in *ticks* of the 25 Hz landmark clock. A window of T ticks that starts at tick s covers
the times s ... s + T - 1. References always come from outside the window, so that they do not
contain the answer.
"""

import math

import numpy as np

from talkjax.conventions import MEL_FLOOR, MEL_WINDOW, MELS_PER_TICK, NUM_MELS, mel_frequencies

_SLACK = 1e-3  # ticks; timestamps are float32


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
    """Draws `count` of `pool` at random, or evenly spread without `rng`; repeats only if needed."""
    if rng is None:
        return pool[np.linspace(0, len(pool) - 1, count + 2)[1:-1].round().astype(int)]
    return rng.choice(pool, count, replace=len(pool) < count)


# ---- audio --------------------------------------------------------------------------------------


def mel_span(mel: np.ndarray, start: int, window: int) -> np.ndarray:
    """Cuts the mel frames of a window's ticks, (4 (T - 1) + 16, 80), padded with silence."""
    lo = MELS_PER_TICK * start - MEL_WINDOW // 2
    hi = MELS_PER_TICK * (start + window - 1) + MEL_WINDOW // 2
    out = np.full((hi - lo, NUM_MELS), MEL_FLOOR, np.float32)
    a, b = max(lo, 0), min(hi, len(mel))
    out[a - lo : b - lo] = mel[a:b]
    return out


def tick_windows(span: np.ndarray) -> np.ndarray:
    """Cuts a `mel_span` into the (T, 16, 80) windows of its ticks, a view."""
    views = np.lib.stride_tricks.sliding_window_view(span, MEL_WINDOW, axis=0)
    return views[::MELS_PER_TICK].transpose(0, 2, 1)


def warp_frequencies(span: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies all frequencies of a log-mel span, as a shorter vocal tract does.

    This is vocal tract length perturbation (Jaitly and Hinton, 2013).

    Args:
      span: (L, 80) log-mel.
      factor: Factor of the frequencies. Beyond the ends the first or last bin repeats.
    """
    centres = mel_frequencies()
    place = np.interp(centres / factor, centres, np.arange(NUM_MELS))
    low = np.minimum(place.astype(np.int64), NUM_MELS - 2)
    share = (place - low).astype(np.float32)
    return span[:, low] * (1 - share) + span[:, low + 1] * share


def random_equalizer(rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Draws a smooth gain for each mel bin, like that of another microphone: (80,) float32, nats.

    The gain is a sum of the first four cosines over the bins; the slowest one, a tilt from dark to
    bright, is the strongest. The standard deviation over all bins is `deviation`. FilterAugment
    (arXiv 2107.13260) is similar.
    """
    order = np.arange(1, 5)
    amounts = rng.normal(0, 1, 4) / order
    waves = np.cos(np.pi * order[:, None] * (np.arange(NUM_MELS) + 0.5) / NUM_MELS)
    scale = deviation / math.sqrt(0.5 * (1 / order**2).sum())
    return (scale * amounts @ waves).astype(np.float32)


def augment_mel(
    rng: np.random.Generator,
    span: np.ndarray,
    gain: float,
    noise: float,
    masks: int,
    warp: float = 0.0,
    equalizer: float = 0.0,
) -> np.ndarray:
    """Distorts a log-mel span in the ways in which recordings differ.

    Args:
      rng: The sample's generator.
      span: (L, 80) log-mel.
      gain: Standard deviation of the loudness in nats of power (0.23 nats are 1 dB).
      noise: Loudest added stationary noise in nats above `MEL_FLOOR`; half of the samples get none.
      masks: At most so many bands and so many moments are masked (SpecAugment, arXiv 1904.08779).
      warp: Standard deviation of the logarithm of `warp_frequencies`' factor.
      equalizer: Deviation of `random_equalizer` in nats of power.

    Returns:
      (L, 80) float32, at least `MEL_FLOOR`.
    """
    out = span
    if warp:
        out = warp_frequencies(out, math.exp(rng.normal(0, warp)))
    if gain or equalizer:
        change = np.float32(rng.normal(0, gain)) + random_equalizer(rng, equalizer)
        # Silence stays silent whatever the gain.
        out = np.where(out <= MEL_FLOOR + 1e-6, out, out + change)
    if noise and rng.random() < 0.5:
        level = MEL_FLOOR + rng.uniform(0, noise) + rng.normal(0, 0.5, NUM_MELS)
        out = np.logaddexp(out, level.astype(np.float32))
    if masks:
        out = out.copy() if out is span else out
        average = out.mean(0)
        for _ in range(rng.integers(masks + 1)):
            width = rng.integers(1, 11)
            low = rng.integers(NUM_MELS - width + 1)
            out[:, low : low + width] = MEL_FLOOR  # as if the microphone lacked this band
        for _ in range(rng.integers(masks + 1)):
            # The average, not silence, because the mouth moves on and silence must keep meaning a
            # mouth at rest.
            width = rng.integers(1, 9)
            first = rng.integers(len(out) - width + 1)
            out[first : first + width] = average
    # Worker processes pass C-ordered arrays through shared memory, others through a slow pipe.
    return np.ascontiguousarray(np.maximum(out, MEL_FLOOR), np.float32)


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
