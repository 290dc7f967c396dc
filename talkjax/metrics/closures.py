"""Measures whether the lips close where the speech requires it: at every p, b and m.

Viewers notice a missing closure more than anything else, while the correlation over a whole clip
hardly changes. The times at which closures are due follow from the speech's phonemes, which the
synthetic corpus stores in a JSON file beside each video.
"""

import json
import os
from pathlib import Path

import numpy as np

from talkjax.conventions import TICKS_PER_SECOND
from talkjax.metrics import signals

FORMAT = "talkjax-truth"
WINDOW = 0.06  # seconds on either side of a closure's middle
THRESHOLD = 0.10  # share of the truth's range


def read_closures(video: str | os.PathLike) -> np.ndarray | None:
    """Reads the closures of a video's speech from the JSON file beside it.

    Returns:
      (n, 2) float64 start and end of each closure in seconds, or None without such a file.
    """
    try:
        content = json.loads(Path(video).with_suffix(".json").read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return None
        closures = np.array(content["bilabial"], np.float64).reshape(-1, 2)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return closures if np.isfinite(closures).all() else None


def closed_share(
    opening: np.ndarray,
    truth: np.ndarray,
    closures: np.ndarray,
    rate: float = TICKS_PER_SECOND,
    window: float = WINDOW,
    threshold: float = THRESHOLD,
) -> float:
    """Computes the share of closures at which the lips close.

    Lips count as closed where the smallest opening within `window` of a closure's middle exceeds
    the truth's 5th percentile by at most `threshold` of the truth's range
    (`signals.percentile_range`).

    Args:
      opening: (T,) mouth opening at times 0, 1, ... / `rate`; NaN where no face is visible.
      truth: (U,) true opening of the same speech on the same clock; it only sets the scale.
      closures: (n, 2) start and end of each closure in seconds.
      rate: Samples per second of both curves.
      window: Seconds on either side of a closure's middle.
      threshold: Share of the truth's range.

    Returns:
      A share from 0 to 1. Closures during which no face is visible do not count; NaN if none is
      left or the truth does not move.
    """
    span = signals.percentile_range(truth)
    if not np.isfinite(span) or span <= 0:
        return float("nan")
    limit = np.percentile(truth[np.isfinite(truth)], 5) + threshold * span
    times = np.arange(len(opening)) / rate
    closed = []
    for middle in np.asarray(closures, np.float64).reshape(-1, 2).mean(1):
        nearby = opening[np.abs(times - middle) <= window + 1e-9]
        nearby = nearby[np.isfinite(nearby)]
        if len(nearby):
            closed.append(nearby.min() <= limit)
    return float(np.mean(closed)) if closed else float("nan")
