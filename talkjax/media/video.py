"""Reading video: `probe` and `VideoReader`, which streams frames and times.

Frames are as a player shows them: upright, with square pixels, progressive, 8-bit RGB, HDR as SDR.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import container as media
from talkjax.media import frame_rate, interlace, pixels, tone_map

_PICTURE_CODECS = ("gif", "apng", "webp", "webp_anim")  # transparent pixels are shown on white


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """Properties of a video that its headers and its first picture give.

    Attributes:
      width, height: Size in pixels of the frames that `VideoReader` yields (after rotation).
      stored_size: (width, height) of the stored pictures (after rotation).
      fps: Average frame rate.
      time_base: Seconds per tick of the video stream's timestamps.
      frames: Number of frames as estimated from the headers, or None.
      duration_s: Length of the video stream in seconds, or None if unknown.
      has_audio: Whether the file has an audio stream that can be decoded.
      audio_codec: FFmpeg's name of the audio codec, or None.
      rotation: Clockwise rotation in degrees that the reader applies (0, 90, 180, 270).
      codec: FFmpeg's name of the video codec.
      pixel_format: FFmpeg's name of the stored pixel format.
      color_primaries, color_trc, colorspace, color_range: The stream's tags (ITU-T H.273
        numbers, range 1 limited or 2 full; 2, 2, 2 and 0 mean untagged).
      stored_aspect_ratio: Width of a stored pixel over its height (after rotation).
      sample_aspect_ratio: The same of the frames that the reader yields. It is 1 unless the stored
        pixels are nearly square, which are left alone.
      hdr: "PQ" or "HLG" if the reader maps HDR to SDR (BT.709), else None.
      interlaced: Whether the first picture is interlaced; the reader deinterlaces those that are.
      background: Grey level on which the reader shows transparent pixels, or None if the first
        picture has none.
      matrix: The colour matrix that the reader uses: the tag, or a guess if there is none.
      zero: Time of the clip's zero (video time 0, audio sample 0) on the container's clock, in
        seconds.
    """

    width: int
    height: int
    stored_size: tuple[int, int]
    fps: float
    time_base: Fraction
    frames: int | None
    duration_s: float | None
    has_audio: bool
    audio_codec: str | None
    rotation: int
    codec: str
    pixel_format: str
    color_primaries: int
    color_trc: int
    colorspace: int
    color_range: int
    stored_aspect_ratio: Fraction
    sample_aspect_ratio: Fraction
    hdr: str | None
    interlaced: bool
    background: int | None
    matrix: int
    zero: Fraction

    def notes(self) -> list[str]:
        """Returns what a user should know of how the frames differ from the file's, in lines."""
        notes = []
        if self.stored_size != (self.width, self.height):
            width, height = self.stored_size
            shape = f"{self.stored_aspect_ratio.numerator}:{self.stored_aspect_ratio.denominator}"
            notes.append(
                f"the template's pixels are not square ({width}x{height} of {shape}); the result "
                f"has the size at which it is shown, {self.width}x{self.height}"
            )
        if self.hdr:
            notes.append(f"the template is HDR ({self.hdr}); the result is SDR (8 bits, BT.709)")
        if self.interlaced:
            notes.append(
                "the template is interlaced; the result is progressive, at the same frame rate"
            )
        if self.background is not None:
            notes.append(
                "the template is partly transparent; the result shows it on "
                f"{'white' if self.background else 'black'}"
            )
        return notes


@dataclasses.dataclass(frozen=True, eq=False)
class VideoFrame:
    """One picture.

    Attributes:
      index: Frame number 0, 1, 2, ... in presentation order.
      time: Seconds from the clip's zero, strictly increasing.
      rgb: (H, W, 3) uint8.
    """

    index: int
    time: float
    rgb: np.ndarray


def probe(path: PathLike) -> VideoInfo:
    """Reads a video's headers and first picture.

    Raises:
      UserError: The file is not a readable video, has no video stream, or holds no picture.
    """
    info, _, _ = _probe(path)
    return info


