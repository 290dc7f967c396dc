"""Viseme curves: the mouth's movement as a function of the phonemes.

Co-articulation follows the dominance model of Cohen and Massaro (1993). Every phoneme has a target
and a strength per channel. Its dominance is constant during the phoneme and decays before and after
it, and a channel is the average of all targets, weighted by dominance. Weak phonemes (h, k) thus
take the shape of their neighbours, lips are rounded long before a rounded vowel is heard, and fast
speech undershoots its targets. Constrictions that must not be undershot, the closure of p, b and m
and the bite of f and v, are imposed at the end. The curves depend on the phonemes and on a personal
style alone, so that the movement can be learned from the sound and a few frames of the person.

Timing and jaw targets were fitted to real footage (benchmarks/viseme_timing.py): the mouth's
opening in 167 clips of 18 people of the GRID corpus, whose phones were found by forced alignment.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ..speech.phonemes import STRESS, Phoneme

CHANNELS = ("jaw", "part", "press", "round", "spread", "tuck", "tongue")
JAW, PART, PRESS, ROUND, SPREAD, TUCK, TONGUE = range(len(CHANNELS))
BILABIAL = frozenset("pbm")
LABIODENTAL = frozenset("fv")

_REST = (0.0, 0.0, 0.0, 0.0, 0.05, 0.0, 0.0)
_REST_STRENGTH = 1.0
# Seconds in which each channel's dominance decays to 1/e, before a phoneme and after it.
_BEFORE = np.array([0.06, 0.04, 0.03, 0.05, 0.045, 0.03, 0.03])
_AFTER = np.array([0.075, 0.02, 0.03, 0.035, 0.04, 0.03, 0.03])
_CONSONANT_JAW = 0.8  # Factor of the consonants' jaw strengths.
# All in seconds.
_PAUSE = 0.12  # Shorter gaps between phonemes are bridged.
_RELAX = 0.0  # The last mouth shape of an utterance is held this long before the lips close.
_PREPARE = 0.09  # The first mouth shape is taken this long before it is heard.
_SMOOTH = 0.012  # Standard deviation of the final low-pass filter.
_CLOSED = 0.045  # Shortest closure.
_CLOSING, _OPENING = 0.04, 0.035  # Durations of the lips' movement before and after a closure.
_UNRELEASED = 0.6  # Share of a "b" without an audible release during which the lips are closed.

# Seconds by which the mouth leads the sound, by the class of the phoneme.
_LEADS = {"bilabial": 0.03, "labiodental": 0.0, "rounded": -0.02, "open": -0.02,
          "close": 0.0, "sibilant": 0.0, "other": 0.04}  # fmt: skip

# Vowels: targets of jaw, round and spread.
# fmt: off
VOWELS = {
    "a": (0.9, 0, 0.1), "ɑ": (1.0, 0.05, 0), "æ": (0.78, 0, 0.3), "ɐ": (0.7, 0, 0.05),
    "ʌ": (0.68, 0, 0.05), "ɒ": (0.82, 0.4, 0), "ɔ": (0.52, 0.6, 0), "o": (0.45, 0.85, 0),
    "ɛ": (0.6, 0, 0.4), "e": (0.45, 0, 0.6), "ə": (0.38, 0.03, 0.1), "ɚ": (0.36, 0.3, 0),
    "ɜ": (0.45, 0.25, 0), "ɪ": (0.34, 0, 0.6), "i": (0.3, 0, 0.95), "ᵻ": (0.26, 0, 0.5),
    "ɨ": (0.24, 0, 0.5), "ʊ": (0.3, 0.75, 0), "u": (0.12, 1.0, 0), "y": (0.2, 0.95, 0.05),
    "ʏ": (0.28, 0.75, 0.05), "ø": (0.36, 0.8, 0.05), "œ": (0.55, 0.65, 0.05), "ɤ": (0.45, 0, 0.2),
    "ɵ": (0.4, 0.6, 0),
}
# Consonants: target and strength of jaw, of round and of spread, then the target of the tongue.
_CONSONANTS = {
    "t": (0.16, 1.2, 0.0, 0.15, 0.25, 0.3, 0.8), "d": (0.17, 1.2, 0.0, 0.15, 0.25, 0.3, 0.8),
    "n": (0.1, 1.0, 0.0, 0.15, 0.2, 0.3, 0.85), "l": (0.4, 0.9, 0.0, 0.15, 0.15, 0.3, 1.0),
    "ɾ": (0.24, 0.7, 0.0, 0.12, 0.15, 0.2, 0.9), "r": (0.22, 0.9, 0.05, 0.2, 0.15, 0.3, 0.95),
    "θ": (0.1, 1.4, 0.0, 0.3, 0.25, 0.5, 1.0), "ð": (0.18, 1.2, 0.0, 0.3, 0.2, 0.4, 1.0),
    "s": (0.12, 4.5, 0.0, 0.4, 0.55, 1.0, 0.45), "z": (0.13, 4.0, 0.0, 0.4, 0.5, 0.9, 0.45),
    "ʃ": (0.07, 4.0, 0.8, 1.8, 0.0, 1.0, 0.35), "ʒ": (0.07, 4.0, 0.8, 1.8, 0.0, 1.0, 0.35),
    "ç": (0.14, 1.2, 0.0, 0.3, 0.6, 0.8, 0.1), "j": (0.16, 1.0, 0.0, 0.3, 0.7, 0.8, 0.1),
    "ʎ": (0.2, 1.0, 0.0, 0.3, 0.5, 0.6, 0.6), "ɲ": (0.18, 1.0, 0.0, 0.3, 0.5, 0.6, 0.6),
    "w": (0.08, 1.4, 1.0, 2.0, 0.0, 1.2, 0.0), "ɥ": (0.14, 1.2, 0.95, 1.8, 0.0, 1.0, 0.0),
    "ɹ": (0.12, 1.0, 0.45, 0.9, 0.0, 0.6, 0.3), "ɫ": (0.36, 0.8, 0.1, 0.2, 0.0, 0.3, 1.0),
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
# Target and strength of an unknown symbol.
_NEUTRAL = ((0.3, 0.9, 0, 0, 0.1, 0, 0.1), (0.3, 0.6, 0.6, 0.15, 0.15, 0.3, 0.2))


@dataclass(frozen=True)
class ArticulationStyle:
    """How strongly a person articulates; 1 is average.

    Attributes:
      strength: Factor of the jaw, rounding and spreading together.
      openness: Factor of the jaw opening.
      rounding: Factor of lip rounding.
      spreading: Factor of lip spreading.
      press: How firmly the lips are pressed while they are closed, at most 1.
      speed: Factor of the speed with which mouth shapes come and go.
    """

    strength: float = 1.0
    openness: float = 1.0
    rounding: float = 1.0
    spreading: float = 1.0
    press: float = 1.0
    speed: float = 1.0


def sample_style(rng: np.random.Generator) -> ArticulationStyle:
    """Draws a style, with the differences found among 18 people who say the same kind of sentence.

    Their openings range from 0.14 to 0.32 interocular distances, and their mouths' widths vary less
    than half as much as the full strength of rounding and spreading gives.
    """
    strength = np.exp(np.clip(rng.normal(0.0, 0.2), -0.4, 0.4))
    openness = rng.uniform(0.85, 1.15)
    rounding, spreading = rng.uniform(0.35, 1.0), rng.uniform(0.35, 1.0)
    press, speed = rng.uniform(0.4, 1.0), rng.uniform(0.75, 1.3)
    return ArticulationStyle(*map(float, (strength, openness, rounding, spreading, press, speed)))


def first_sound(symbol: str) -> str:
    """Returns the first known sound of an IPA symbol: "t" of "tʃ", "a" of "ˈaɪ", or ""."""
    return next(iter(_known_sounds(symbol)), "")


def _known_sounds(symbol: str) -> list[str]:
    """Splits an IPA symbol into the sounds that have a viseme; stress marks are dropped."""
    plain = [_ALIASES.get(c, c) for c in symbol if c not in STRESS]
    return [c for c in plain if c in VOWELS or c in _CONSONANTS]


def find_closures(phonemes: Sequence[Phoneme]) -> np.ndarray:
    """Finds the times at which p, b and m close the lips.

    Returns:
      (n, 2) float64 start and end of each closure in seconds, in order. None is shorter than
      45 ms (except at time 0), so that a video of 25 fps has a frame in each.
    """
    spans = [_find_closure(p) for p in phonemes if first_sound(p.symbol) in BILABIAL]
    return np.maximum(np.array(spans, np.float64).reshape(-1, 2), 0.0)


def classify(symbol: str) -> str:
    """Returns the class of a phoneme that decides how far the mouth leads its sound."""
    sound = first_sound(symbol)
    if sound in BILABIAL:
        return "bilabial"
    if sound in LABIODENTAL:
        return "labiodental"
    if sound in VOWELS:
        jaw, rounding, _ = VOWELS[sound]
        return "rounded" if rounding >= 0.6 else "open" if jaw >= 0.6 else "close"
    rounding = _CONSONANTS[sound][2] if sound else 0.0
    if rounding >= 0.6 or "ʃ" in symbol or "ʒ" in symbol:
        return "rounded"
    return "sibilant" if sound in ("s", "z") else "other"


def _advance(phoneme: Phoneme) -> Phoneme:
    """Moves a phoneme to when the mouth shows it, which is before it is heard."""
    lead = _LEADS[classify(phoneme.symbol)]
    return replace(phoneme, start=phoneme.start - lead, end=phoneme.end - lead)


def _find_closure(phoneme: Phoneme) -> tuple[float, float]:
    phoneme = _advance(phoneme)
    start, end = phoneme.start, phoneme.end
    if first_sound(phoneme.symbol) != "m":
        # Voiced plosives run into each other and into nasals without a release of their own.
        least = _UNRELEASED * (end - start) if first_sound(phoneme.symbol) == "b" else 0.0
        end = start + (phoneme.hold if phoneme.hold >= 0.02 else max(phoneme.hold, least))
    missing = max(_CLOSED - (end - start), 0.0)
    return start - 0.75 * missing, end + 0.25 * missing


def compute_curves(
    phonemes: Sequence[Phoneme],
    duration: float,
    rate: float = 100.0,
    style: ArticulationStyle | None = None,
) -> np.ndarray:
    """Computes the viseme curves of an utterance.

    Args:
      phonemes: Phonemes in order; gaps between them are silent.
      duration: Duration of the curves in seconds.
      rate: Curve samples per second; sample i is at time i / rate.
      style: The speaker's articulation; None is average.

    Returns:
      (T, 7) float32 in [0, 1], one column per item of `CHANNELS`, with
      T = ceil(duration * rate) + 1.
    """
    style = style or ArticulationStyle()
    time = np.arange(math.ceil(duration * rate - 1e-6) + 1) / rate
    total = np.full((len(time), len(CHANNELS)), 1e-6)
    value = total * np.array(_REST)
    for start, end, target, strength in _list_segments(phonemes):
        before = np.maximum(start - time, 0)[:, None] * style.speed / _BEFORE
        after = np.maximum(time - end, 0)[:, None] * style.speed / _AFTER
        dominance = strength * np.exp(-np.maximum(before, after))
        total += dominance
        value += dominance * target
    out = value / total
    out *= np.array([style.openness, 1, 1, style.rounding, style.spreading, 1, 1])
    out[:, [JAW, ROUND, SPREAD]] *= style.strength
    out = ndimage.gaussian_filter1d(out, _SMOOTH * rate, axis=0, mode="nearest")
    _impose_constrictions(out, phonemes, time)
    out[:, PRESS] *= style.press
    return np.clip(out, 0, 1).astype(np.float32)


def _list_segments(phonemes):
    """Lists (start, end, (7,) target, (7,) strength) of all phoneme parts and pauses."""
    out, last = [], -np.inf
    for phoneme in map(_advance, phonemes):
        if phoneme.start - last > _PAUSE:
            out.append((last + _RELAX, phoneme.start - _PREPARE, *_rest()))
        out += _phoneme_segments(phoneme)
        last = phoneme.end
    out.append((last + _RELAX, np.inf, *_rest()))
    # A pause that is shorter than relaxing and preparing has no rest position.
    return [(s, e, np.array(t, float), np.array(w, float)) for s, e, t, w in out if e > s]


def _rest():
    return _REST, (_REST_STRENGTH,) * len(CHANNELS)


def _phoneme_segments(phoneme: Phoneme):
    """Splits a phoneme into targets: diphthongs and affricates have two, one after the other."""
    symbol, start, end = phoneme.symbol, phoneme.start, phoneme.end
    known = _known_sounds(symbol)[:2]
    if not known:
        return [(start, end, *_NEUTRAL)]
    loud = 1.08 if STRESS[0] in symbol else 1.0 if STRESS[1] in symbol else 0.9
    middle = start + (0.5 if known[0] in VOWELS else 0.4) * (end - start)
    times = [(start, end)] if len(known) == 1 else [(start, middle), (middle, end)]
    return [
        (*_core(span, sound), *_target(sound, loud))
        for span, sound in zip(times, known, strict=True)
    ]


def _core(span, sound):
    """Returns the central part of a phoneme, without its transitions."""
    start, end = span
    margin = 0.22 * (end - start) if sound in VOWELS else 0.12 * (end - start)
    return start + margin, end - margin


def _target(sound: str, loud: float):
    """Returns the (7,) target and (7,) strength of a sound; `loud` scales the jaw of vowels."""
    if sound in VOWELS:
        jaw, rounding, spread = VOWELS[sound]
        part = 0.75 if rounding > 0.7 else 1.0
        # Open vowels are strongest, since a jaw that has far to go starts early.
        strength = (0.8 + 1.4 * jaw, 1.0, 1.0, 1.0 + rounding, 1.1, 1.0, 0.7)
        return (min(jaw * loud, 1.0), part, 0, rounding, spread, 0, 0.0), strength
    jaw, jaw_own, rounding, round_own, spread, spread_own, tongue = _CONSONANTS[sound]
    lips = 1.0 if sound in _PARTS or sound in _TUCKS else 0.8
    target = (jaw, _PARTS.get(sound, 0.95), 0, rounding, spread, _TUCKS.get(sound, 0), tongue)
    tip = 1.2 if tongue > 0.3 else 0.4
    return target, (_CONSONANT_JAW * jaw_own, lips, 1.0, round_own, spread_own, 1.0, tip)


def _gate(time, start, end, closing, opening):
    """Returns 1 from `start` to `end`, with raised-cosine ramps before and after."""
    before = np.clip((start - time) / closing, 0, 1)
    after = np.clip((time - end) / opening, 0, 1)
    return 0.5 + 0.5 * np.cos(np.pi * np.maximum(before, after))


def _closure_gate(phonemes, time, speed=1.0):
    """Returns (T,) gates that are 1 while the lips are closed; `speed` shortens the ramps."""
    gate = np.zeros(len(time))
    step = time[1] - time[0] if len(time) > 1 else 0.0
    # Frames interpolate between curve samples, so the samples around a closure are closed as well.
    spans = [(start - step, end + step) for start, end in find_closures(phonemes)]
    for number, (start, end) in enumerate(spans):
        # The lips open even for the shortest vowel between two closures.
        since = start - spans[number - 1][1] if number else np.inf
        until = spans[number + 1][0] - end if number + 1 < len(spans) else np.inf
        closing = max(min(_CLOSING, 0.6 * since), step) / speed
        opening = max(min(_OPENING, 0.4 * until), step) / speed
        gate = np.maximum(gate, _gate(time, start, end, closing, opening))
    return gate


def _bite_gate(phonemes, time):
    """Returns (T,) gates that are 1 while the lower lip touches the teeth."""
    gate = np.zeros(len(time))
    for phoneme in phonemes:
        plain = {_ALIASES.get(c, c) for c in phoneme.symbol}
        if plain & LABIODENTAL:
            shown = _advance(phoneme)
            start, end = shown.start, shown.end
            if first_sound(phoneme.symbol) in BILABIAL:  # The second half of "pf".
                start = max(_find_closure(phoneme)[1], 0.5 * (start + end))
            missing = max(_CLOSED - (end - start), 0.0) / 2
            gate = np.maximum(gate, _gate(time, start - missing, end + missing - 0.01, 0.06, 0.05))
    return gate


def _impose_constrictions(out, phonemes, time):
    """Imposes lip closures and bites on (T, 7) curves, in place."""
    closed, bitten = _closure_gate(phonemes, time), _bite_gate(phonemes, time)
    # Where a bite follows a closure, as in German "Pfanne", the transition is short.
    sharp = _closure_gate(phonemes, time, 2.5)
    closed = np.maximum(closed * (1 - bitten**2), sharp)
    bitten = bitten * (1 - sharp)
    out[:, PRESS] = np.maximum(out[:, PRESS] * (1 - bitten), closed**1.5)
    out[:, PART] *= 1 - closed
    out[:, JAW] -= closed * np.maximum(out[:, JAW] - 0.3, 0)  # The teeth stay close together.
    out[:, TUCK] = np.maximum(out[:, TUCK] * (1 - closed), bitten)
    out[:, ROUND] *= 1 - 0.5 * bitten
