"""Whether lips shut where speech needs it: p, b and m are made with closed lips or not at all.

Viewers notice a missing closure more than anything else, and a correlation over a whole clip hardly
does. When a closure is due is known only where the speech's phonemes are: the synthetic corpus
keeps them in a JSON file beside each video.
"""

import json
import os
from pathlib import Path

import numpy as np

from talkjax.conventions import TICKS_PER_SECOND
from talkjax.metrics import signals

FORMAT = "talkjax-truth"
WINDOW = 0.06  # seconds to either side of a closure's middle
THRESHOLD = 0.10  # of the truth's range


def read(video: str | os.PathLike) -> np.ndarray | None:
    """The closures of a video's speech, from the JSON file beside it.

    Returns:
      (n, 2) float64 seconds, begin and end of each closure; None if there is no such file.
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
    """The share of closures at which the lips are seen to shut.

    Lips count as shut where the smallest opening within `window` of a closure's middle is at most
    `threshold` of the truth's range (`signals.extent`) above the truth's 5th percentile.

    Args:
      opening: (T,) the mouth's opening at 0, 1, ... / `rate`, NaN where no face is seen.
      truth: (U,) the true opening of the same speech, on the same clock; it gives the scale only.
      closures: (n, 2) seconds.
      rate: of both curves, Hz.
      window: seconds.
      threshold: share of the range.

    Returns:
      0 to 1; closures of which nothing is seen do not count, NaN if none is left or the truth does
      not move.
    """
    span = signals.extent(truth)
    if not np.isfinite(span) or span <= 0:
        return float("nan")
    limit = np.percentile(truth[np.isfinite(truth)], 5) + threshold * span
    times = np.arange(len(opening)) / rate
    shut = []
    for middle in np.asarray(closures, np.float64).reshape(-1, 2).mean(1):
        seen = opening[np.abs(times - middle) <= window + 1e-9]
        seen = seen[np.isfinite(seen)]
        if len(seen):
            shut.append(seen.min() <= limit)
    return float(np.mean(shut)) if shut else float("nan")
