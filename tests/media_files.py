"""Small real media files for tests, made with PyAV."""

from __future__ import annotations

import dataclasses
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_CONTAINERS = {".mpg": "mpeg", ".ts": "mpegts", ".mkv": "matroska", ".m4a": "ipod"}
_VIDEO_CODECS = {".webm": "libvpx-vp9", ".mpg": "mpeg2video"}
_AUDIO_CODECS = {
    ".webm": "libopus", ".mpg": "mp2", ".mp3": "libmp3lame", ".flac": "flac", ".ogg": "libvorbis",
    ".opus": "libopus", ".wav": "pcm_s16le", ".ac3": "ac3",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sound:
    """An audio stream to write: `samples` is (channels, n) in [-1, 1]."""

    samples: np.ndarray
    rate: int = 44100
    codec: str | None = None
    offset: float = 0.0


def tone(seconds: float = 1.0, rate: int = 44100, channels: int = 1, hertz: float = 440.0):
    """(channels, n) float32 sine, each channel an octave above the one before."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = hertz * 2.0 ** np.arange(channels)[:, None]
    return (0.4 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def clicks(seconds: float, rate: int, times, channels: int = 1, width: float = 0.004):
    """(channels, n) float32 silence with short 1 kHz bursts that begin at `times`."""
    time = np.arange(round(seconds * rate)) / rate
    wave = np.zeros_like(time)
    for start in times:
        inside = (time >= start) & (time < start + width)
        wave[inside] = 0.9 * np.sin(2 * np.pi * 1000 * (time[inside] - start))
    return np.repeat(wave[None].astype(np.float32), channels, axis=0)


def picture(index: int, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8: smooth, with a brightness by number and edges and corners that differ."""
    y, x = np.mgrid[0:height, 0:width]
    red = 40 + 120 * x / max(1, width - 1)
    green = 40 + 120 * y / max(1, height - 1)
    blue = np.full_like(red, 40 + (index * 7) % 160)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def pictures(count: int, width: int, height: int) -> list[np.ndarray]:
    return [picture(i, width, height) for i in range(count)]


def make_media(
    path: Path,
    images: list[np.ndarray] | None = None,
    *,
    fps: float | Fraction = 25,
    times: list[float] | None = None,
    sound: Sound | None = None,
    codec: str | None = None,
    pix_fmt: str = "yuv420p",
    tags: tuple[int, int, int, int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    gop: int = 12,
    aspect: Fraction | None = None,
    interlaced: bool = False,
    alpha_mode: bool = False,
) -> Path:
    """Writes a media file with PyAV alone, independently of the code under test.

    Args:
      path: Its suffix chooses the container and, unless given, the codecs.
      images: RGB pictures, or None for audio only.
      fps: Frame rate; `times` (seconds) overrides the times of the frames.
      sound: An audio stream, or None.
      codec, pix_fmt, options, gop: For the video encoder.
      tags: Primaries, transfer, matrix, range; the pixels are converted by BT.601 or BT.709 to
        match. None: untagged, BT.601.
      container_options: For the muxer.
      aspect: Width of a pixel over its height.
      interlaced: Whether the pictures are two fields, the top one first.
      alpha_mode: Whether to tag the stream as WebM does for transparent pictures.
    """
    path = Path(path)
    output = av.open(
        str(path), "w", format=_CONTAINERS.get(path.suffix), container_options=container_options
    )
    with output:
        packets: list[av.Packet] = []
        video = audio = None
        if images is not None:
            rate = Fraction(fps).limit_denominator(1001)
            video = output.add_stream(
                codec or _VIDEO_CODECS.get(path.suffix, "libx264"), rate=rate, options=options or {}
            )
            height, width = images[0].shape[:2]
            video.width, video.height, video.pix_fmt = width, height, pix_fmt
            context = video.codec_context
            if context.name.startswith(("mpeg", "mjpeg")):
                video.bit_rate = 4_000_000  # the default of these codecs is very low
            context.gop_size = gop
            context.time_base = Fraction(1, 90000) if times else 1 / rate
            if alpha_mode:
                video.metadata["alpha_mode"] = "1"
            if aspect:
                context.sample_aspect_ratio = aspect
            if interlaced:
                context.flags |= 0x20040000  # interlaced DCT and motion estimation
            if tags:
                (context.color_primaries, context.color_trc) = tags[:2]
                (context.colorspace, context.color_range) = tags[2:]
        if sound is not None:
            channels = sound.samples.shape[0]
            audio = output.add_stream(
                sound.codec or _AUDIO_CODECS.get(path.suffix, "aac"),
                rate=sound.rate,
                layout={1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels],
            )
        if video is not None:
            packets += _encode_video(video, images, times, tags, interlaced)
        if audio is not None:
            packets += _encode_audio(audio, sound)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return path


def _encode_video(stream, images, times, tags, interlaced) -> list[av.Packet]:
    packets = []
    base = stream.codec_context.time_base
    marker = None
    for i, image in enumerate(images):
        kind = "rgba" if image.shape[2] == 4 else "rgb24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=kind)
        if stream.pix_fmt not in ("rgb24", "gbrp"):
            frame = frame.reformat(
                format=stream.pix_fmt,
                dst_colorspace=1 if tags and tags[2] == 1 else 5,
                dst_color_range=2 if tags and tags[3] == 2 else 1,
            )
        if interlaced:
            marker = marker or _field_marker(frame)
            frame.pts, frame.time_base = i, base
            marker.push(frame)
            frame = marker.pull()
        frame.pts = i if times is None else round(times[i] / base)
        frame.time_base = base
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _field_marker(frame: av.VideoFrame) -> av.filter.Graph:
    """A filter that flags frames as interlaced, which PyAV cannot do itself."""
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format.name,
            time_base=Fraction(1, 25),
        ),
        graph.add("setfield", "mode=tff"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _encode_audio(stream, sound: Sound) -> list[av.Packet]:
    context = stream.codec_context
    resampler = av.AudioResampler(context.format, context.layout, context.sample_rate)
    packets = []
    shift = round(sound.offset * sound.rate)
    for start in range(0, sound.samples.shape[1], 4096):
        samples = np.ascontiguousarray(sound.samples[:, start : start + 4096])
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=context.layout.name)
        frame.sample_rate = sound.rate
        frame.pts, frame.time_base = shift + start, Fraction(1, sound.rate)
        for resampled in resampler.resample(frame):
            packets += stream.encode(resampled)
    for resampled in resampler.resample(None):
        packets += stream.encode(resampled)
    return packets + stream.encode(None)


def rotate_mp4(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Sets (a, b, c, d) of the display matrix of an mp4's first track, in place.

    A point (x, y) of the stored picture is shown at (a x + c y, b x + d y): (0, 1, -1, 0) turns
    it by 90 degrees clockwise.
    """
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 4 + (32 if data[at] == 1 else 20) + 16  # version, times and ids, layer and volume
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    return path


def cut(path: Path, fraction: float) -> Path:
    """Truncates a file in place."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def write_wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    """Writes (channels, n) float32 samples as a 32-bit float wav; NaN is kept."""
    data = np.ascontiguousarray(samples.T.astype("<f4")).tobytes()
    channels = samples.shape[0]
    kind = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4, channels * 4, 32)
    body = b"WAVEfmt " + struct.pack("<I", 16) + kind
    body += b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


def syllables(seconds, rate=16000, level=0.02):
    """Noise that comes and goes as syllables do."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (level * noise * np.maximum(np.sin(2 * np.pi * 2.5 * time), 0)).astype(np.float32)
