"""Things at the face of a speaker in one clip: plain numbers."""

from dataclasses import dataclass

import numpy as np

HEADSETS = ("none", "headphones", "headset", "earbuds")
MICROPHONES = ("none", "ball", "tube", "lapel", "studio")
COVERS = ("none", "hand", "fist", "cup")
_SMOOTH = 0.35  # Seconds that a hand takes to reach the chin.
RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Props:
    """Things at the face. Colours are sRGB in [0, 1].

    Attributes:
      headset: One of `HEADSETS`.
      headset_colour, headset_second: Its colours.
      microphone: One of `MICROPHONES`; those on a stand are before the chest or the chin.
      microphone_at: Position of its head: right and down of the chin in interocular distances.
      microphone_colour: Its colour.
      cover: One of `COVERS`, which is at the chin in the seconds of `covered`.
      cover_at: Where it touches, right and down of the chin in interocular distances.
      cover_tilt: How it is turned in the image plane, in radians.
      cover_colour: Colour of a cup or a sleeve.
      covered: Start and end of its visit as shares of the clip, equal if there is none.
    """

    headset: str = "none"
    headset_colour: RGB = (0.1, 0.1, 0.1)
    headset_second: RGB = (0.3, 0.3, 0.3)
    microphone: str = "none"
    microphone_at: tuple[float, float] = (0.0, 0.8)
    microphone_colour: RGB = (0.1, 0.1, 0.1)
    cover: str = "none"
    cover_at: tuple[float, float] = (0.0, 0.0)
    cover_tilt: float = 0.0
    cover_colour: RGB = (0.9, 0.9, 0.9)
    covered: tuple[float, float] = (0.0, 0.0)


def sample_props(rng: np.random.Generator) -> Props:
    """Draws the things of a clip; in most clips there are none."""

    def colour(dark):
        value = rng.uniform(0.02, 0.25) if rng.random() < dark else rng.uniform(0.2, 0.95)
        out = np.clip(value * (1 + rng.normal(0, 0.25 * (rng.random() < 0.5), 3)), 0.01, 0.97)
        return tuple(round(float(v), 4) for v in out)

    def place(spread, low, high):
        return round(float(rng.normal(0, spread)), 4), round(float(rng.uniform(low, high)), 4)

    start = float(rng.uniform(-0.2, 0.9))
    visit = np.clip([start, start + rng.uniform(0.15, 0.6)], 0.0, 1.0)
    return Props(
        headset=str(rng.choice(HEADSETS, p=(0.8, 0.07, 0.08, 0.05))),
        headset_colour=colour(0.7),
        headset_second=colour(0.5),
        microphone=str(rng.choice(MICROPHONES, p=(0.76, 0.07, 0.08, 0.05, 0.04))),
        microphone_at=place(0.45, 0.25, 1.3),
        microphone_colour=colour(0.7),
        cover=str(rng.choice(COVERS, p=(0.86, 0.05, 0.04, 0.05))),
        cover_at=place(0.3, -0.45, 0.25),
        cover_tilt=round(float(rng.normal(0, 0.5)), 4),
        cover_colour=colour(0.2),
        covered=(round(float(visit[0]), 4), round(float(visit[1]), 4)),
    )


def compute_reach(props: Props, times: np.ndarray, duration: float) -> np.ndarray:
    """Computes how near the cover is at times (T,) in seconds: 0 is away, 1 is at the chin."""
    start, end = np.array(props.covered) * duration
    if props.cover == "none" or start == end:
        return np.zeros(len(times))
    rise = np.clip(np.minimum(times - start, end - times) / _SMOOTH, 0, 1)
    # A clip may begin or end while the cover is there.
    rise = np.where((start == 0) & (times < (start + end) / 2), 1.0, rise)
    rise = np.where((props.covered[1] == 1) & (times > (start + end) / 2), 1.0, rise)
    return rise * rise * (3 - 2 * rise)
