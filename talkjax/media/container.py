"""Opening possibly hostile media files, and the clock that their streams share.

Every file is opened by `open_input`, which restricts FFmpeg to a plain local path, the `file`
protocol and a fixed list of self-contained formats. Play lists, concatenations and other formats
that name further files or addresses are refused before any of these is opened.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import glued_wav

# Self-contained formats only: no hls, dash, concat, sdp, image2, lavfi, avisynth ...
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,mxf,wtv,nut,gif,"
    "h264,hevc,m4v,ivf,obu,av1,wav,w64,aiff,au,caf,flac,mp3,aac,ac3,eac3,amr,ape,wv,tta,dts,"
    "truehd,loas,mp2,dv,rm,nsv,vob,y4m,yuv4mpegpipe,apng,webp_anim"
)
# A tag that is not UTF-8 must not prevent a file from being read. PyAV before 19 raises an error
# unless it gets this option; later versions decode any bytes and have no such option.
_TAG_ERRORS = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
MAX_SIDE = 16384
MAX_PIXELS = 1 << 26  # 67 Mpixel: 8192 x 8192


def check_local_file(path: PathLike) -> str:
    """Returns the absolute path of a media file.

    Raises:
      UserError: The path is an address, or does not name a regular, readable, non-empty file.
    """
    name = os.fspath(path)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not name or "\0" in name:
        raise UserError("the path is empty or invalid; give the path of a video or audio file")
    try:
        status = os.stat(name)
    except OSError as error:
        if "://" in name:
            raise UserError(
                f"{name}: addresses are not opened; download the file and give its path"
            ) from None
        missing = isinstance(error, FileNotFoundError)
        why = "not found" if missing else (error.strerror or "bad path").lower()
        raise UserError(f"{name}: {why}; check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{name}: is a directory; give the path of one media file")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{name}: is not a regular file; give the path of a media file")
    if status.st_size == 0:
        raise UserError(f"{name}: is empty (0 bytes); give a complete media file")
    if not os.access(name, os.R_OK):
        raise UserError(f"{name}: cannot be read (permission denied); check its permissions")
    return os.path.abspath(name)


@contextlib.contextmanager
def open_input(path: PathLike) -> Iterator[av.container.InputContainer]:
    """Opens a local media file for reading.

    Args:
      path: A local path. Addresses, directories, devices and play lists are refused.

    Yields:
      The PyAV container.

    Raises:
      UserError: The file is missing, empty, unreadable, badly truncated or not a media file.
    """
    name = check_local_file(path)
    glued = glued_wav.find(name)
    # The "file:" prefix keeps a path such as "concat:a|b" from being read as a protocol.
    source = "file:" + name if glued is None else glued_wav.GluedReader(name, glued)
    formats = _FORMATS if glued is None else "wav"
    try:
        container = av.open(
            source,
            options={"max_pixels": str(MAX_PIXELS)},
            container_options={"protocol_whitelist": "file", "format_whitelist": formats},
            **_TAG_ERRORS,
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UserError(
            f"{os.fspath(path)}: is not a readable media file (truncated, damaged or another kind "
            f"of file: {_reason(error)}); give a complete video or audio file"
        ) from None
    try:
        yield container
    finally:
        container.close()
        if glued is not None:
            source.close()


def left_out_parts(path: PathLike) -> int:
    """Returns the number of recordings in a file that `open_input` does not read."""
    glued = glued_wav.find(check_local_file(path))
    return 0 if glued is None else glued.left_out


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0]


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """Returns the best stream of moving pictures (not cover art), or None."""
    best = container.streams.best("video")
    candidates = ([best] if best is not None else []) + list(container.streams.video)
    for stream in candidates:
        attached = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
        if stream.codec_context is not None and not stream.disposition & attached:
            return stream
    return None


def audio_stream(
    container: av.container.InputContainer, track: int | None = None
) -> av.AudioStream | None:
    """Returns the audio stream that speaks, or None if no audio can be decoded.

    As in players, it is the first one that is marked as default, or the first one if none is.
    (FFmpeg's choice would be that with most bits, which is often the music.)

    Args:
      container: From `open_input`.
      track: Number of the audio stream, from 0, or None to choose.

    Raises:
      UserError: There is no such track, or it cannot be decoded.
    """
    streams = list(container.streams.audio)
    if track is not None:
        name = os.path.basename(container.name.removeprefix("file:"))
        if not 0 <= track < len(streams):
            raise UserError(f"audio_track={track}: {name} has {_describe_tracks(len(streams))}")
        if streams[track].codec_context is None:
            raise UserError(f"audio_track={track}: its kind of sound cannot be decoded in {name}")
        return streams[track]
    known = [stream for stream in streams if stream.codec_context is not None]
    marked = [s for s in known if s.disposition & av.stream.Disposition.default]
    return next(iter(marked + known), None)


def _describe_tracks(count: int) -> str:
    if not count:
        return "no audio; give a file with sound"
    return "only audio track 0" if count == 1 else f"{count} audio tracks; give 0 to {count - 1}"


def alpha_decoder(stream) -> av.CodecContext | None:
    """Returns a decoder that keeps the transparency of a WebM stream, or None for other streams.

    FFmpeg's own decoders of VP8 and VP9, its first choice, ignore the second picture that WebM
    stores for alpha, and so show what transparent pixels hide.
    """
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(codec_name(stream))
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    if name is None or tags.get("alpha_mode") != "1" or name not in av.codecs_available:
        return None
    decoder = av.CodecContext.create(name, "r")
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    return decoder


def codec_name(stream) -> str:
    """Returns FFmpeg's name of a stream's codec (not of the decoder, such as mp3float)."""
    return stream.codec_context.codec.canonical_name


class Damage:
    """Counts what went wrong in decoding one stream."""

    def __init__(self) -> None:
        self.errors = 0
        self.cut_short = False

    def __bool__(self) -> bool:
        return self.cut_short or self.errors > 0


def decode(container, stream, damage: Damage) -> Iterator:
    """Decodes a stream to its end and skips damaged packets.

    Args:
      container: From `open_input`.
      stream: One of its streams.
      damage: Records packets that cannot be decoded, and a file that ends early.

    Yields:
      PyAV frames in presentation order.
    """
    packets = container.demux(stream)
    decoder = alpha_decoder(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError):
            damage.cut_short = True
            break
        try:
            frames = packet.decode() if decoder is None else decoder.decode(packet)
        except (av.error.FFmpegError, OSError):
            damage.errors += 1
            continue
        yield from frames
    with contextlib.suppress(av.error.FFmpegError, OSError):
        yield from (decoder or stream.codec_context).decode(None)


def frame_ticks(frame) -> int | None:
    """Returns a frame's presentation time in its time base, or None if the file has none."""
    return frame.pts if frame.pts is not None else frame.dts


def _first_time(path: PathLike, pick) -> Fraction | None:
    with open_input(path) as container:
        stream = pick(container)
        if stream is None:
            return None
        for frame in decode(container, stream, Damage()):
            ticks = frame_ticks(frame)
            return None if ticks is None else ticks * Fraction(frame.time_base)
    return None


def clip_zero(path: PathLike, track: int | None = None) -> Fraction:
    """Returns the clip's zero on the clock of its container, in seconds.

    It is the time of the first decoded picture or of the first decoded audio sample, whichever is
    earlier, which players treat as the start. Because it comes from decoding and not from the
    header, it accounts for encoder delay, edit lists and the arbitrary first timestamp of MPEG
    streams. Whatever audio track is chosen, the zero of a video is the same.

    Args:
      path: A local media file.
      track: The audio track of a file without video, see `audio_stream`.
    """
    picture = _first_time(path, video_stream)
    track = track if picture is None else None
    times = [picture, _first_time(path, lambda container: audio_stream(container, track))]
    known = [time for time in times if time is not None]
    return min(known, default=Fraction(0))


def display_name(path: PathLike) -> str:
    """Returns the path as the user gave it, for messages."""
    return str(Path(os.fsdecode(os.fspath(path))))
