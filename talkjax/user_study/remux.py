"""Copies videos and images without anything that reveals their origin.

Streams are copied bit for bit into a new MP4 file, so nothing is lost. The containers' names, times
and metadata are dropped, and so are the notes that H.264 encoders write into the stream itself
(x264 stores its version and settings there). A copy cannot hide length, size in bytes, pixels,
codec parameters and the encoder's name inside AAC audio.
"""

import dataclasses
import os
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext

from talkjax.errors import UserError
from talkjax.media import container as media
from talkjax.media.image import read_image

_VIDEO = {"h264", "vp9", "av1"}
_AUDIO = {"aac", "mp3", "opus"}
_PIXELS = {"yuv420p", "yuvj420p"}
_SEI = 6  # NAL unit type of H.264 for supplemental information such as encoders' notes
_MTIME = 946684800  # 2000-01-01; real times would reveal the order of the copies
_CONVERT = "e.g. with ffmpeg -i IN -c:v libx264 -crf 12 -pix_fmt yuv420p -c:a aac OUT.mp4"


@dataclasses.dataclass(frozen=True)
class Streams:
    """The streams of a video to copy, and its length in seconds."""

    video: av.VideoStream
    audio: av.AudioStream | None
    seconds: float


def video_seconds(path: os.PathLike, sound: bool = True) -> float:
    """Returns the length of a video in seconds.

    Args:
      path: A local video.
      sound: Whether the video must have sound.

    Raises:
      UserError: Browsers cannot play the video, or it has no sound though it must.
    """
    with media.open_input(path) as source:
        return _choose_streams(source, path, sound).seconds


def copy_video(path: os.PathLike, out: Path, sound: bool = True) -> None:
    """Copies a video's best streams to the MP4 file `out`, without metadata.

    Args:
      path: A local video.
      out: File to write; its folder exists.
      sound: Whether the sound is copied; the video must have sound then.

    Raises:
      UserError: See `video_seconds`, or the file is damaged.
    """
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with media.open_input(path) as source:
        chosen = _choose_streams(source, path, sound)
        streams = [s for s in (chosen.video, chosen.audio) if s is not None]
        try:
            with av.open(str(out), "w", format="mp4", container_options=options) as target:
                copies = {s.index: target.add_stream_from_template(s) for s in streams}
                clean = _make_note_filter(chosen.video)
                for packet in source.demux(streams):
                    index = packet.stream.index
                    whole = [packet] if packet.size else []  # an empty one ends a stream
                    ready = clean(packet) if index == chosen.video.index else whole
                    for piece in ready:
                        piece.stream = copies[index]
                        target.mux(piece)
        except (av.error.FFmpegError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be copied into an MP4 file ({error}); encode it again, {_CONVERT}"
            ) from error
    os.utime(out, (_MTIME, _MTIME))


def copy_image(path: os.PathLike, out: Path) -> None:
    """Copies an image to the PNG file `out`, upright and without metadata.

    Raises:
      UserError: The file is not a PNG, JPEG, WebP or BMP image.
    """
    import cv2

    data = cv2.imencode(".png", cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR))[1]
    out.write_bytes(data.tobytes())
    os.utime(out, (_MTIME, _MTIME))


def _make_note_filter(stream: av.VideoStream):
    """Returns a function from packet to packets that drops supplemental units of H.264."""
    if media.codec_name(stream) != "h264":
        return lambda packet: [packet] if packet.size else []
    units = BitStreamFilterContext(f"filter_units=remove_types={_SEI}", stream)
    return lambda packet: units.filter(packet if packet.size else None)


def _choose_streams(source, path: os.PathLike, sound: bool) -> Streams:
    video = media.video_stream(source)
    if video is None:
        raise UserError(f"{path}: no video stream; give talking-face videos")
    name, pixels = media.codec_name(video), video.codec_context.pix_fmt
    if name not in _VIDEO or pixels not in _PIXELS:
        raise UserError(
            f"{path}: not every browser plays {name} with {pixels}; convert it, {_CONVERT}"
        )
    audio = media.audio_stream(source) if sound else None
    if sound and audio is None:
        raise UserError(f"{path}: has no sound; raters judge speech, so give videos with sound")
    if audio is not None and media.codec_name(audio) not in _AUDIO:
        raise UserError(
            f"{path}: not every browser plays {media.codec_name(audio)}; convert it, {_CONVERT}"
        )
    if not source.duration:
        raise UserError(f"{path}: its length is unknown; encode it again, {_CONVERT}")
    return Streams(video, audio, source.duration / av.time_base)
