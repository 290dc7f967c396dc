"""From phonemes to the mouth's movement.

Co-articulation by dominance (Cohen and Massaro, 1993): every phoneme has, for every channel, a
target and a strength; its dominance is flat during the phoneme and decays on both sides, and a
channel is the average of the targets, weighted by dominance. Weak phonemes (h, k) so take the
shape of their neighbours, rounding begins long before a rounded vowel is heard, and fast speech
undershoots. What may not be undershot - closure of p, b, m, the bite of f, v - is imposed at the
end. Everything is a function of the phonemes and of a mild personal style, so that the sound
tells the movement.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from data_pipelines.synthetic.espeak import STRESS, Phoneme

CHANNELS = ("jaw", "part", "press", "round", "spread", "tuck", "tongue")
BILABIAL = frozenset("pbm")
LABIODENTAL = frozenset("fv")

_REST = (0.0, 0.0, 0.0, 0.0, 0.05, 0.0, 0.0)
_REST_STRENGTH = 1.2
# Seconds in which dominance falls to 1/e before a phoneme and after it, of each channel.
_BEFORE = np.array([0.036, 0.022, 0.03, 0.07, 0.045, 0.03, 0.03])
_AFTER = np.array([0.038, 0.025, 0.03, 0.045, 0.04, 0.03, 0.03])
_JAW_YIELDS = 0.65  # consonants' hold on the jaw
_PAUSE = 0.12  # seconds; shorter gaps between phonemes are bridged
_RELAX = 0.1  # seconds that the last shape of an utterance is held before the lips close
_PREPARE = 0.06  # seconds that the first shape is taken before it is heard
_SMOOTH = 0.012  # seconds
# Closures: shortest, and how long lips take to come together and apart.
_CLOSED, _CLOSING, _OPENING = 0.045, 0.055, 0.045
_CODA = 0.6  # of a voiced plosive that is not heard to be released

# jaw, part, round, spread, tongue; strengths below. A vowel's tongue lies low.
# fmt: off
_VOWELS = {
    "a": (1.0, 0, 0.1), "ɑ": (1.0, 0.05, 0), "æ": (0.92, 0, 0.3), "ɐ": (0.7, 0, 0.05),
    "ʌ": (0.68, 0, 0.05), "ɒ": (0.82, 0.4, 0), "ɔ": (0.68, 0.6, 0), "o": (0.45, 0.85, 0),
    "ɛ": (0.6, 0, 0.4), "e": (0.45, 0, 0.6), "ə": (0.38, 0.03, 0.1), "ɚ": (0.36, 0.3, 0),
    "ɜ": (0.45, 0.25, 0), "ɪ": (0.3, 0, 0.6), "i": (0.2, 0, 0.95), "ᵻ": (0.26, 0, 0.5),
    "ɨ": (0.24, 0, 0.5), "ʊ": (0.3, 0.75, 0), "u": (0.2, 1.0, 0), "y": (0.2, 0.95, 0.05),
    "ʏ": (0.28, 0.75, 0.05), "ø": (0.36, 0.8, 0.05), "œ": (0.55, 0.65, 0.05), "ɤ": (0.45, 0, 0.2),
    "ɵ": (0.4, 0.6, 0),
}
# jaw, its strength; round, its strength; spread, its strength; tongue.
_CONSONANTS = {
    "t": (0.16, 1.2, 0.0, 0.15, 0.25, 0.3, 0.8), "d": (0.17, 1.2, 0.0, 0.15, 0.25, 0.3, 0.8),
    "n": (0.2, 1.0, 0.0, 0.15, 0.2, 0.3, 0.85), "l": (0.26, 0.9, 0.0, 0.15, 0.15, 0.3, 1.0),
    "ɾ": (0.24, 0.7, 0.0, 0.12, 0.15, 0.2, 0.9), "r": (0.22, 0.9, 0.05, 0.2, 0.15, 0.3, 0.95),
    "θ": (0.16, 1.4, 0.0, 0.3, 0.25, 0.5, 1.0), "ð": (0.18, 1.2, 0.0, 0.3, 0.2, 0.4, 1.0),
    "s": (0.04, 4.5, 0.0, 0.4, 0.55, 1.0, 0.45), "z": (0.05, 4.0, 0.0, 0.4, 0.5, 0.9, 0.45),
    "ʃ": (0.07, 4.0, 0.8, 1.8, 0.0, 1.0, 0.35), "ʒ": (0.07, 4.0, 0.8, 1.8, 0.0, 1.0, 0.35),
    "ç": (0.14, 1.2, 0.0, 0.3, 0.6, 0.8, 0.1), "j": (0.16, 1.0, 0.0, 0.3, 0.7, 0.8, 0.1),
    "ʎ": (0.2, 1.0, 0.0, 0.3, 0.5, 0.6, 0.6), "ɲ": (0.18, 1.0, 0.0, 0.3, 0.5, 0.6, 0.6),
    "w": (0.14, 1.4, 1.0, 2.0, 0.0, 1.2, 0.0), "ɥ": (0.14, 1.2, 0.95, 1.8, 0.0, 1.0, 0.0),
    "ɹ": (0.22, 1.0, 0.45, 0.9, 0.0, 0.6, 0.3), "ɫ": (0.28, 0.8, 0.1, 0.2, 0.0, 0.3, 1.0),
    "k": (0.28, 0.35, 0.0, 0.08, 0.1, 0.12, 0.0), "ɡ": (0.28, 0.35, 0.0, 0.08, 0.1, 0.12, 0.0),
    "ŋ": (0.28, 0.4, 0.0, 0.1, 0.1, 0.15, 0.0), "x": (0.3, 0.35, 0.0, 0.1, 0.1, 0.12, 0.0),
    "ɣ": (0.3, 0.3, 0.0, 0.08, 0.1, 0.1, 0.0), "χ": (0.32, 0.35, 0.0, 0.1, 0.1, 0.12, 0.0),
    "ʁ": (0.32, 0.35, 0.0, 0.1, 0.1, 0.12, 0.0), "h": (0.35, 0.12, 0.0, 0.05, 0.1, 0.05, 0.0),
    "ʔ": (0.3, 0.1, 0.0, 0.05, 0.1, 0.05, 0.0), "p": (0.14, 1.3, 0.0, 0.1, 0.1, 0.1, 0.0),
    "b": (0.15, 1.3, 0.0, 0.1, 0.1, 0.1, 0.0), "m": (0.15, 1.3, 0.0, 0.1, 0.1, 0.1, 0.0),
    "β": (0.2, 1.0, 0.0, 0.1, 0.1, 0.1, 0.0), "f": (0.12, 1.7, 0.0, 0.3, 0.15, 0.4, 0.0),
    "v": (0.12, 1.6, 0.0, 0.3, 0.15, 0.4, 0.0), "ʋ": (0.16, 1.2, 0.0, 0.3, 0.1, 0.3, 0.0),
}
_PARTS = {"p": 0.0, "b": 0.0, "m": 0.0, "β": 0.3, "w": 0.55, "ɥ": 0.55, "f": 0.5, "v": 0.5}
_TUCKS = {"f": 1.0, "v": 1.0, "ʋ": 0.5}
_ALIASES = {
    "g": "ɡ", "ʲ": "j", "ɬ": "l", "ɭ": "l", "ʀ": "ʁ", "ɱ": "m", "ɦ": "h", "ɕ": "ʃ", "ʑ": "ʒ",
    "ʝ": "j",
}
# fmt: on
_NEUTRAL = ((0.3, 0.9, 0, 0, 0.1, 0, 0.1), (0.3, 0.6, 0.6, 0.15, 0.15, 0.3, 0.2))


@dataclass(frozen=True)
class Style:
    """How a person articulates; 1 is average.

    Attributes:
      strength: of all movement.
      openness: of the jaw.
      rounding: of the lips.
      spreading: of the corners.
    """

    strength: float = 1.0
    openness: float = 1.0
    rounding: float = 1.0
    spreading: float = 1.0


def sample_style(rng: np.random.Generator) -> Style:
    """A person's way of speaking: mild, as the sound does not tell it."""
    strength, openness = rng.uniform(0.85, 1.12), rng.uniform(0.92, 1.08)
    rounding, spreading = rng.uniform(0.88, 1.1), rng.uniform(0.85, 1.15)
    return Style(float(strength), float(openness), float(rounding), float(spreading))


