"""Voices of espeak-ng: language, timbre, speaking rate and pitch.

espeak-ng comes with about forty human-sounding timbres, called variants, which shift the formants
and change the glottal source. Each variant belongs to one split, whatever the language. Where many
more voices are needed, `sample_random_voice` draws new timbres in the format of variant files.
"""

from dataclasses import dataclass

import numpy as np

LANGUAGES = ("en-us", "en", "en-gb-x-rp", "es", "es-419", "de", "fr", "it")
_LANGUAGE_SHARES = (0.26, 0.1, 0.06, 0.14, 0.06, 0.18, 0.1, 0.1)
# Whispers, robots and monsters are left out.
VARIANTS = {
    "train": (
        "m1", "m2", "m3", "m4", "m5", "m7",
        "f1", "f2", "f4", "f5", "Alex", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Hugo",
        "Jacky", "Lee", "Marco", "Mario", "Michael", "anika", "antonio", "belinda", "linda",
        "pablo", "paul", "rob",
    ),
    "test": ("m6", "m8", "f3", "Alicia", "Henrique", "steph", "ed", "sandro"),
}  # fmt: skip
RANDOM_VARIANT = "talkjax"  # Name of the variant file that holds a randomly drawn timbre.
_RATE, _PITCH, _RANGE = (130, 210), (20, 80), (35, 75)


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng.

    Attributes:
      language: An item of `LANGUAGES`.
      variant: Name of the espeak-ng variant file that defines the timbre.
      rate: Speaking rate in words per minute.
      pitch: Pitch from 0 to 99; 50 is the variant's own.
      range: Pitch range from 0 (monotone) to 99; 50 is the variant's own.
      timbre: Lines of a variant file, written under the name `variant` before the voice is used.
        Empty for the variants that come with espeak-ng.
    """

    language: str
    variant: str
    rate: int = 170
    pitch: int = 50
    range: int = 50
    timbre: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The voice's name in espeak-ng, e.g. "en-us+m3"."""
        return f"{self.language}+{self.variant}" if self.variant else self.language


def sample_voice(rng: np.random.Generator, split: str) -> Voice:
    """Draws a voice with one of espeak-ng's own timbres.

    Args:
      rng: Generator that draws the voice.
      split: Either "train" or "test"; the splits share no timbre.

    Raises:
      ValueError: The split is unknown.
    """
    if split not in VARIANTS:
        raise ValueError(f"split={split!r} is not one of {', '.join(VARIANTS)}")
    language = LANGUAGES[int(rng.choice(len(LANGUAGES), p=_LANGUAGE_SHARES))]
    variant = VARIANTS[split][int(rng.integers(len(VARIANTS[split])))]
    return Voice(language, variant, *_sample_prosody(rng))


def sample_random_voice(rng: np.random.Generator) -> Voice:
    """Draws a voice with a new timbre, which belongs to neither split."""
    language = LANGUAGES[int(rng.choice(len(LANGUAGES), p=_LANGUAGE_SHARES))]
    return Voice(language, RANDOM_VARIANT, *_sample_prosody(rng), timbre=_sample_timbre(rng))


def _sample_prosody(rng: np.random.Generator) -> tuple[int, int, int]:
    """Draws the speaking rate, the pitch and the pitch range."""
    rate, pitch, pitch_range = (int(rng.integers(a, b + 1)) for a, b in (_RATE, _PITCH, _RANGE))
    return rate, pitch, pitch_range


def _sample_timbre(rng: np.random.Generator) -> tuple[str, ...]:
    """Draws the lines of an espeak-ng variant file, whose numbers are percentages.

    The length of the vocal tract sets the pitch and scales all formants, from a bass to a child.
    Each formant also varies by itself, half of the voices have a tone control and a third are
    breathy.
    """
    length = rng.uniform(-1, 1)  # From a long vocal tract to a short one.
    pitch = 105 * np.exp(0.5 * length + rng.normal(0, 0.12))
    lines = [f"pitch {pitch:.0f} {pitch * rng.uniform(1.2, 1.6):.0f}"]
    scale = 100 * np.exp(0.07 + 0.13 * length + rng.normal(0, 0.02))
    for formant in range(9):
        frequency = scale * np.exp(rng.normal(0, 0.04)) if 0 < formant < 6 else 100
        width, height = 100 * np.exp(rng.normal((-0.1, 0.0), (0.25, 0.3)))
        lines.append(f"formant {formant} {frequency:.0f} {height:.0f} {width:.0f}")
    # Louder voicing is clipped by espeak-ng.
    lines.append(f"voicing {75 * np.exp(rng.normal(0, 0.25)):.0f}")
    lines.append("consonants {:.0f} {:.0f}".format(*(100 * np.exp(rng.normal(0, 0.35, 2)))))
    lines += [f"roughness {rng.integers(5)}", f"flutter {rng.integers(6)}"]
    if rng.random() < 1 / 2:
        at = (rng.uniform(100, 700), rng.uniform(800, 1600), rng.uniform(2000, 3600))
        amount = (rng.uniform(150, 255), rng.uniform(60, 220), rng.uniform(20, 180))
        tone = (f"{f:.0f} {a:.0f}" for f, a in zip(at, amount, strict=True))
        lines.append("tone " + " ".join(tone))
    if rng.random() < 1 / 3:
        lines.append("breath 0 " + " ".join(f"{rng.integers(1, 7)}" for _ in range(7)))
    return tuple(lines)