def _probe(path: PathLike) -> tuple[VideoInfo, tuple[bool, bool, bool], pixels.RgbReader]:
    """Returns the info, the orientation and the converter of pictures."""
    name = media.display_name(path)
    with media.open_input(path) as container:
        stream = _checked_stream(container, name)
        frame = next(media.decode(container, stream, media.Damage()), None)
        if frame is None:
            raise UserError(f"{name}: no picture could be decoded; give a complete video file")
        _check_size(frame.width, frame.height, name)
        how = pixels.orientation(pixels.display_matrix(frame))
        audio = media.audio_stream(container)
        stored = (frame.width, frame.height)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        aspect = aspect if aspect > 0 else Fraction(1)
        shown = pixels.square_size(*stored, aspect, media.MAX_SIDE)
        if shown[0] * shown[1] > media.MAX_PIXELS:
            shown = stored
        hdr = tone_map.NAMES.get(int(frame.color_trc))
        codec = media.codec_name(stream)
        background = 255 if codec in _PICTURE_CODECS else 0
        convert = pixels.RgbReader(
            *stored,
            int(frame.colorspace),
            shown=shown,
            tone_map=hdr and tone_map.ToneMap(int(frame.color_trc), int(frame.color_primaries)),
            background=background,
        )
        turned = how[0]
        width, height = shown[::-1] if turned else shown
        upright = 1 / aspect if turned else aspect
        duration = _duration(container, stream)
        fps = frame_rate.average_rate(container, stream, duration)
        count = stream.frames or (round(duration * fps) if duration else None)
        info = VideoInfo(
            width=width,
            height=height,
            stored_size=stored[::-1] if turned else stored,
            fps=fps,
            time_base=Fraction(stream.time_base),
            frames=count or None,
            duration_s=duration,
            has_audio=audio is not None,
            audio_codec=None if audio is None else media.codec_name(audio),
            rotation=pixels.rotation_degrees(how),
            codec=codec,
            pixel_format=frame.format.name,
            color_primaries=int(frame.color_primaries),
            color_trc=int(frame.color_trc),
            colorspace=int(frame.colorspace),
            color_range=int(frame.color_range),
            stored_aspect_ratio=upright,
            sample_aspect_ratio=upright if shown == stored else Fraction(1),
            hdr=hdr,
            interlaced=bool(frame.interlaced_frame),
            background=background if convert.is_transparent(frame) else None,
            matrix=pixels.effective_matrix(int(frame.colorspace), *stored),
            zero=media.clip_zero(path),
        )
    return info, how, convert


def _checked_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    stream = media.video_stream(container)
    if stream is None:
        raise UserError(f"{name}: has no video stream; give a file with moving pictures")
    _check_size(stream.codec_context.width, stream.codec_context.height, name)
    stream.codec_context.options = {"max_pixels": str(media.MAX_PIXELS)}  # it may change midway
    return stream


def _check_size(width: int, height: int, name: str) -> None:
    if max(width, height) > media.MAX_SIDE or width * height > media.MAX_PIXELS:
        raise UserError(
            f"{name}: pictures of {width}x{height} are too large (the limit is "
            f"{media.MAX_SIDE} a side and {media.MAX_PIXELS} pixels); scale the video down"
        )


def _duration(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    tag = {key.upper(): value for key, value in stream.metadata.items()}.get("DURATION", "")
    try:  # Matroska keeps the length of each stream in a tag such as "00:00:03.000000000"
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        pass
    if container.duration is not None and container.duration > 0:
        return container.duration / av.time_base
    return None


class VideoReader:
    """Streams a video's frames in constant memory; iterate it as often as you like.

    Attributes:
      info: `VideoInfo`.
      truncated: After an iteration has ended: the file stopped early or had damaged pictures
        (what could be decoded was yielded).
    """

    def __init__(self, path: PathLike) -> None:
        """Raises `UserError` if the file is not a readable video (see `probe`)."""
        self.path = path
        self.info, self._how, self._convert = _probe(path)
        self.truncated = False

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *unused) -> None:
        pass  # every iteration closes its own container

    def __iter__(self) -> Iterator[VideoFrame]:
        for index, (time, frame) in enumerate(self.decoded()):
            yield VideoFrame(index, time, self.to_rgb(frame))

    def to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """Converts a frame of `decoded` to a (H, W, 3) uint8 array, as a player shows it."""
        return self._convert(frame, self._how)

    def decoded(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yields (time in seconds, progressive PyAV frame before `to_rgb`)."""
        name = media.display_name(self.path)
        damage = media.Damage()
        clock = FrameClock(self.info)
        end = None
        with media.open_input(self.path) as container:
            stream = _checked_stream(container, name)
            stream.thread_type = "AUTO"
            for frame in interlace.progressive(media.decode(container, stream, damage)):
                end = clock(frame)
                yield end, frame
        if end is None:
            raise UserError(f"{name}: no picture could be decoded; give a complete video file")
        self.truncated = bool(damage) or self._ends_early(end)

    def _ends_early(self, last: float) -> bool:
        if self.info.duration_s is None:
            return False
        slack = max(0.25, 3 / self.info.fps)
        return last + 1 / self.info.fps < self.info.duration_s - slack


class FrameClock:
    """Gives every frame a time in seconds from the clip's zero, strictly increasing.

    Valid timestamps are kept. A frame without a timestamp follows its predecessor by the nominal
    interval, and one whose timestamp does not increase is moved just past its predecessor. After a
    jump backward, as in joined recordings, the clock continues.
    """

    def __init__(self, info: VideoInfo) -> None:
        self._zero = info.zero
        self._step = 1 / info.fps
        self._shift = 0.0
        self._last: float | None = None

    def __call__(self, frame: av.VideoFrame) -> float:
        """Returns the time of the next frame in presentation order."""
        ticks = media.frame_ticks(frame)
        last = self._last
        if ticks is None:
            time = 0.0 if last is None else last + self._step
        else:
            time = float(ticks * Fraction(frame.time_base) - self._zero) + self._shift
            if last is not None and time <= last:
                moved = last + (self._step if last - time > 0.5 else self._step / 8)
                if last - time > 0.5:
                    self._shift += moved - time
                time = moved
        self._last = time
        return time
