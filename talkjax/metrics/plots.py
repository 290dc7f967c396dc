"""Plots of mouth openings over time, drawn by matplotlib."""

from collections.abc import Mapping, Sequence

import numpy as np

from talkjax.conventions import TICKS_PER_SECOND
from talkjax.metrics import packages

_DPI = 100
_HEIGHT = 3.0  # inches of the openings
_SOUND_HEIGHT = 0.7  # inches of the sound
_ENVELOPE_RATE = 100  # Hz
_COLORS = ("black", "tab:red", "tab:blue", "tab:green", "tab:purple")


def plot_openings(
    curves: Mapping[str, np.ndarray],
    title: str = "",
    width: int = 900,
    sound: np.ndarray | None = None,
    sample_rate: int = 16000,
    marks: Sequence[float] = (),
) -> np.ndarray:
    """Plots mouth openings over time, with a sound's envelope above them if one is given.

    Args:
      curves: {label: (ticks,) openings}; NaN leaves a gap.
      title: Title of the plot.
      width: Width of the picture in pixels.
      sound: (S,) samples that begin where the curves do.
      sample_rate: Samples per second of the sound.
      marks: Times in seconds at which vertical lines are drawn.

    Returns:
      (height, width, 3) uint8.

    Raises:
      UserError: matplotlib is not installed.
    """
    packages.require("matplotlib")
    # Not pyplot: figures of its own keep no global state and need no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [_HEIGHT] if sound is None else [_SOUND_HEIGHT, _HEIGHT]
    figure = Figure((width / _DPI, sum(heights)), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    openings = panels[-1]
    for (label, curve), color in zip(curves.items(), _COLORS, strict=False):
        openings.plot(np.arange(len(curve)) / TICKS_PER_SECOND, curve, label=label, color=color)
    openings.set_xlabel("seconds")
    openings.set_xlim(0, max(max(map(len, curves.values())) - 1, 1) / TICKS_PER_SECOND)
    openings.margins(y=0.2)  # room for the legend
    openings.set_ylim(bottom=0)
    openings.grid(color="0.9")
    openings.legend(loc="upper right", ncols=len(curves), fontsize="small")
    if sound is not None:
        envelope = _envelope(sound, sample_rate // _ENVELOPE_RATE)
        times = np.arange(len(envelope)) / _ENVELOPE_RATE
        panels[0].fill_between(times, -envelope, envelope, color="0.5")
        panels[0].set_ylabel("sound")
        panels[0].set_yticks([])
    for panel in panels:
        for mark in marks:
            panel.axvline(mark, color="0.8", linewidth=1)
    panels[0].set_title(title, fontsize="medium", loc="left", parse_math=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _envelope(sound: np.ndarray, hop: int) -> np.ndarray:
    """Returns the largest magnitude of every `hop` samples."""
    padded = np.pad(np.abs(sound), (0, -len(sound) % hop))
    return padded.reshape(-1, hop).max(1)
