"""Carries a file's audio into an output container, unchanged wherever players accept that."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.packet import PacketSideData

from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import audio_blocks
from talkjax.media import container as media

# Codecs that each container can hold, and those that its usual players play. Apple's refuse or mute
# mp3, Opus and FLAC in mp4. Others are encoded as AAC, or FLAC in Matroska.
HELD = {
    "mp4": {"aac", "mp3", "mp2", "ac3", "eac3", "alac", "flac", "opus"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be"},
    "matroska": {"aac", "mp3", "mp2", "ac3", "eac3", "alac", "flac", "opus", "vorbis"}
    | {"pcm_s16le", "pcm_s24le", "pcm_f32le"},
}
PLAYED = {
    "mp4": {"aac", "alac"},
    "mov": {"aac", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be"},
    "matroska": HELD["matroska"],
}
_AAC_PROFILES = {"LC", "HE-AAC", "HE-AACv2"}  # that Apple's players play
_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200)
_AAC_RATES += (96000,)
_AAC_LAYOUTS = ("mono", "stereo", "5.1", "7.1")
_BITS_PER_SAMPLE = 4  # generous for AAC: 176 kbit/s per channel at 44.1 kHz


class AudioTrack:
    """The audio of one input file as packets of an output stream, produced on demand.

    Attributes:
      copied: Whether the packets are those of the input.
      source_codec: FFmpeg's name of the input's codec.
      codec: FFmpeg's name of the output's codec.
      tracks: Number of audio streams of the input.
      track: Number of the one that is used.
      left_out: Number of recordings in the input that are not used, see `glued_wav`.
    """

    def __init__(
        self,
        output,
        output_format: str,
        path: PathLike,
        codec: str = "auto",
        track: int | None = None,
    ) -> None:
        """Adds the stream to `output` (PyAV, header not yet written).

        Args:
          output: The container.
          output_format: FFmpeg's name of its format.
          path: The input.
          codec: "auto" copies what the usual players of the output play and
            encodes the rest, "copy" copies anything, "aac" encodes everything.
          track: Number of the audio stream, see `container.audio_stream`.

        Raises:
          UserError: The file has no usable audio, or the output cannot hold its codec.
        """
        self._path, self._track = path, track
        with media.open_input(path) as source:
            stream = media.audio_stream(source, track)
            if stream is None:
                name = media.display_name(path)
                raise UserError(f"{name}: has no audio stream; give a file with sound")
            self.tracks = len(source.streams.audio)
            self.track = list(source.streams.audio).index(stream)
            self.left_out = media.left_out_parts(path)
            self.source_codec = media.codec_name(stream)
            self._zero = media.clip_zero(path, track)
            self.copied = _decide_copy(source, stream, output_format, self._zero, codec)
            if self.copied:
                self._stream = output.add_stream_from_template(stream)
                self._stream.time_base = Fraction(1, stream.codec_context.sample_rate)
            else:
                self._stream = _add_encoder(output, output_format, stream.codec_context)
        self.codec = media.codec_name(self._stream)
        self._packets = self._copy() if self.copied else self._encode()
        self._next: av.Packet | None = None

    def packets(self, until: float | None) -> Iterator[av.Packet]:
        """Yields the packets that start before `until` seconds, or all remaining ones if None."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
                if self._next is None:
                    return
            packet = self._next
            if until is not None and packet.pts * packet.time_base > until:
                return
            self._next = None
            yield packet

    def _copy(self) -> Iterator[av.Packet]:
        with media.open_input(self._path) as source:
            stream = media.audio_stream(source, self._track)
            rate = stream.codec_context.sample_rate
            clock = _PacketClock(rate, stream.codec_context.frame_size, self._zero)
            packets = source.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                except (av.error.FFmpegError, OSError):
                    return  # a truncated file; what could be read is used
                if packet is None:
                    return
                if packet.size == 0:
                    continue
                clock(packet)
                packet.stream = self._stream
                yield packet

    def _encode(self) -> Iterator[av.Packet]:
        context = self._stream.codec_context
        resampler = av.AudioResampler(context.format, context.layout, context.sample_rate)
        written = 0
        for block in audio_blocks.aligned_blocks(self._path, self._track):
            samples = np.ascontiguousarray(np.clip(block.samples, -1.0, 1.0))
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=block.layout)
            frame.sample_rate = block.rate
            frame.pts, frame.time_base = written, Fraction(1, block.rate)
            written += samples.shape[1]
            for resampled in resampler.resample(frame):
                yield from self._stream.encode(resampled)
        for resampled in resampler.resample(None):
            yield from self._stream.encode(resampled)
        yield from self._stream.encode(None)


