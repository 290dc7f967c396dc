"""Distorts log-mel spectrograms in the ways in which recordings of speech differ.

One `Channel` is what lies between a mouth and the network: the length of the vocal tract, the room,
the microphone, the line and the noise. All mel frames of a sample pass through the same one. It
works on spectrograms, so shards need not hold the waveform.
"""

import dataclasses
import math

import numpy as np

from talkjax.conventions import MEL_FLOOR, MELS_PER_SECOND, NUM_MELS, mel_frequencies

_DECAY_SECONDS = (0.15, 0.8)  # time in which reverberation loses 60 dB
_REVERBERANT_DB = (-14.0, -2.0)  # energy of the reflections over that of the direct sound
_LINE_HZ = (200.0, 400.0), (3000.0, 7000.0)  # lower and upper limits of telephones and codecs
_LINE_DB_PER_OCTAVE = (24.0, 60.0)
_NEPERS_PER_DB = math.log(10) / 10  # of power


@dataclasses.dataclass(frozen=True)
class Amounts:
    """How strong the distortions are; all zero changes nothing.

    Attributes:
      gain: Standard deviation of the loudness in nats of power (0.23 nats are 1 dB).
      noise: Loudest added noise in nats above `MEL_FLOOR`; half of the samples get none. The level
        is reached in the loudest band of a random spectrum.
      masks: At most so many bands and so many moments are masked (SpecAugment, arXiv 1904.08779).
      warp: Standard deviation of the logarithm of `warp_frequencies`' factor.
      equalizer: Deviation of `random_equalizer` in nats of power.
      room: Chance of reverberation.
      line: Chance of the limited bandwidth of a telephone or a codec.
    """

    gain: float = 0.0
    noise: float = 0.0
    masks: int = 0
    warp: float = 0.0
    equalizer: float = 0.0
    room: float = 0.0
    line: float = 0.0


@dataclasses.dataclass(frozen=True)
class Channel:
    """A randomly drawn way from a mouth to the network.

    Attributes:
      factor: Factor of all frequencies, see `warp_frequencies`.
      change: (80,) gain of the bins in nats of power, or None.
      decay, reflected: Factor of reverberation from one mel frame to the next, and its level in
        nats of power; a decay of 0 is no room.
      limits: (80,) attenuation of the line in nats of power, or None.
      noise: (80,) log-mel of the noise, or None.
      masked_bands: (first, end) bins that the microphone lacks.
    """

    factor: float = 1.0
    change: np.ndarray | None = None
    decay: float = 0.0
    reflected: float = 0.0
    limits: np.ndarray | None = None
    noise: np.ndarray | None = None
    masked_bands: tuple[tuple[int, int], ...] = ()

    def apply(self, mel: np.ndarray) -> np.ndarray:
        """Distorts (..., L, 80) log-mel frames: the same shape, float32, at least `MEL_FLOOR`."""
        out = mel
        if self.factor != 1.0:
            out = warp_frequencies(out, self.factor)
        if self.decay:
            out = reverberate(out, self.decay, self.reflected)
        if self.change is not None:  # Silence stays silent whatever the microphone.
            out = np.where(out <= MEL_FLOOR + 1e-5, out, out + self.change)
        if self.noise is not None:
            out = np.logaddexp(out, self.noise)
        if self.limits is not None:
            out = out - self.limits
        # Worker processes pass C-ordered arrays through shared memory, others through a slow pipe.
        out = np.ascontiguousarray(np.maximum(out, MEL_FLOOR), np.float32)
        for first, end in self.masked_bands:
            out[..., first:end] = MEL_FLOOR
        return out


def draw_channel(rng: np.random.Generator, amounts: Amounts) -> Channel:
    """Draws a channel."""
    factor = math.exp(rng.normal(0, amounts.warp)) if amounts.warp else 1.0
    change = noise = limits = None
    if amounts.gain or amounts.equalizer:
        change = np.float32(rng.normal(0, amounts.gain)) + random_equalizer(rng, amounts.equalizer)
    decay = reflected = 0.0
    if rng.random() < amounts.room:
        decay = 10 ** (-6 / MELS_PER_SECOND / rng.uniform(*_DECAY_SECONDS))
        reflected = rng.uniform(*_REVERBERANT_DB) * _NEPERS_PER_DB
    if rng.random() < amounts.line:
        limits = _draw_line(rng)
    if amounts.noise and rng.random() < 0.5:
        colour = random_equalizer(rng, 1.0) + rng.normal(0, 0.3, NUM_MELS)
        level = MEL_FLOOR + rng.uniform(0, amounts.noise)
        noise = (level + colour - colour.max()).astype(np.float32)
    bands = []
    for _ in range(rng.integers(amounts.masks + 1) if amounts.masks else 0):
        width = int(rng.integers(1, 11))
        low = int(rng.integers(NUM_MELS - width + 1))
        bands.append((low, low + width))
    return Channel(factor, change, decay, reflected, limits, noise, tuple(bands))