def base(symbol: str) -> str:
    """The first sound of an IPA symbol without stress, e.g. "t" of "tʃ" and "a" of "ˈaɪ"."""
    plain = [_ALIASES.get(c, c) for c in symbol if c not in STRESS]
    return next((c for c in plain if c in _VOWELS or c in _CONSONANTS), "")


def bilabial_times(phonemes: Sequence[Phoneme]) -> np.ndarray:
    """When the lips are shut for p, b and m.

    Returns:
      (n, 2) float64 seconds, in order: first and last moment of each closure; none is shorter than
      `_CLOSED` (save at time 0), so that every video of 25 fps has a frame in it.
    """
    spans = [_closure(p) for p in phonemes if base(p.symbol) in BILABIAL]
    return np.maximum(np.array(spans, np.float64).reshape(-1, 2), 0.0)


def _closure(phoneme: Phoneme) -> tuple[float, float]:
    start, end = phoneme.start, phoneme.end
    if base(phoneme.symbol) != "m":
        # Voiced plosives run into each other and into nasals without a release of their own.
        least = _CODA * (end - start) if base(phoneme.symbol) == "b" else 0.0
        end = start + (phoneme.hold if phoneme.hold >= 0.02 else max(phoneme.hold, least))
    missing = max(_CLOSED - (end - start), 0.0)
    return start - 0.75 * missing, end + 0.25 * missing


