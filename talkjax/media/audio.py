"""Audio: reading any file as 16 kHz mono aligned with its video, and log-mel spectrograms.

`stream_mono` and `stream_log_mel` work piece by piece in constant memory. `load_audio` and
`log_mel` collect their output for a whole clip. Whatever hears speech hears it through them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np

from talkjax.conventions import (
    MEL_FLOOR,
    MEL_MAX_HZ,
    MEL_MIN_HZ,
    MELS_PER_SECOND,
    NUM_MELS,
    SAMPLE_RATE,
    TICKS_PER_SECOND,
)
from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import container as media
from talkjax.media import loudness
from talkjax.media.audio_blocks import aligned_blocks
from talkjax.media.downmix import Downmix

HOP = SAMPLE_RATE // MELS_PER_SECOND  # samples from one mel frame to the next
_N_FFT, _WIN = 512, 400
LEAD = _N_FFT // 2  # samples of silence before and after a clip
_CHUNK = 100  # mel frames computed at a time, always, so that all results are the same to the bit
_SPEECH_HZ = (200.0, 5500.0)  # the level is measured in this band (ITU-T P.56)
_MAX_SECONDS = 4 * 3600.0  # 0.9 GB at 16 kHz


def load_audio(
    path: PathLike, sample_rate: int = SAMPLE_RATE, track: int | None = None
) -> np.ndarray:
    """Reads the audio of any audio or video file; see `stream_mono`.

    Args:
      path: A local media file.
      sample_rate: Rate of the result in Hz.
      track: Number of the audio stream, see `container.audio_stream`.

    Returns:
      (S,) float32 mono in [-1, 1], S = ceil(duration * sample_rate).

    Raises:
      UserError: The file is not a media file, has no audio stream, or its audio is empty, all NaN
        or longer than 4 hours.
    """
    pieces: list[np.ndarray] = []
    length = 0
    for piece in stream_mono(path, sample_rate, track):
        pieces.append(piece)
        length += len(piece)
        if length > _MAX_SECONDS * sample_rate:
            raise UserError(
                f"{media.display_name(path)}: its audio is longer than {_MAX_SECONDS / 3600:g} "
                "hours; cut it into parts"
            )
    return np.concatenate(pieces)


def stream_mono(
    path: PathLike, sample_rate: int = SAMPLE_RATE, track: int | None = None
) -> Iterator[np.ndarray]:
    """Reads the audio of any audio or video file piece by piece.

    Sample 0 is the clip's zero, so that sample i belongs with `VideoFrame.time == i / sample_rate`.
    A stream that starts later than its video is padded with silence, and encoder delay is removed.

    Args:
      path: A local media file.
      sample_rate: Rate of the result in Hz.
      track: Number of the audio stream, see `container.audio_stream`.

    Yields:
      (n,) float32 mono (see `downmix`) in [-1, 1], n >= 0. All pieces together have
      ceil(duration * sample_rate) samples.

    Raises:
      UserError: The file is not a media file, has no audio stream, or its audio is empty or all
        NaN.
    """
    import soxr

    resampler, rate = None, sample_rate
    read = written = 0
    for mono, rate in _stream_channel(path, track):
        read += len(mono)
        if resampler is None and rate != sample_rate:
            resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
        piece = mono if resampler is None else resampler.resample_chunk(mono)
        written += len(piece)
        yield np.clip(piece, -1.0, 1.0)
    length = -(-read * sample_rate // rate)  # rounded up, as librosa.resample does
    if resampler is not None:  # the resampler lags behind its input, so `written` < `length` here
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)[: length - written]
        written += len(rest)
        yield np.clip(rest, -1.0, 1.0)
    yield np.zeros(length - written, np.float32)


def _stream_channel(path: PathLike, track: int | None) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (n,) float32 samples of the mixed channels, and their rate in Hz."""
    mix = None
    for block in aligned_blocks(path, track):
        if mix is None:
            channels = tuple(channel.name for channel in av.AudioLayout(block.layout).channels)
            mix = Downmix(channels, block.rate)
        yield mix.push(block.samples), block.rate
    if mix is not None:
        yield mix.flush(), block.rate


def exact_duration(path: PathLike, track: int | None = None) -> Fraction:
    """Decodes a file's audio and returns the seconds from the clip's zero to its end.

    Raises:
      UserError: As `stream_mono`.
    """
    total, rate = 0, 1
    for block in aligned_blocks(path, track):
        total, rate = total + block.samples.shape[1], block.rate
    return Fraction(total, rate)


