"""Appearance of a person without geometry: plain numbers from which textures are painted."""

import zlib
from dataclasses import dataclass, field, replace

import numpy as np

from ..outfit import Grooming, Outfit

HAIR_STYLES = ("bald", "short", "crop", "long", "bun", "curly", "bob")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
GLASSES = ("none", "round", "rectangular", "thin")
SHIRTS = ("plain", "knit", "stripes", "check")
# Skin from the palest to the darkest tone in sRGB; `Appearance.tone` interpolates.
SKIN = np.array(
    [(237, 202, 181), (233, 193, 168), (227, 182, 153), (218, 170, 138), (202, 151, 118),
     (182, 128, 94), (158, 106, 75), (132, 86, 60), (108, 70, 49), (88, 57, 41), (72, 47, 36)],
    float,
) / 255  # fmt: skip
HAIR = {
    "black": (0.085, 0.075, 0.07),
    "dark brown": (0.17, 0.115, 0.085),
    "brown": (0.29, 0.195, 0.13),
    "light brown": (0.43, 0.30, 0.19),
    "blond": (0.66, 0.51, 0.32),
    "pale blond": (0.78, 0.67, 0.50),
    "red": (0.50, 0.23, 0.11),
    "auburn": (0.31, 0.145, 0.09),
}
IRIS = {
    "dark brown": (0.16, 0.095, 0.06),
    "brown": (0.26, 0.155, 0.09),
    "hazel": (0.35, 0.27, 0.15),
    "green": (0.36, 0.42, 0.27),
    "blue": (0.36, 0.50, 0.63),
    "grey": (0.46, 0.51, 0.54),
}
_METAL = ((0.12, 0.12, 0.13), (0.42, 0.42, 0.44), (0.56, 0.43, 0.23), (0.45, 0.29, 0.24))
_ACETATE = (
    (0.055, 0.052, 0.055), (0.055, 0.052, 0.055), (0.25, 0.14, 0.07), (0.10, 0.13, 0.22),
    (0.27, 0.07, 0.09), (0.33, 0.33, 0.34),
)  # fmt: skip
_GLASSES_STREAM = 0x61A55
_GREY = np.array((0.62, 0.60, 0.57))
RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Appearance:
    """Appearance of a person. Colours are sRGB in [0, 1]; amounts are 0 (none) to 1 (strong).

    Attributes:
      sex: "female" or "male".
      age: Age in years.
      tone: Skin tone from 0 (palest) to 1 (darkest).
      undertone: Skin undertone from -1 (pink) to 1 (olive).
      ruddy, blotches, freckles, lines, bags: Amounts of skin features.
      moles: Number of moles.
      lip_colour: Colour of unpainted lips.
      brow_colour, brow_thickness, brow_density: Colour of the eyebrows, and amounts.
      brow_arch: Shape of the eyebrows from -1 (straight) to 1 (arched).
      iris_colour: Colour of the irises.
      hair_style: One of `HAIR_STYLES`.
      hair_colour: Colour of the hair on the head.
      streaks: Amount of colour difference between strands.
      hairline: How far the hairline has receded, as an amount.
      beard: One of `BEARDS`.
      beard_colour, beard_density: Colour of the beard, and an amount.
      lashes: Amount of eyelashes.
      lipstick, lipstick_amount: Colour of lipstick, and an amount.
      eye_shadow, eye_shadow_amount: Colour of eye shadow, and an amount.
      eye_liner, blush: Amounts of further make-up.
      glasses: One of `GLASSES`.
      glasses_colour: Colour of the frame.
      shirt_colour, shirt_second: Colours of the cloth.
      shirt_pattern: One of `SHIRTS`.
      outfit: What is worn at the neck; `sample_appearance` leaves the default.
      grooming: How hair and beard are worn; likewise.
    """

    sex: str
    age: float
    tone: float
    undertone: float
    ruddy: float
    blotches: float
    freckles: float
    moles: int
    lines: float
    bags: float
    lip_colour: RGB
    brow_colour: RGB
    brow_thickness: float
    brow_density: float
    brow_arch: float
    iris_colour: RGB
    hair_style: str
    hair_colour: RGB
    streaks: float
    hairline: float
    beard: str
    beard_colour: RGB
    beard_density: float
    lashes: float
    lipstick: RGB
    lipstick_amount: float
    eye_shadow: RGB
    eye_shadow_amount: float
    eye_liner: float
    blush: float
    glasses: str
    glasses_colour: RGB
    shirt_colour: RGB
    shirt_second: RGB
    shirt_pattern: str
    outfit: Outfit = field(default_factory=Outfit)
    grooming: Grooming = field(default_factory=Grooming)

    @property
    def skin_colour(self) -> np.ndarray:
        """Average colour of the skin in sRGB, (3,)."""
        x = np.linspace(0, 1, len(SKIN))
        skin = np.array([np.interp(self.tone, x, SKIN[:, k]) for k in range(3)])
        return skin * (
            1 - 0.015 * self.undertone,
            1 + 0.02 * self.undertone,
            1 - 0.06 * self.undertone,
        )