def mask_moments(rng: np.random.Generator, mel: np.ndarray, masks: int) -> np.ndarray:
    """Replaces at most `masks` short moments of (L, 80) frames by the average, in a copy.

    The average, not silence, because the mouth moves on and silence must keep meaning a mouth at
    rest.
    """
    if not masks:
        return mel
    out, average = mel.copy(), np.maximum(mel.mean(0), np.float32(MEL_FLOOR))
    for _ in range(rng.integers(masks + 1)):
        width = rng.integers(1, 9)
        first = rng.integers(len(out) - width + 1)
        out[first : first + width] = average
    return out


def random_silence(rng: np.random.Generator, frames: int, noise: float) -> np.ndarray:
    """Makes silence of a room: (frames, 80) log-mel of steady noise, or of nothing at all.

    Args:
      rng: The sample's generator.
      frames: Number of mel frames.
      noise: Loudest noise in nats above `MEL_FLOOR`.
    """
    out = np.full((frames, NUM_MELS), MEL_FLOOR, np.float32)
    if rng.random() < 0.25:
        return out
    colour = random_equalizer(rng, 1.0) + rng.normal(0, 0.3, NUM_MELS)
    level = MEL_FLOOR + rng.uniform(0, noise) + colour - colour.max()
    # The power of a band of noise in one frame is about exponentially distributed; neighbouring
    # frames overlap.
    power = rng.exponential(1.0, (frames + 2, NUM_MELS))
    power = (power[:-2] + power[1:-1] + power[2:]) / 3
    return np.logaddexp(out, level + np.log(power + 1e-3)).astype(np.float32)


def reverberate(mel: np.ndarray, decay: float, level: float) -> np.ndarray:
    """Adds exponentially decaying reflections to (..., L, 80) log-mel frames.

    Powers add, since reflections arrive with random phases.

    Args:
      mel: Log-mel; before its first frame there is silence.
      decay: Factor of the reflections' power from one frame to the next.
      level: Energy of all reflections over that of the direct sound, in nats of power.
    """
    floor = np.float32(math.exp(MEL_FLOOR))
    power = np.maximum(np.exp(mel.astype(np.float32)) - floor, 0)  # silence has no reflections
    tail = np.zeros_like(power[..., 0, :])
    gain = np.float32(math.exp(level) * (1 - decay) / decay)
    out = np.empty_like(power)
    for i in range(power.shape[-2]):
        out[..., i, :] = power[..., i, :] + gain * tail
        tail = np.float32(decay) * (tail + power[..., i, :])
    return np.log(out + floor)


def warp_frequencies(mel: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies all frequencies of a log-mel spectrogram, as a shorter vocal tract does.

    This is vocal tract length perturbation (Jaitly and Hinton, 2013).

    Args:
      mel: (..., 80) log-mel.
      factor: Factor of the frequencies. Beyond the ends the first or last bin repeats.
    """
    centres = mel_frequencies()
    place = np.interp(centres / factor, centres, np.arange(NUM_MELS))
    low = np.minimum(place.astype(np.int64), NUM_MELS - 2)
    share = (place - low).astype(np.float32)
    return mel[..., low] * (1 - share) + mel[..., low + 1] * share


def random_equalizer(rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Draws a smooth gain for each mel bin, like that of another microphone: (80,) float32, nats.

    The gain is a sum of the first four cosines over the bins; the slowest one, a tilt from dark to
    bright, is the strongest. The standard deviation over all bins is `deviation`. FilterAugment
    (arXiv 2107.13260) is similar.
    """
    order = np.arange(1, 5)
    amounts = rng.normal(0, 1, 4) / order
    waves = np.cos(np.pi * order[:, None] * (np.arange(NUM_MELS) + 0.5) / NUM_MELS)
    scale = deviation / math.sqrt(0.5 * (1 / order**2).sum())
    return (scale * amounts @ waves).astype(np.float32)


def _draw_line(rng: np.random.Generator) -> np.ndarray:
    """Draws the attenuation of a telephone, or of a codec that cuts high frequencies alone."""
    centres, steep = mel_frequencies(), rng.uniform(*_LINE_DB_PER_OCTAVE) * _NEPERS_PER_DB
    low, high = rng.uniform(*_LINE_HZ[0]), rng.uniform(*_LINE_HZ[1])
    octaves = np.maximum(np.log2(centres / high), 0)
    if rng.random() < 0.5:
        octaves = octaves + np.maximum(np.log2(low / centres), 0)
    return (steep * octaves).astype(np.float32)
