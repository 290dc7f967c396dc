"""Who can be heard: languages, timbres, tempo and pitch.

A timbre is one of espeak-ng's variants, which shift formants and change the voice's source. Those
of the test split are never heard in training, in no language. There are only some forty; where many
more voices are wanted, timbres are drawn at random in the terms of the variants' files.
"""

from dataclasses import dataclass

import numpy as np

SPLITS = ("train", "test")
LANGUAGES = ("en-us", "en", "en-gb-x-rp", "es", "es-419", "de", "fr", "it")
_LANGUAGE_SHARES = (0.26, 0.1, 0.06, 0.14, 0.06, 0.18, 0.1, 0.1)
# Human-sounding ones only: no whispers, robots or monsters.
VARIANTS = {
    "train": (
        "m1", "m2", "m3", "m4", "m5", "m7",
        "f1", "f2", "f4", "f5", "Alex", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Hugo",
        "Jacky", "Lee", "Marco", "Mario", "Michael", "anika", "antonio", "belinda", "linda",
        "pablo", "paul", "rob",
    ),
    "test": ("m6", "m8", "f3", "Alicia", "Henrique", "steph", "ed", "sandro"),
}  # fmt: skip
DRAWN = "talkjax"  # the variant's name of every timbre that is drawn
_RATE, _PITCH, _RANGE = (130, 210), (20, 80), (35, 75)


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng.

    Attributes:
      language: one of `LANGUAGES`.
      variant: timbre, the name of one of espeak-ng's variant files.
      rate: words a minute.
      pitch: 0 to 99; 50 is the variant's own.
      range: of the pitch, 0 (monotone) to 99; 50 is the variant's own.
      timbre: lines of a variant file of its own (`draw_timbre`), which `variant` then names.
    """

    language: str
    variant: str
    rate: int = 170
    pitch: int = 50
    range: int = 50
    timbre: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As espeak-ng selects it."""
        return f"{self.language}+{self.variant}" if self.variant else self.language


def sample_voice(rng: np.random.Generator, split: str) -> Voice:
    """A voice of a split.

    Args:
      rng: source of randomness.
      split: one of `SPLITS`.

    Raises:
      ValueError: there is no such split.
    """
    if split not in VARIANTS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    language = LANGUAGES[int(rng.choice(len(LANGUAGES), p=_LANGUAGE_SHARES))]
    variant = VARIANTS[split][int(rng.integers(len(VARIANTS[split])))]
    return Voice(language, variant, *_manner(rng))


def draw_voice(rng: np.random.Generator) -> Voice:
    """A voice that is none of espeak-ng's own, so neither split's."""
    language = LANGUAGES[int(rng.choice(len(LANGUAGES), p=_LANGUAGE_SHARES))]
    return Voice(language, DRAWN, *_manner(rng), timbre=draw_timbre(rng))


def _manner(rng: np.random.Generator) -> tuple[int, int, int]:
    rate, pitch, span = (int(rng.integers(a, b + 1)) for a, b in (_RATE, _PITCH, _RANGE))
    return rate, pitch, span


def draw_timbre(rng: np.random.Generator) -> tuple[str, ...]:
    """A timbre as the lines of an espeak-ng variant file: percentages of the plain voice.

    From a bass to a child: the length of the throat sets pitch and all formants, and each formant
    varies beside; half of the voices have a tone control of their own, a third are breathy.
    """
    length = rng.uniform(-1, 1)  # a long throat to a short one
    pitch = 105 * np.exp(0.5 * length + rng.normal(0, 0.12))
    lines = [f"pitch {pitch:.0f} {pitch * rng.uniform(1.2, 1.6):.0f}"]
    scale = 100 * np.exp(0.07 + 0.13 * length + rng.normal(0, 0.02))
    for formant in range(9):
        frequency = scale * np.exp(rng.normal(0, 0.04)) if 0 < formant < 6 else 100
        width, height = 100 * np.exp(rng.normal((-0.1, 0.0), (0.25, 0.3)))
        lines.append(f"formant {formant} {frequency:.0f} {height:.0f} {width:.0f}")
    lines.append(f"voicing {75 * np.exp(rng.normal(0, 0.25)):.0f}")  # louder ones are cut off
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