def _to_rgb(colour) -> RGB:
    return tuple(round(float(v), 4) for v in np.clip(colour, 0.0, 1.0))


def _choose(rng, names, shares):
    shares = np.asarray(shares, float)
    return str(rng.choice(names, p=shares / shares.sum()))


def _sample_hair_colour(rng, tone):
    light, dark = max(0.0, 1 - 2.4 * tone), max(0.0, tone - 0.2)
    shares = [
        0.35 + 2.5 * dark, 0.6 + dark, 0.25 + 0.5 * light, 0.5 * light, 0.45 * light,
        0.2 * light, 0.16 * light, 0.12 * light,
    ]  # fmt: skip
    colour = np.array(HAIR[_choose(rng, list(HAIR), shares)])
    return colour * rng.uniform(0.85, 1.2) * (1 + rng.normal(0, 0.02, 3))


def _sample_iris_colour(rng, tone):
    light = max(0.0, 1 - 2.6 * tone)
    shares = [
        0.4 + 2 * tone,
        0.4 + 0.3 * tone,
        0.02 + 0.3 * light,
        0.22 * light,
        0.6 * light,
        0.2 * light,
    ]
    return np.array(IRIS[_choose(rng, list(IRIS), shares)]) * rng.uniform(0.85, 1.15)


def _sample_lip_colour(rng, tone):
    """Draws the colour of lips, which is skin with more blood: pink to brown."""
    x = (0, 0.25, 0.5, 0.75, 1)
    colours = np.array(
        [
            (0.75, 0.42, 0.41),
            (0.69, 0.37, 0.35),
            (0.58, 0.30, 0.275),
            (0.45, 0.235, 0.215),
            (0.345, 0.185, 0.175),
        ]
    )
    colour = np.array([np.interp(tone, x, colours[:, k]) for k in range(3)])
    return colour * rng.uniform(0.93, 1.06) * (1 + rng.normal(0, 0.025, 3))


