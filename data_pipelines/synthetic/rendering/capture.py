"""What a camera and its software do to the frames of a clip: colour, light, noise, coding."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from .transcoder import CODECS, Transcoder

_GREY = np.array([0.299, 0.587, 0.114])
_RESAMPLERS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "nearest": cv2.INTER_NEAREST}
_QUALITY = {"h264": (24, 40), "mpeg2video": (3, 16), "mpeg4": (3, 16), "mjpeg": (4, 20)}
_MIDDLE, _VISIBLE = 102, (0.2, 0.8)  # An 8-bit middle tone, and the range where it must end.
_LONGEST_BLUR = 0.06  # Of the frame's side.


@dataclass(frozen=True)
class Capture:
    """How the frames of a clip are recorded. The defaults change nothing.

    Attributes:
      gains: Factors of red, green and blue.
      gamma: Exponent of the 8-bit values.
      contrast: Factor of the distance from the middle tones.
      saturation: Factor of the distance from grey.
      fade: Factors of the brightness at the first and at the last frame.
      flicker: Amplitude and frequency in Hz of changes of the brightness.
      shadow: Strength, direction in radians and speed in frame widths per second of the edge of a
        shadow that moves across the picture.
      shutter: Share of a frame's time for which the shutter is open, which blurs what moves.
      defocus: Standard deviation of the blur in pixels of a 256-pixel frame.
      luma_noise, chroma_noise: Standard deviations of the noise in 8-bit steps.
      shot_noise: Of noise that grows with the brightness.
      row_noise: Of noise that whole rows share.
      coarse: Size of the noise's grains in pixels.
      scale: Resolution at which the frames are coded, as a share of theirs.
      resampler: How they are enlarged again, "linear", "cubic" or "nearest".
      sharpening: Strength of the sharpening.
      codec: One of `transcoder.CODECS`.
      quality: See `transcoder.Transcoder`.
      seed: Seed of the noise.
    """

    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    fade: tuple[float, float] = (1.0, 1.0)
    flicker: tuple[float, float] = (0.0, 1.0)
    shadow: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shutter: float = 0.0
    defocus: float = 0.0
    luma_noise: float = 0.0
    chroma_noise: float = 0.0
    shot_noise: float = 0.0
    row_noise: float = 0.0
    coarse: float = 0.0
    scale: float = 1.0
    resampler: str = "linear"
    sharpening: float = 0.0
    codec: str = "none"
    quality: int = 0
    seed: int = 0


def sample_capture(rng: np.random.Generator) -> Capture:
    """Draws how a clip is recorded: each fault is in some clips, and one clip in six has none."""
    faults = rng.random() > 0.17

    def amount(mean):
        return min(rng.exponential(mean), 2.5 * mean)

    def sometimes(share, value, otherwise=0.0):
        drawn = rng.random() < share
        return round(float(value), 4) if drawn and faults else otherwise

    cast = rng.normal(0, 0.16, 3) if rng.random() < 0.4 and faults else np.zeros(3)
    codec = str(rng.choice(CODECS, p=(0.45, 0.25, 0.1, 0.1, 0.1))) if faults else "none"
    quality = int(rng.integers(*_QUALITY.get(codec, (0, 0)), endpoint=True))
    fade = np.clip(rng.normal(1, 0.3, 2), 0.35, 1.6)
    return Capture(
        gains=tuple(round(float(v), 4) for v in np.exp(np.clip(cast - cast.mean(), -0.35, 0.35))),
        gamma=sometimes(0.4, np.exp(np.clip(rng.normal(0, 0.28), -0.5, 0.5)), 1.0),
        contrast=sometimes(0.35, np.exp(np.clip(rng.normal(0, 0.22), -0.4, 0.4)), 1.0),
        saturation=sometimes(0.35, rng.uniform(0.0, 1.9), 1.0),
        fade=(sometimes(0.15, fade[0], 1.0), sometimes(0.15, fade[1], 1.0)),
        flicker=(sometimes(0.15, rng.uniform(0.02, 0.16)), round(float(rng.uniform(0.3, 9)), 4)),
        shadow=(
            sometimes(0.12, rng.uniform(0.2, 0.65)),
            round(float(rng.uniform(0, 2 * np.pi)), 4),
            round(float(rng.normal(0, 0.3)), 4),
        ),
        shutter=sometimes(0.35, rng.uniform(0.3, 1.3)),
        defocus=sometimes(0.2, rng.uniform(0.2, 1.3)),
        luma_noise=sometimes(0.35, amount(3.0)),
        chroma_noise=sometimes(0.25, amount(3.5)),
        shot_noise=sometimes(0.2, amount(4.0)),
        row_noise=sometimes(0.08, amount(1.2)),
        coarse=sometimes(0.4, rng.uniform(0.4, 1.6)),
        scale=sometimes(0.3, rng.uniform(0.3, 0.95), 1.0),
        resampler=str(rng.choice(list(_RESAMPLERS), p=(0.5, 0.4, 0.1))),
        sharpening=sometimes(0.25, rng.uniform(0.2, 1.1)),
        codec=codec,
        quality=quality,
        seed=int(rng.integers(1 << 31)),
    )


class Developer:
    """Applies all of a `Capture` but the coding to single frames.

    Args:
      capture: How the frames are recorded.
      size: Side of the frames in pixels.
      seconds: Duration of the clip.
    """

    def __init__(self, capture: Capture, size: int, seconds: float):
        self.capture, self.size, self.seconds = capture, size, seconds
        c, rng = capture, np.random.default_rng(capture.seed)
        # Fields of noise that each frame takes at another offset.
        shape = (size, size)
        self._noise = self._shot = None
        if c.luma_noise or c.chroma_noise or c.row_noise:
            grey = c.luma_noise * self._draw(rng, (*shape, 1)) + c.row_noise * rng.standard_normal(
                (size, 1, 1), np.float32
            )
            self._noise = (grey + c.chroma_noise * self._draw(rng, (*shape, 3))).astype(np.float32)
        if c.shot_noise:
            self._shot = (c.shot_noise * self._draw(rng, (*shape, 3))).astype(np.float32)
        self._shifts = rng.integers(0, size, (64, 2))
        y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size - 0.5
        angle = c.shadow[1]
        self._across = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))

    def _draw(self, rng, shape):
        """Draws noise of unit variance with grains of the wanted size."""
        noise = rng.standard_normal(shape, np.float32)
        if self.capture.coarse:
            noise = cv2.GaussianBlur(noise, (0, 0), self.capture.coarse).reshape(shape)
            noise /= noise.std()
        return noise

    def develop(self, frame: np.ndarray, number: int, rate: float, moved=(0.0, 0.0)) -> np.ndarray:
        """Records one frame.

        Args:
          frame: Frame (size, size, 3) uint8.
          number: Its number in the clip.
          rate: Frames per second.
          moved: How far the face has moved since the last frame in pixels, right and down.

        Returns:
          (size, size, 3) uint8.
        """
        c, time = self.capture, number / rate
        frame = _blur_motion(frame, np.multiply(moved, c.shutter))
        if c.defocus:
            frame = cv2.GaussianBlur(frame, (0, 0), c.defocus * self.size / 256)
        if c.saturation != 1:
            matrix = c.saturation * np.eye(3) + (1 - c.saturation) * _GREY[None]
            frame = cv2.transform(frame, matrix)
        share = np.clip(time / max(self.seconds, 1e-6), 0, 1)
        gain = c.fade[0] + share * (c.fade[1] - c.fade[0])
        gain *= 1 + c.flicker[0] * np.sin(2 * np.pi * c.flicker[1] * time)
        curve = self._tone_curves(gain)
        if curve is not None:
            frame = cv2.LUT(frame, curve)
        if c.shadow[0]:
            edge = (self._across - np.float32(c.shadow[2] * (time - 0.5 * self.seconds))) * 14
            light = 1 - c.shadow[0] / (1 + np.exp(edge))
            frame = (frame * light[..., None]).astype(np.uint8)
        return self._add_noise(frame, number)

    def _tone_curves(self, gain):
        """Returns the (256, 1, 3) 8-bit curves of the channels, None if they change nothing."""
        c = self.capture
        if gain == c.gamma == c.contrast == 1 and c.gains == (1.0, 1.0, 1.0):
            return None
        value = np.linspace(0, 1, 256)[:, None] ** c.gamma * np.array(c.gains) * gain
        middle = value[_MIDDLE].mean()
        value = middle + (value - middle) * c.contrast
        # Several faults together must not hide the face.
        value *= np.clip(middle, *_VISIBLE) / middle
        return np.clip(np.round(value * 255), 0, 255).astype(np.uint8)[:, None]

    def _add_noise(self, frame, number):
        if self._noise is None and self._shot is None:
            return frame
        shift = tuple(self._shifts[number % len(self._shifts)] + number // len(self._shifts))
        out = frame.astype(np.float32)
        if self._shot is not None:
            out += np.roll(self._shot, shift, (0, 1)) * np.sqrt(out * np.float32(1 / 255))
        if self._noise is not None:
            out += np.roll(self._noise, shift, (0, 1))
        return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def _blur_motion(frame, moved):
    """Blurs a frame along the vector `moved` in pixels."""
    length = np.hypot(*moved)
    if length < 0.5:
        return frame
    moved = np.asarray(moved) * min(1.0, _LONGEST_BLUR * len(frame) / length)
    half = int(np.ceil(np.abs(moved).max() / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    ends = [np.round((half + s * moved / 2) * 16).astype(int).tolist() for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(frame, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def record(
    frames: Iterable[tuple[np.ndarray, np.ndarray]],
    capture: Capture,
    size: int,
    rate: float,
    seconds: float,
) -> Iterator[np.ndarray]:
    """Records the frames of a clip, in constant memory.

    Args:
      frames: Frames (size, size, 3) uint8, each with the position (2,) of the face in pixels.
      capture: How they are recorded.
      size: Side of the frames in pixels.
      rate: Frames per second.
      seconds: Duration of the clip.

    Yields:
      As many (size, size, 3) uint8 frames.
    """
    developer = Developer(capture, size, seconds)
    small = max(16, 2 * round(size * capture.scale / 2)) if capture.scale < 1 else size
    coder = None
    if capture.codec != "none":
        coder = Transcoder(capture.codec, capture.quality, small, small, rate)
    last = None
    for number, (frame, place) in enumerate(frames):
        moved = (0.0, 0.0) if last is None else place - last
        last = place
        frame = developer.develop(frame, number, rate, moved)
        if small != size:
            frame = cv2.resize(frame, (small, small), interpolation=cv2.INTER_AREA)
        for coded in coder.push(frame) if coder else (frame,):
            yield _finish(coded, capture, size)
    for coded in coder.flush() if coder else ():
        yield _finish(coded, capture, size)


def _finish(frame, capture, size):
    """Enlarges a frame to its size, and sharpens it."""
    if len(frame) != size:
        frame = cv2.resize(frame, (size, size), interpolation=_RESAMPLERS[capture.resampler])
    if capture.sharpening:
        soft = cv2.GaussianBlur(frame, (0, 0), max(0.6, 1.2 * size / 256))
        frame = cv2.addWeighted(frame, 1 + capture.sharpening, soft, -capture.sharpening, 0)
    return frame