def _decide_copy(
    source, stream: av.AudioStream, output_format: str, zero: Fraction, codec: str
) -> bool:
    """Returns whether the packets are copied; raises `UserError` if they should but cannot be."""
    name = media.codec_name(stream)
    if codec == "aac":
        if output_format == "matroska":
            raise UserError(
                "audio_codec=aac would shift the sound in .mkv; give another output or "
                "audio_codec=auto"
            )
        return False
    if codec == "auto":
        played = name in PLAYED[output_format]
        if name == "aac" and output_format != "matroska":
            played = (stream.codec_context.profile or "LC") in _AAC_PROFILES
        return played and _can_copy(source, stream, output_format, zero)
    if name in HELD[output_format] and _can_copy(source, stream, output_format, zero):
        return True
    raise UserError(
        f"audio_codec=copy: {name} sound of this kind cannot be copied exactly into a "
        f"{output_format} file; give audio_codec=auto or another kind of output"
    )


def _can_copy(source, stream: av.AudioStream, output_format: str, zero: Fraction) -> bool:
    """Returns whether the packets keep their length and time in the output's container."""
    if not stream.codec_context.sample_rate:
        return False
    first = next((packet for packet in source.demux(stream) if packet.size), None)
    if first is None or first.pts is None:
        return False
    # FFmpeg's Matroska muxer does not record the encoder's delay; it would shift the video.
    return output_format != "matroska" or first.pts * first.time_base >= zero


def _add_encoder(output, output_format: str, source: av.AudioCodecContext) -> av.AudioStream:
    """Adds an encoder with the source's rate and channels, or the nearest that the codec has."""
    layout, channels = audio_blocks.channel_layout(source.layout)
    if output_format == "matroska":
        return output.add_stream("flac", rate=source.sample_rate, layout=layout)
    if layout not in _AAC_LAYOUTS:
        layout, channels = "stereo", 2
    rate = next((known for known in _AAC_RATES if known >= source.sample_rate), 48000)
    stream = output.add_stream("aac", rate=rate, layout=layout)
    stream.bit_rate = min(192_000, _BITS_PER_SAMPLE * rate) * channels
    return stream


class _PacketClock:
    """Converts the timestamps of packets to a clock that counts samples from the clip's zero.

    Containers such as Matroska store milliseconds. Where packets have a fixed number of samples
    and their timestamps agree with the number of samples so far, that number is used, so that
    nothing is rounded.
    """

    def __init__(self, rate: int, frame_size: int, zero: Fraction) -> None:
        self._rate, self._size, self._zero = rate, frame_size, zero
        self._expected: int | None = None
        self._given = 0

    def __call__(self, packet: av.Packet) -> None:
        base = Fraction(packet.time_base)
        stamp = packet.pts if packet.pts is not None else packet.dts
        given = round(packet.duration * base * self._rate) if packet.duration else 0
        rounding = max(1, round(base * self._rate))  # samples per tick: 44 in Matroska, else 1
        length = self._size or given
        if stamp is None:
            start = self._expected or 0
        else:
            start = round((stamp * base - self._zero) * self._rate)
            expected = self._expected
            if expected is not None:
                if self._size and abs(start - expected) <= rounding:
                    start = expected
                elif start <= expected - max(length, 1):
                    start = expected  # timestamps must increase
        full = self._size or self._given or given
        if given and given < full - 2 * rounding:
            length = given  # the last packet, whose padding is cut already
        else:
            length = max(1, length - _discarded(packet))
        self._given = given
        packet.pts = packet.dts = start
        packet.time_base = Fraction(1, self._rate)
        packet.duration = length
        self._expected = start + length


def _discarded(packet: av.Packet) -> int:
    """Returns the number of samples at the packet's end that are the encoder's padding."""
    data = PacketSideData.from_packet(packet, "skip_samples")
    return int.from_bytes(bytes(data)[4:8], "little") if data and data.data_size >= 8 else 0
