"""Decoding the audio of any file to blocks of samples without gaps."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import container as media

_LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
_SLACK_S = 0.05  # timestamps that differ from the sample count by more than this are real gaps
_MAX_OVERLAP_S = 1.0
_MAX_SILENCE_S = 1800.0  # bounds what a file with absurd timestamps can cost


class AudioBlock(NamedTuple):
    """A block of consecutive samples.

    Attributes:
      samples: (channels, n) float32.
      rate: Sample rate in Hz.
      layout: FFmpeg's name of the channel layout.
    """

    samples: np.ndarray
    rate: int
    layout: str


def aligned_blocks(path: PathLike, track: int | None = None) -> Iterator[AudioBlock]:
    """Streams a file's audio with all channels at its own rate, from the clip's zero, without gaps.

    Gaps in the timestamps are filled with silence and overlaps are cut, so that the index of a
    sample always gives its time. Values that are not finite become 0.

    Args:
      path: A local media file.
      track: Number of the audio stream, see `container.audio_stream`.

    Yields:
      `AudioBlock`s, all of the same rate and layout.

    Raises:
      UserError: The file is not a media file, has no such track, or its audio is empty or all NaN.
    """
    name = media.display_name(path)
    seen, finite = 0, False
    with media.open_input(path) as container:
        stream = media.audio_stream(container, track)
        if stream is None:
            raise UserError(f"{name}: has no audio stream; give a file with sound")
        zero = None
        if media.video_stream(container) is not None:
            zero = media.clip_zero(path)
        place = None
        for frame, is_last in _mark_last(media.decode(container, stream, media.Damage())):
            if frame.sample_rate <= 0 or not frame.samples:
                continue
            if place is None:
                place = _Placement(frame.sample_rate, zero)
                rate, (layout, channels) = frame.sample_rate, channel_layout(frame.layout)
            samples = _samples(frame, rate, channels)
            if is_last:
                samples = samples[:, : _stored_length(frame)]
            good = np.isfinite(samples)
            finite = finite or bool(good.any())
            if not good.all():
                samples = np.where(good, samples, np.float32(0))
            seen += samples.shape[1]
            silence, cut = place(frame, samples.shape[1])
            while silence > 0:
                length = min(silence, rate)
                yield AudioBlock(np.zeros((channels, length), np.float32), rate, layout)
                silence -= length
            if cut < samples.shape[1]:
                yield AudioBlock(samples[:, cut:], rate, layout)
    if not seen:
        raise UserError(f"{name}: its audio stream holds no sound (zero length); give another file")
    if not finite:
        raise UserError(f"{name}: its audio holds no valid sample (all NaN); give another file")


def _mark_last(frames: Iterator[av.AudioFrame]) -> Iterator[tuple[av.AudioFrame, bool]]:
    previous = None
    for frame in frames:
        if previous is not None:
            yield previous, False
        previous = frame
    if previous is not None:
        yield previous, True


def _stored_length(frame: av.AudioFrame) -> int:
    """Returns the number of samples of a stream's last frame.

    A frame that lasts less than its samples ends with the encoder's padding. In Matroska, durations
    are rounded to milliseconds, so small differences are no padding there.
    """
    tick = Fraction(frame.time_base) * frame.sample_rate  # samples per tick
    samples = round(tick * (frame.duration or 0))
    rounding = 0 if tick <= 1 else 2 * tick
    return samples if 1 <= samples < frame.samples - rounding else frame.samples


def channel_layout(layout: av.AudioLayout) -> tuple[str, int]:
    """Returns FFmpeg's name of a layout and its number of channels.

    A layout without a name gets the usual name for its number of channels.
    """
    count = layout.nb_channels
    if count > len(_LAYOUTS):
        return "mono", 1
    if layout.name.endswith("channels") or layout.name.startswith("ambisonic"):
        return _LAYOUTS[count - 1], count
    return layout.name, count


class _Placement:
    """Decides from a frame's timestamp how much silence precedes it or how much of it is cut."""

    def __init__(self, rate: int, zero: Fraction | None) -> None:
        self._rate, self._zero = rate, zero
        self._written = 0
        self._silence_left = round(_MAX_SILENCE_S * rate)

    def __call__(self, frame: av.AudioFrame, count: int) -> tuple[int, int]:
        """Returns (samples of silence before the frame, samples to cut from its start)."""
        silence = cut = 0
        ticks = media.frame_ticks(frame)
        if ticks is not None:
            time = ticks * Fraction(frame.time_base)
            if self._zero is None:
                self._zero = time
            gap = round((time - self._zero) * self._rate) - self._written
            slack = _SLACK_S * self._rate if self._written else 0
            if abs(gap) > slack:
                if -_MAX_OVERLAP_S * self._rate < gap < 0:
                    cut = min(-gap, count)
                elif 0 < gap <= self._silence_left:
                    silence = gap
                    self._silence_left -= gap
                else:  # joined recordings or absurd timestamps: continue from here
                    self._zero += Fraction(gap, self._rate)
        self._written += silence + count - cut
        return silence, cut


def _samples(frame: av.AudioFrame, rate: int, channels: int) -> np.ndarray:
    """Converts samples of any type to (channels, n) float32 at `rate`."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif np.issubdtype(data.dtype, np.integer):
        data = (data / (np.iinfo(data.dtype).max + 1)).astype(np.float32)
    data = data.astype(np.float32, copy=False)
    if data.shape[0] != channels:  # too many, or the layout changed
        data = np.repeat(data.mean(axis=0, keepdims=True), channels, axis=0)
    if frame.sample_rate != rate:
        import soxr

        data = soxr.resample(data.T, frame.sample_rate, rate).T
    return data
