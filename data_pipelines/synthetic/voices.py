"""Who can be heard: languages, timbres, tempo and pitch.

A timbre is one of espeak-ng's variants, which shift formants and change the voice's source. Those
of the test split are never heard in training, in no language.
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
    """

    language: str
    variant: str
    rate: int = 170
    pitch: int = 50
    range: int = 50

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
    rate, pitch, span = (int(rng.integers(a, b + 1)) for a, b in (_RATE, _PITCH, _RANGE))
    return Voice(language, variant, rate, pitch, span)