def curves(
    phonemes: Sequence[Phoneme],
    duration: float,
    rate: float = 100.0,
    style: Style | None = None,
) -> np.ndarray:
    """The movement of a mouth that says something.

    Args:
      phonemes: in order; what is between them is silence.
      duration: seconds.
      rate: curve values a second; value i is at time i / rate.
      style: the speaker's; average if None.

    Returns:
      (T, 7) float32 of `CHANNELS`, each in [0, 1], T = ceil(duration * rate) + 1.
    """
    style = style or Style()
    time = np.arange(math.ceil(duration * rate - 1e-6) + 1) / rate
    total = np.full((len(time), len(CHANNELS)), 1e-6)
    value = total * np.array(_REST)
    for start, end, target, strength in _segments(phonemes):
        before = np.maximum(start - time, 0)[:, None] / _BEFORE
        after = np.maximum(time - end, 0)[:, None] / _AFTER
        dominance = strength * np.exp(-np.maximum(before, after))
        total += dominance
        value += dominance * target
    out = value / total
    out *= np.array([style.openness, 1, 1, style.rounding, style.spreading, 1, 1])
    out[:, [0, 3, 4]] *= style.strength
    out = ndimage.gaussian_filter1d(out, _SMOOTH * rate, axis=0, mode="nearest")
    _impose(out, phonemes, time)
    return np.clip(out, 0, 1).astype(np.float32)


def _segments(phonemes):
    """(start, end, (7,) target, (7,) strength) of phonemes, their parts and pauses."""
    out, last = [], -np.inf
    for phoneme in phonemes:
        if phoneme.start - last > _PAUSE:
            out.append((last + _RELAX, phoneme.start - _PREPARE, *_rest()))
        out += _parts(phoneme)
        last = phoneme.end
    out.append((last + _RELAX, np.inf, *_rest()))
    # A pause shorter than closing and preparing takes has no rest at all.
    return [(s, e, np.array(t, float), np.array(w, float)) for s, e, t, w in out if e > s]


def _rest():
    return _REST, (_REST_STRENGTH,) * len(CHANNELS)


def _parts(phoneme: Phoneme):
    """Diphthongs and affricates are two targets, one after the other."""
    symbol = phoneme.symbol
    plain = [_ALIASES.get(c, c) for c in symbol if c not in STRESS]
    known = [c for c in plain if c in _VOWELS or c in _CONSONANTS][:2]
    start, end = phoneme.start, phoneme.end
    if not known:
        return [(start, end, *_NEUTRAL)]
    loud = 1.08 if STRESS[0] in symbol else 1.0 if STRESS[1] in symbol else 0.9
    middle = start + (0.5 if known[0] in _VOWELS else 0.4) * (end - start)
    times = [(start, end)] if len(known) == 1 else [(start, middle), (middle, end)]
    return [
        (*_core(span, sound), *_target(sound, loud))
        for span, sound in zip(times, known, strict=True)
    ]