def _sample_shirt_colour(rng):
    hue, kind = rng.uniform(0, 1), rng.random()
    value = rng.uniform(0.08, 0.75)
    grey = 0.10 if kind < 0.5 else rng.uniform(0.2, 0.5) * (1.2 - value)
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue + np.array([0, 1 / 3, 2 / 3])))
    return value * (1 - grey + grey * wheel)


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """Draws a person of any sex, age and skin tone."""
    sex = str(rng.choice(("female", "male")))
    male = sex == "male"
    age = float(np.clip(18 + 55 * rng.beta(1.2, 2.0), 18, 75))
    tone = float(np.clip(rng.uniform(-0.03, 1.0), 0, 1))
    old = np.clip((age - 35) / 40, 0, 1)
    hair = natural = _sample_hair_colour(rng, tone)
    grey = float(np.clip(rng.normal(old * 1.1 - 0.25, 0.25), 0, 1)) if age > 38 else 0.0
    coloured = not male and rng.random() < 0.5
    grey_hair = 0.0 if coloured else grey
    hair = hair + grey_hair * (_GREY * rng.uniform(0.65, 1.1) - hair)
    if male:
        style = _choose(
            rng, HAIR_STYLES, (0.12 + 0.2 * old, 0.42, 0.3, 0.05, 0.03, 0.12 + 0.08 * tone, 0.01)
        )
        beard = _choose(rng, BEARDS, (0.42, 0.26, 0.07, 0.09, 0.16))
    else:
        style = _choose(
            rng, HAIR_STYLES, (0.01, 0.09, 0.05 + 0.08 * tone, 0.36, 0.18, 0.15 + 0.1 * tone, 0.18)
        )
        beard = "none"
    brow = np.minimum(0.35 * natural + 0.65 * hair, 0.62) * (1, 0.96, 0.9)
    brow = brow * (0.72 if brow.mean() > 0.3 else 0.9)
    made_up = not male and rng.random() < 0.55
    lip = _sample_lip_colour(rng, tone)
    stick = np.array(
        [
            (0.72, 0.16, 0.2),
            (0.78, 0.36, 0.38),
            (0.6, 0.22, 0.28),
            (0.74, 0.42, 0.36),
            (0.48, 0.12, 0.16),
        ]
    )
    stick = stick[rng.integers(len(stick))] * (1.05 - 0.35 * tone)
    shadow = np.array(
        [(0.35, 0.24, 0.2), (0.45, 0.3, 0.3), (0.3, 0.27, 0.3), (0.5, 0.38, 0.28), (0.3, 0.32, 0.4)]
    )
    shadow = shadow[rng.integers(len(shadow))] * (1.05 - 0.4 * tone)
    pale = max(0.0, 1 - 2 * tone)
    shirt = _sample_shirt_colour(rng)
    second = _sample_shirt_colour(rng) if rng.random() < 0.5 else shirt * 0.4 + 0.55
    person = Appearance(
        sex=sex,
        age=round(age, 1),
        tone=round(tone, 4),
        undertone=round(float(np.clip(rng.normal(-0.1, 0.5), -1, 1)), 4),
        ruddy=round(float(rng.beta(2, 3)), 4),
        blotches=round(float(rng.beta(2, 3)), 4),
        freckles=round(float(rng.beta(1, 2) * pale) if rng.random() < 0.5 else 0.0, 4),
        moles=int(rng.poisson(1.6)),
        lines=round(float(np.clip(old * 1.1 + rng.normal(0.08, 0.08), 0, 1)), 4),
        bags=round(float(np.clip(rng.beta(2, 3) * 0.7 + 0.4 * old, 0, 1)), 4),
        lip_colour=_to_rgb(lip),
        brow_colour=_to_rgb(brow),
        brow_thickness=round(float(rng.uniform(0.75, 1.2) if male else rng.uniform(0.5, 0.95)), 4),
        brow_density=round(float(rng.uniform(0.6, 1.0)), 4),
        brow_arch=round(float(np.clip(rng.normal(-0.25 if male else 0.35, 0.4), -1, 1)), 4),
        iris_colour=_to_rgb(_sample_iris_colour(rng, tone)),
        hair_style=style,
        hair_colour=_to_rgb(hair),
        streaks=round(float(rng.uniform(0.2, 0.8) + 0.3 * grey_hair), 4),
        hairline=round(float(rng.beta(1.5, 4) * (0.4 + old) if male else 0.0), 4),
        beard=beard,
        beard_colour=_to_rgb(
            (hair * 0.85 + 0.35 * grey * (0.6 - hair)) if hair.mean() < 0.5 else hair * 0.72
        ),
        beard_density=round(float(rng.uniform(0.55, 1.0)), 4),
        lashes=round(float(rng.uniform(0.35, 0.65) if male else rng.uniform(0.6, 1.0)), 4),
        lipstick=_to_rgb(stick * (1 + rng.normal(0, 0.05, 3))),
        lipstick_amount=round(float(rng.uniform(0.3, 0.9)) if made_up else 0.0, 4),
        eye_shadow=_to_rgb(shadow),
        eye_shadow_amount=round(float(rng.uniform(0.0, 0.7)) if made_up else 0.0, 4),
        eye_liner=round(float(rng.uniform(0.2, 1.0)) if made_up else 0.0, 4),
        blush=round(float(rng.uniform(0.1, 0.8)) if made_up else 0.0, 4),
        glasses="none",
        glasses_colour=(0.0, 0.0, 0.0),
        shirt_colour=_to_rgb(shirt),
        shirt_second=_to_rgb(second),
        shirt_pattern=_choose(rng, SHIRTS, (0.5, 0.22, 0.16, 0.12)),
    )
    return _add_glasses(person)


def _add_glasses(appearance: Appearance) -> Appearance:
    """Gives one person in five glasses, without drawing from the caller's generator."""
    drawn = np.array(
        [
            appearance.age,
            appearance.tone,
            appearance.beard_density,
            appearance.lashes,
            *appearance.shirt_colour,
        ]
    )
    rng = np.random.default_rng([_GLASSES_STREAM, zlib.crc32(drawn.tobytes())])
    kind = _choose(rng, GLASSES, (0.8, 0.065, 0.085, 0.05))
    colours = _ACETATE if kind == "rectangular" else _METAL
    colour = np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.85, 1.15)
    return (
        appearance
        if kind == "none"
        else replace(appearance, glasses=kind, glasses_colour=_to_rgb(colour))
    )
