"""What a person wears at the neck, and how hair and beard are worn: plain numbers.

Both are drawn beside the `Appearance`, from random streams of their own, so that they change
nothing else about the person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .painting.appearance import Appearance

COLLARS = ("crew", "vneck", "scoop", "shirt", "polo", "turtleneck", "hood", "suit")
NECKWEAR = ("none", "tie", "scarf", "chain", "beads")
FABRICS = ("plain", "knit", "stripes", "check", "rib", "dots", "diagonal")
_COLLAR_SHARES = {
    "male": (0.2, 0.06, 0.0, 0.2, 0.13, 0.11, 0.12, 0.18),
    "female": (0.15, 0.14, 0.15, 0.15, 0.05, 0.15, 0.11, 0.1),
}
_LONG_STYLES = ("long", "bob", "curly", "bun")  # Hair that can fall beside the jaw.
_METALS = ((0.75, 0.58, 0.25), (0.72, 0.72, 0.74), (0.3, 0.3, 0.32), (0.7, 0.45, 0.36))
RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Outfit:
    """Clothing at the neck. Colours are sRGB in [0, 1].

    Attributes:
      collar: One of `COLLARS`.
      collar_height: Height of a collar, from 0 (low) to 1 (at the chin).
      opening: How far the garment is open in front, from 0 to 1.
      trim_colour, trim_second: Colours of the collar, the cuffs or the shirt below a jacket.
      trim_fabric: Its weave or pattern, one of `FABRICS`.
      neckwear: One of `NECKWEAR`.
      neckwear_colour, neckwear_second: Its colours.
      neckwear_fabric: Its pattern, one of `FABRICS`.
      drop: How far a necklace or the end of a scarf hangs down, from 0 to 1.
      seed: Seed of folds and slants.
    """

    collar: str = "crew"
    collar_height: float = 0.5
    opening: float = 0.0
    trim_colour: RGB = (0.5, 0.5, 0.5)
    trim_second: RGB = (0.5, 0.5, 0.5)
    trim_fabric: str = "rib"
    neckwear: str = "none"
    neckwear_colour: RGB = (0.5, 0.5, 0.5)
    neckwear_second: RGB = (0.5, 0.5, 0.5)
    neckwear_fabric: str = "plain"
    drop: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Grooming:
    """Hair beside the face, and the volume of a beard.

    Attributes:
      locks: Length of the hair that falls before the left and the right shoulder in the image, from
        0 (none) to 1 (the chest).
      inward: How far this hair covers the cheeks and the jaw, from -1 (beside them) to 1.
      wave: How wavy it is, from 0 to 1.
      loose: Number of loose strands.
      beard_length: Length of the beard at the chin in interocular distances; 0 is a short one.
      moustache_length: How far a moustache hangs over the lip, from 0 to 1.
      seed: Seed of the strands.
    """

    locks: tuple[float, float] = (0.0, 0.0)
    inward: float = 0.0
    wave: float = 0.2
    loose: int = 0
    beard_length: float = 0.0
    moustache_length: float = 0.0
    seed: int = 0


def _sample_colour(rng):
    """Draws the colour of cloth, more often saturated or extreme than real ones."""
    hue, kind, value = rng.uniform(0, 1), rng.random(), rng.uniform(0.03, 0.95)
    grey = 0.08 if kind < 0.4 else rng.uniform(0.3, 0.9)
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue + np.array([0, 1 / 3, 2 / 3])))
    return value * (1 - grey + grey * wheel)


def _to_rgb(colour) -> RGB:
    r, g, b = (round(float(v), 4) for v in np.clip(colour, 0.0, 1.0))
    return r, g, b


def sample_outfit(rng: np.random.Generator, appearance: Appearance) -> Outfit:
    """Draws the clothing of a person."""
    collar = str(rng.choice(COLLARS, p=_COLLAR_SHARES[appearance.sex]))
    shirt = np.array(appearance.shirt_colour)
    trim = shirt * rng.uniform(0.75, 1.2) if rng.random() < 0.55 else _sample_colour(rng)
    fabric = str(rng.choice(FABRICS, p=(0.3, 0.14, 0.13, 0.09, 0.2, 0.07, 0.07)))
    if collar == "suit":  # The shirt below it is mostly pale.
        trim = 0.6 + 0.4 * _sample_colour(rng) if rng.random() < 0.7 else trim
        fabric = str(rng.choice(("plain", "stripes", "check"), p=(0.6, 0.25, 0.15)))
    elif collar == "turtleneck":
        fabric = str(rng.choice(("rib", "knit", "stripes", "plain"), p=(0.6, 0.2, 0.1, 0.1)))
    shares = {
        "suit": (0.3, 0.62, 0.05, 0.02, 0.01),
        "shirt": (0.55, 0.25, 0.06, 0.1, 0.04),
        "turtleneck": (0.74, 0.0, 0.1, 0.1, 0.06),
    }.get(collar, (0.6, 0.0, 0.15, 0.15, 0.1))
    neckwear = str(rng.choice(NECKWEAR, p=shares))
    worn = _sample_colour(rng)
    if neckwear == "chain" or (neckwear == "beads" and rng.random() < 0.5):
        worn = np.array(_METALS[rng.integers(len(_METALS))]) * rng.uniform(0.8, 1.25)
    closed = neckwear == "tie" or rng.random() < 0.3
    return Outfit(
        collar=collar,
        collar_height=round(float(rng.uniform(0, 1)), 4),
        opening=0.0 if closed else round(float(rng.beta(1.2, 1.6)), 4),
        trim_colour=_to_rgb(trim),
        trim_second=_to_rgb(_sample_colour(rng)),
        trim_fabric=fabric,
        neckwear=neckwear,
        neckwear_colour=_to_rgb(worn),
        neckwear_second=_to_rgb(_sample_colour(rng)),
        neckwear_fabric=str(rng.choice(FABRICS)),
        drop=round(float(rng.uniform(0, 1)), 4),
        seed=int(rng.integers(1 << 31)),
    )


def sample_grooming(rng: np.random.Generator, appearance: Appearance) -> Grooming:
    """Draws the hair beside a person's face, and the length of the beard."""
    long = appearance.hair_style in _LONG_STYLES
    both = rng.uniform(0.25, 1.0) * np.array([1.0, rng.uniform(0.7, 1.15)])
    sides = np.array([(1, 1), (1, 0), (0, 1), (0, 0)])[rng.choice(4, p=(0.5, 0.12, 0.12, 0.26))]
    locks = np.clip(both * sides, 0, 1) if long and appearance.hair_style != "bun" else np.zeros(2)
    loose = int(rng.poisson(2.0)) if long else 0
    inward = float(np.clip(rng.normal(0.1, 0.5), -1, 1))
    wave = 0.9 if appearance.hair_style == "curly" else float(rng.beta(1.2, 1.8))
    length, hang = rng.exponential(0.28), float(rng.beta(1, 1.5))
    grown = appearance.beard in ("goatee", "full")
    return Grooming(
        locks=(round(float(locks[0]), 4), round(float(locks[1]), 4)),
        inward=round(inward, 4),
        wave=round(wave, 4),
        loose=loose,
        beard_length=round(float(min(length, 1.1)), 4) if grown else 0.0,
        moustache_length=round(hang, 4) if grown or appearance.beard == "moustache" else 0.0,
        seed=int(rng.integers(1 << 31)),
    )