def audio_duration(path: PathLike) -> float:
    """Returns `exact_duration` as a float."""
    return float(exact_duration(path))


@functools.lru_cache(maxsize=1)
def mel_filterbank() -> np.ndarray:
    """Returns librosa's Slaney mel filterbank, (80, 257) float32."""
    import librosa

    return librosa.filters.mel(
        sr=SAMPLE_RATE, n_fft=_N_FFT, n_mels=NUM_MELS, fmin=MEL_MIN_HZ, fmax=MEL_MAX_HZ
    ).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _window() -> np.ndarray:
    """Returns the periodic Hann window of 400 samples, centred in 512."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WIN) / _WIN)
    side = (_N_FFT - _WIN) // 2
    return np.pad(hann, (side, _N_FFT - _WIN - side)).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    """Returns `mel_filterbank` and a row that gives the mean square in the band of speech."""
    hertz = np.arange(_N_FFT // 2 + 1) * SAMPLE_RATE / _N_FFT
    band = (hertz >= _SPEECH_HZ[0]) & (hertz <= _SPEECH_HZ[1])
    level = band * 2 / (_N_FFT * (_window() ** 2).sum())
    return np.concatenate([mel_filterbank(), level[None]]).astype(np.float32)


def log_mel(wave: np.ndarray) -> np.ndarray:
    """Computes the log-mel spectrogram of 16 kHz mono audio whose speech is brought to one level.

    It equals log(max(gain * librosa.feature.melspectrogram(power=2, center=True), 1e-5)) without
    the slow first call, where `loudness` finds the gain. Frame m is centred at m / 100 s; samples
    outside of the clip are zero.

    Args:
      wave: (S,) float32.

    Returns:
      (M, 80) float32, M = 1 + S // 160.
    """
    wave = np.asarray(wave, np.float32)
    if wave.ndim != 1:
        raise ValueError(f"log_mel takes (S,) mono audio, not an array of shape {wave.shape}")
    return np.concatenate(list(stream_log_mel([wave], _CHUNK)))


def stream_log_mel(waves: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Computes `log_mel` of audio that arrives in pieces, to the last bit.

    Args:
      waves: Consecutive pieces of 16 kHz mono float32 audio, each of any length. They are read
        `loudness.AHEAD_SECONDS` ahead.
      size: Number of frames in each result but the last.

    Yields:
      (n, 80) float32 of the next frames; n is `size`, and at most `size` at the end.
    """
    powers, heard = itertools.tee(_stream_powers(waves))
    gains = loudness.stream_gains(power[:, NUM_MELS] for power in heard)
    mel = np.zeros((0, NUM_MELS), np.float32)
    for power in powers:
        gain = np.fromiter(gains, np.float32, len(power))
        levelled = power[:, :NUM_MELS] * gain[:, None]
        mel = np.concatenate([mel, np.log(np.maximum(levelled, math.exp(MEL_FLOOR)))])
        for start in range(0, len(mel) - size + 1, size):
            yield mel[start : start + size]
        mel = mel[len(mel) // size * size :]
    if len(mel):
        yield mel


def _stream_powers(waves: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields (n, 81) mel powers and levels of `_CHUNK` frames, fewer at the end."""
    silence = np.zeros(LEAD, np.float32)
    samples = np.zeros(0, np.float32)
    enough = (_CHUNK - 1) * HOP + _N_FFT  # samples that `_CHUNK` frames see
    for wave in itertools.chain([silence], waves, [silence]):
        samples = np.concatenate([samples, wave])
        start = 0
        while len(samples) - start >= enough:
            yield frame_powers(samples[start : start + enough])
            start += _CHUNK * HOP
        samples = samples[start:]
    if len(samples) >= _N_FFT:
        yield frame_powers(samples)


def frame_powers(samples: np.ndarray) -> np.ndarray:
    """Computes (n, 81) mel powers and levels of samples, without padding; n may be 0."""
    if len(samples) < _N_FFT:
        return np.zeros((0, NUM_MELS + 1), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _N_FFT)[::HOP]
    spectrum = np.fft.rfft(frames * _window(), axis=-1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return power @ _filters().T


def tick_count(samples: int) -> int:
    """Returns the number of 25 Hz ticks that cover `samples` of 16 kHz audio."""
    return math.ceil(samples * TICKS_PER_SECOND / SAMPLE_RATE)
