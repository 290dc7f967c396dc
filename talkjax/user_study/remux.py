"""Copies of videos and pictures that say nothing about where they come from.

Streams are copied bit for bit into a new MP4, so nothing is lost, but names, times and metadata of
the containers stay behind, and so do the notes that H.264 encoders write into the stream itself
(x264 puts its version and settings there). What a copy cannot hide: length, size in bytes, pixels,
codec parameters, and the encoder's name inside of AAC sound.
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
_SEI = 6  # NAL unit type of H.264: supplemental information, encoders' notes among it
_MTIME = 946684800  # 2000-01-01: the order in which copies were made is nobody's business
_CONVERT = "e.g. with ffmpeg -i IN -c:v libx264 -crf 12 -pix_fmt yuv420p -c:a aac OUT.mp4"


@dataclasses.dataclass(frozen=True)
class Streams:
    """What to copy of a video, and its length in seconds."""

    video: av.VideoStream
    audio: av.AudioStream | None
    seconds: float


def seconds_of(path: os.PathLike, sound: bool = True) -> float:
    """Length of a video in seconds.

    Raises:
      UserError: it is no video that browsers play, or has no sound where there should be some.
    """
    with media.open_input(path) as source:
        return _streams(source, path, sound).seconds


def copy_video(path: os.PathLike, out: Path, sound: bool = True) -> None:
    """Copies a video's best streams to the MP4 file `out`, without metadata.

    Args:
      path: a local video.
      out: file to write; its folder exists.
      sound: whether the sound is copied, and has to be there.

    Raises:
      UserError: as `seconds_of`, or the file is damaged.
    """
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with media.open_input(path) as source:
        chosen = _streams(source, path, sound)
        streams = [s for s in (chosen.video, chosen.audio) if s is not None]
        try:
            with av.open(str(out), "w", format="mp4", container_options=options) as target:
                copies = {s.index: target.add_stream_from_template(s) for s in streams}
                clean = _without_notes(chosen.video)
                for packet in source.demux(streams):
                    index = packet.stream.index
                    whole = [packet] if packet.size else []  # an empty one ends a stream
                    ready = clean(packet) if index == chosen.video.index else whole
                    for piece in ready:
                        piece.stream = copies[index]
                        target.mux(piece)
        except (av.error.FFmpegError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be copied into an MP4 ({error}); make it anew, {_CONVERT}"
            ) from error
    os.utime(out, (_MTIME, _MTIME))


def copy_picture(path: os.PathLike, out: Path) -> None:
    """Copies a picture to the PNG file `out`, upright and without metadata.

    Raises:
      UserError: it is no PNG, JPEG, WebP or BMP picture.
    """
    import cv2

    data = cv2.imencode(".png", cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR))[1]
    out.write_bytes(data.tobytes())
    os.utime(out, (_MTIME, _MTIME))


def _without_notes(stream: av.VideoStream):
    """Packet -> packets, without supplemental units where the stream is H.264."""
    if media.codec_name(stream) != "h264":
        return lambda packet: [packet] if packet.size else []
    units = BitStreamFilterContext(f"filter_units=remove_types={_SEI}", stream)
    return lambda packet: units.filter(packet if packet.size else None)


def _streams(source, path: os.PathLike, sound: bool) -> Streams:
    video = media.video_stream(source)
    if video is None:
        raise UserError(f"{path}: has no video stream; give talking-face videos")
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
        raise UserError(f"{path}: does not say how long it is; make it anew, {_CONVERT}")
    return Streams(video, audio, source.duration / av.time_base)
