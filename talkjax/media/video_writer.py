"""Writing video: H.264 with exact timestamps and colour tags, next to the original audio."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

import av
import numpy as np

from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import container as media
from talkjax.media import pixels
from talkjax.media.audio_mux import AudioTrack
from talkjax.media.video import VideoInfo

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_FINE = Fraction(1, 10_000)  # resolution of timestamps by default, in seconds
_COARSEST = Fraction(1, 1000)  # which tells the frames of any rate apart
_ROUNDING = 1e-6  # seconds
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class ColorTags:
    """Colour description in ITU-T H.273 numbers, of which 2 is "unspecified".

    The default is BT.709. RGB is converted with `matrix` to limited range. The matrix is always
    specified.
    """

    primaries: int = 1
    transfer: int = 1
    matrix: int = pixels.MATRIX_BT709

    @classmethod
    def of(cls, info: VideoInfo) -> ColorTags:
        """Returns the tags of what a source's reader yields, with the matrix that it uses."""
        if info.hdr:  # which the reader maps to BT.709
            return cls()
        known = [tag if tag > 0 else 2 for tag in (info.color_primaries, info.color_trc)]
        return cls(*known, info.matrix)


class VideoWriter:
    """Writes frames with explicit times to an mp4, mov or mkv file; a context manager.

    The file appears under its name only when it is complete; after an exception, nothing is left.
    H.264 in 4:2:0, the only kind that Apple's players and most phones show, allows only even sizes.
    The last column or row of a picture of odd size is repeated, so that no pixel is lost.

    Attributes:
      size: (width, height) of the written pictures.
      audio: The sound that is added, an `AudioTrack`, or None.
      audio_copied: Whether the audio is a bit-exact copy, or None if there is no audio.
    """

    def __init__(
        self,
        path: PathLike,
        width: int,
        height: int,
        fps: float | Fraction = 25.0,
        *,
        time_base: Fraction | None = None,
        crf: float = 18.0,
        preset: str = "medium",
        color: ColorTags | None = None,
        sample_aspect_ratio: Fraction = Fraction(1),
        audio: PathLike | None = None,
        audio_codec: str = "auto",
        audio_track: int | None = None,
        lossless: bool = False,
        cut_audio: bool = False,
        metadata: Mapping[str, str] | None = None,
        finish: Callable[[str], None] | None = None,
    ) -> None:
        """Opens the output.

        Args:
          path: Output file; its suffix (.mp4, .m4v, .mov, .mkv) chooses the container.
          width, height: Size of the frames.
          fps: Average frame rate, which the encoder uses and the length of the last frame.
          time_base: Times are whole multiples of it, in seconds, or of a fraction of it where it is
            coarse; derived from `fps` if None.
          crf: x264's constant rate factor.
          preset: x264's preset.
          color: Tags and matrix; BT.709 if None.
          sample_aspect_ratio: Shape of a pixel.
          audio: File whose audio is added, on the clock of `load_audio`.
          audio_codec: How, see `AudioTrack`.
          audio_track: Which of its audio streams, see `container.audio_stream`.
          lossless: Whether to write RGB without loss (H.264 High 4:4:4, qp 0), for tests.
          cut_audio: Whether the sound ends with the pictures, within one packet, if it is longer.
          metadata: Tags of the container that all formats have, such as "comment".
          finish: Called with the path of the complete file, which it may replace, before the file
            gets its name.

        Raises:
          UserError: The output cannot be created, or the audio cannot be used.
        """
        if width < 1 or height < 1:
            raise ValueError(f"frames of {width}x{height} cannot be written")
        self._name = media.display_name(path)
        self._path = os.path.abspath(os.fsdecode(os.fspath(path)))
        output_format = _output_format(self._path, self._name)
        self._shape = (height, width, 3)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._time_base = (
            _halved(Fraction(time_base), _COARSEST) if time_base else _halved(1 / self._rate, _FINE)
        )
        color = color or ColorTags()
        pixel_format = "rgb24" if lossless else "yuv420p"
        self.size = (width, height) if lossless else (width + width % 2, height + height % 2)
        self._cut_audio, self._finish = cut_audio, finish
        self._convert = pixels.YuvWriter(pixel_format, color.matrix)
        self._temporary = os.path.join(os.path.dirname(self._path), f".{secrets.token_hex(8)}.part")
        self._pending: tuple[int, np.ndarray] | None = None
        self._last_time = 0.0
        self._held: av.Packet | None = None
        self._first = (0, 0)
        self._sums_durations = output_format != "matroska"
        self._durations: dict[int, int] = {}
        self._container = None
        self._audio: AudioTrack | None = None
        with self._cleaning_up():
            with open(
                self._temporary, "xb"
            ):  # fails with a clear error if the directory is not writable
                pass
            # Edit lists are rounded to the movie's own clock, which is in milliseconds by default.
            options = {"movflags": "+faststart", "movie_timescale": "90000"}
            options = {} if output_format == "matroska" else options
            self._container = av.open(
                "file:" + self._temporary, "w", format=output_format, container_options=options
            )
            self._container.metadata.update(metadata or {})
            settings = {"crf": str(crf), "preset": preset}
            if lossless:
                settings = {"qp": "0", "preset": "ultrafast"}
            self._stream = self._add_video(pixel_format, settings, None if lossless else color)
            self._stream.codec_context.sample_aspect_ratio = Fraction(sample_aspect_ratio)
            if audio:
                self._audio = AudioTrack(
                    self._container, output_format, audio, audio_codec, audio_track
                )
        self.audio = self._audio
        self.audio_copied = self._audio.copied if self._audio else None

    def notes(self) -> list[str]:
        """Returns what a user should know of how the file differs from the frames, in lines."""
        height, width = self._shape[:2]
        if self.size == (width, height):
            return []
        return [
            f"players show only even sizes, so the last column or row of {width}x{height} is "
            f"repeated: {self.size[0]}x{self.size[1]}"
        ]

    @classmethod
    def like(cls, path: PathLike, info: VideoInfo, **options) -> VideoWriter:
        """Opens a writer with a source's size, rate, time base, pixel shape and colours."""
        settings = {
            "fps": info.fps,
            "time_base": info.time_base,
            "color": ColorTags.of(info),
            "sample_aspect_ratio": info.sample_aspect_ratio,
        }
        return cls(path, info.width, info.height, **(settings | options))

    def _add_video(
        self, pixel_format: str, settings: dict[str, str], color: ColorTags | None
    ) -> av.VideoStream:
        name = "libx264rgb" if pixel_format == "rgb24" else "libx264"
        stream = self._container.add_stream(name, rate=self._rate, options=settings)
        stream.width, stream.height = self.size
        stream.pix_fmt = pixel_format
        context = stream.codec_context
        context.time_base = stream.time_base = self._time_base
        if color is not None:
            context.color_primaries, context.color_trc = color.primaries, color.transfer
            context.colorspace, context.color_range = color.matrix, 1
        return stream

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind, *unused) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, rgb: np.ndarray, time: float) -> None:
        """Adds a frame.

        Args:
          rgb: (H, W, 3) uint8.
          time: Time at which it is shown in seconds, not before its predecessor.
        """
        if rgb.shape != self._shape or rgb.dtype != np.uint8:
            raise ValueError(f"expected {self._shape} uint8, got {rgb.shape} {rgb.dtype}")
        if not self._last_time <= time < float("inf"):
            raise ValueError(f"a frame at {time} s cannot follow one at {self._last_time} s")
        self._last_time = time
        previous = self._pending[0] if self._pending else -1
        ticks = max(round(time / self._time_base), previous + 1)  # two within one tick
        with self._cleaning_up():
            self._encode_pending(ticks)
        self._pending = (ticks, rgb.copy())

    def close(self, end: float | None = None) -> None:
        """Completes the file and gives it its name.

        Args:
          end: Time at which the last frame ends in seconds. By default the frame lasts one average
            interval, because a shorter one would change the average rate that players show.
        """
        if self._container is None:
            return
        if self._pending is None:
            self.abort()
            raise UserError(f"{self._name}: no frame was written; the source holds no picture")
        with self._cleaning_up():
            if end is None:
                end = float(self._pending[0] * self._time_base + 1 / self._rate)
            end_ticks = max(self._pending[0] + 1, round(end / self._time_base))
            self._encode_pending(end_ticks)
            self._mux_video(self._stream.encode(None))
            self._mux_held(end_ticks)
            self._mux_audio(end - _ROUNDING if self._cut_audio else None)
            self._container.close()
            self._container = None
            if self._finish is not None:
                self._finish(self._temporary)
            os.replace(self._temporary, self._path)

    def abort(self) -> None:
        """Removes what was written so far."""
        container, self._container = self._container, None
        self._pending = self._audio = self._held = None
        if container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
                container.close()
        with contextlib.suppress(OSError):
            os.remove(self._temporary)

    def _encode_pending(self, until: int) -> None:
        """Encodes the frame that was kept until its end was known."""
        if self._pending is None:
            return
        ticks, rgb = self._pending
        self._pending = None
        frame = self._convert(rgb)
        frame.pts, frame.time_base, frame.duration = ticks, self._time_base, until - ticks
        self._durations[ticks] = until - ticks
        self._mux_video(self._stream.encode(frame))

    def _mux_video(self, packets: list[av.Packet]) -> None:
        """Muxes all but the newest packet, whose length changes if it is the last one."""
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            if self._held is None:
                self._first = (packet.pts, packet.dts)
            else:
                self._mux_held()
            self._held = packet

    def _mux_held(self, end: int | None = None) -> None:
        packet = self._held
        if end is not None and self._sums_durations:
            # In mp4 a frame lasts from one decoding time to the next, so with B-frames the last
            # packet decides where the track ends although another frame may be shown last.
            first_shown, first_decoded = self._first
            packet.duration = max(1, end - first_shown - (packet.dts - first_decoded))
        self._mux_audio(float(packet.dts * packet.time_base))
        self._container.mux(packet)

    def _mux_audio(self, until: float | None) -> None:
        """Muxes the audio up to the time of the video, so that neither accumulates in memory."""
        if self._audio is not None:
            for packet in self._audio.packets(until):
                self._container.mux(packet)

    @contextlib.contextmanager
    def _cleaning_up(self) -> Iterator[None]:
        """Removes the temporary file on any exception; system errors become `UserError`s."""
        try:
            yield
        except BaseException as error:
            self.abort()
            if isinstance(error, OSError):
                raise UserError(f"{self._name}: {_why(error)}") from None
            raise


def _why(error: OSError) -> str:
    if error.errno in _FULL:
        return "the disk is full; free some space or choose another place"
    if isinstance(error, FileNotFoundError):
        return "its directory does not exist; create it first"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return "its directory is not writable; choose another place"
    if isinstance(error, NotADirectoryError):
        return "is inside something that is not a directory; choose another place"
    return f"cannot be written ({error.strerror or error}); choose another place"


def _output_format(path: str, name: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _FORMATS:
        raise UserError(f"{name}: output must end in one of {', '.join(_FORMATS)}")
    if os.path.isdir(path):
        raise UserError(f"{name}: is a directory; give the name of an output file")
    return _FORMATS[suffix]


def _halved(time_base: Fraction, limit: Fraction) -> Fraction:
    """Halves a time base until it is not above a limit."""
    while time_base > limit:
        time_base /= 2
    return time_base
