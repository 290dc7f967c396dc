"""Mixing channels to the one that networks hear, so that no speech is cancelled.

The mean of the channels cancels what they hold with opposite signs. This happens at all frequencies
if one channel is inverted, as by a wrongly soldered cable, and at some of them if the channels come
from two microphones at a distance. So the phases of the channels are aligned first, for each
frequency of short overlapping frames. Noise that the channels do not share is averaged out as in
the plain mean. Where all channels are equal, the result is any one of them.

In surround sound, speech is in the centre.
"""

from __future__ import annotations

import math

import numpy as np

_HOP_S = 0.02  # longest hop; a frame has twice its length
_BATCH = 32  # hops that are mixed at a time
_MEMORY_S = 0.2  # time constant of the average phase between channels
_STEADY = 0.05  # a channel keeps its phase if it is 26 dB or more above or below the first
_AUDIBLE_DB, _BURIED_DB = -60.0, -20.0  # least power of a centre that is used; below the others
_FRONT, _CENTRE, _BASS = ("FL", "FR"), "FC", ("LFE", "LFE2")


class Downmix:
    """Mixes consecutive blocks; how the sound is divided among them makes no difference."""

    def __init__(self, channels: tuple[str, ...], rate: int) -> None:
        """Starts a mix.

        Args:
          channels: FFmpeg's names of the channels, such as ("FL", "FR").
          rate: Sample rate in Hz.
        """
        self._hop = 1 << max(4, int(math.log2(_HOP_S * rate)))
        self._keep = math.exp(-self._hop / (_MEMORY_S * rate))
        self._centre = channels.index(_CENTRE) if _CENTRE in channels else None
        self._spoken = False  # whether speech was ever heard in the centre
        front = [channels.index(name) for name in _FRONT if name in channels]
        others = [i for i, name in enumerate(channels) if name not in _BASS]
        self._mixed = front or others or list(range(len(channels)))
        self._state: np.ndarray | None = None  # of the filter that averages cross-spectra
        half = np.sin(np.pi * (np.arange(2 * self._hop) + 0.5) / (2 * self._hop))
        self._window = half.astype(np.float32)  # its square overlaps to 1
        # The first frame begins one hop before the sound.
        self._rest = np.zeros((len(channels), self._hop), np.float32)
        self._tail: np.ndarray | None = None  # second half of the last frame
        self._owed = 0  # samples that came and were not returned yet

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Mixes the next (channels, n) float32 samples: (m,) float32, which lag behind."""
        if len(samples) == 1:
            return samples[0]
        self._rest = np.concatenate([self._rest, samples], axis=1)
        self._owed += samples.shape[1]
        ready = self._rest.shape[1] >= (_BATCH + 1) * self._hop
        return self._mix() if ready else np.zeros(0, np.float32)

    def flush(self) -> np.ndarray:
        """Mixes the samples that are left."""
        if not self._owed:
            return np.zeros(0, np.float32)
        # The last samples are in two frames as well.
        silence = np.zeros((len(self._rest), 2 * self._hop), np.float32)
        self._rest = np.concatenate([self._rest, silence], axis=1)
        return self._mix()[: self._owed]

    def _mix(self) -> np.ndarray:
        """Mixes all complete frames, and returns what no further frame reaches."""
        hop, window = self._hop, self._window
        frames = np.lib.stride_tricks.sliding_window_view(self._rest, 2 * hop, axis=1)[:, ::hop]
        self._rest = self._rest[:, frames.shape[1] * hop :]
        spectra = np.fft.rfft(frames * window)
        mixed = self._mean_aligned(spectra[self._mixed])
        if self._centre is not None:
            mixed = np.where(self._has_centre(spectra)[:, None], spectra[self._centre], mixed)
        waves = np.fft.irfft(mixed, 2 * hop).astype(np.float32) * window  # (n, 2 hop)
        begun = waves[0, :0] if self._tail is None else self._tail + waves[0, :hop]
        self._tail = waves[-1, hop:]
        done = np.concatenate([begun, (waves[:-1, hop:] + waves[1:, :hop]).ravel()])
        self._owed -= len(done)
        return done

    def _mean_aligned(self, spectra: np.ndarray) -> np.ndarray:
        """Averages (channels, n, bins) spectra in the average phase of the first one: (n, bins)."""
        from scipy import signal

        first, others = spectra[0], spectra[1:]
        # Where a channel is much louder than the other, it is not turned.
        cross = first * others.conj() + _STEADY * (_power(first) + _power(others))
        if self._state is None:
            self._state = np.zeros_like(cross[:, :1])
        keep = np.float32(self._keep)
        cross, self._state = signal.lfilter([1 - keep], [1, -keep], cross, axis=1, zi=self._state)
        size = np.abs(cross)
        turn = np.where(size > 0, cross / np.where(size > 0, size, 1), 1)
        return (first + (others * turn).sum(0)) / len(spectra)

    def _has_centre(self, spectra: np.ndarray) -> np.ndarray:
        """Returns which frames of (channels, n, bins) take the centre: (n,) bool.

        These are all from the first in which the centre is neither silent nor much quieter than
        the rest. Where it is silent to the end, the front channels are mixed.
        """
        powers = _power(spectra).sum(-1)
        powers *= 2 / (2 * self._hop) ** 2  # to mean squares; that of the window is 1/2
        others = np.delete(powers, self._centre, 0).max(0)
        least = np.maximum(10 ** (_AUDIBLE_DB / 10), 10 ** (_BURIED_DB / 10) * others)
        spoken = np.logical_or.accumulate(powers[self._centre] > least) | self._spoken
        self._spoken = bool(spoken[-1])
        return spoken


def _power(spectra: np.ndarray) -> np.ndarray:
    return np.square(spectra.real) + np.square(spectra.imag)