def _core(span, sound):
    """The part of a phoneme that is its own; the rest is transition."""
    start, end = span
    margin = 0.22 * (end - start) if sound in _VOWELS else 0.12 * (end - start)
    return start + margin, end - margin


def _target(sound: str, loud: float):
    if sound in _VOWELS:
        jaw, rounding, spread = _VOWELS[sound]
        part = 0.75 if rounding > 0.7 else 1.0
        # Wide vowels pull hardest: a jaw that has to go far starts early.
        strength = (0.8 + 1.4 * jaw, 1.0, 1.0, 1.0 + rounding, 1.1, 1.0, 0.7)
        return (min(jaw * loud, 1.0), part, 0, rounding, spread, 0, 0.0), strength
    jaw, jaw_own, rounding, round_own, spread, spread_own, tongue = _CONSONANTS[sound]
    lips = 1.0 if sound in _PARTS or sound in _TUCKS else 0.8
    target = (jaw, _PARTS.get(sound, 0.95), 0, rounding, spread, _TUCKS.get(sound, 0), tongue)
    tip = 1.2 if tongue > 0.3 else 0.4
    return target, (_JAW_YIELDS * jaw_own, lips, 1.0, round_own, spread_own, 1.0, tip)


def _gate(time, start, end, closing, opening):
    """1 from `start` to `end`, raised cosines before and after."""
    before = np.clip((start - time) / closing, 0, 1)
    after = np.clip((time - end) / opening, 0, 1)
    return 0.5 + 0.5 * np.cos(np.pi * np.maximum(before, after))


def _closed(phonemes, time, haste=1.0):
    """(T,) 1 while lips are shut, falling on both sides, `haste` times as fast as usual."""
    gate = np.zeros(len(time))
    step = time[1] - time[0] if len(time) > 1 else 0.0
    # Values between two curve points are interpolated: the points around are closed as well.
    spans = [(start - step, end + step) for start, end in bilabial_times(phonemes)]
    for number, (start, end) in enumerate(spans):
        # Lips open even for the shortest vowel between two closures.
        since = start - spans[number - 1][1] if number else np.inf
        until = spans[number + 1][0] - end if number + 1 < len(spans) else np.inf
        closing = max(min(_CLOSING, 0.6 * since), step) / haste
        opening = max(min(_OPENING, 0.4 * until), step) / haste
        gate = np.maximum(gate, _gate(time, start, end, closing, opening))
    return gate


def _bitten(phonemes, time):
    """(T,) 1 while the lower lip is at the teeth, falling on both sides."""
    gate = np.zeros(len(time))
    for phoneme in phonemes:
        plain = {_ALIASES.get(c, c) for c in phoneme.symbol}
        if plain & LABIODENTAL:
            start, end = phoneme.start, phoneme.end
            if base(phoneme.symbol) in BILABIAL:  # the second half of "pf"
                start = max(_closure(phoneme)[1], 0.5 * (start + end))
            missing = max(_CLOSED - (end - start), 0.0) / 2
            gate = np.maximum(gate, _gate(time, start - missing, end + missing - 0.01, 0.06, 0.05))
    return gate


def _impose(out, phonemes, time):
    closed, bitten = _closed(phonemes, time), _bitten(phonemes, time)
    # Where one follows the other (as in German "Pfanne") the way between them is short.
    sharp = _closed(phonemes, time, 2.5)
    leaving = np.maximum(closed * (1 - bitten**2), sharp)
    bitten = bitten * (1 - sharp)
    out[:, 2] = np.maximum(out[:, 2] * (1 - bitten), leaving**1.5)
    out[:, 1] *= 1 - leaving
    out[:, 0] -= leaving * np.maximum(out[:, 0] - 0.3, 0)  # teeth stay close behind shut lips
    out[:, 5] = np.maximum(out[:, 5] * (1 - leaving), bitten)
    out[:, 3] *= 1 - 0.5 * bitten
