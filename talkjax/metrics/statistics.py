"""Means over clips, and how far to trust them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


def bootstrap(
    values: Sequence[float | None], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """A mean over clips with its percentile bootstrap interval (Efron 1979).

    Args:
      values: one for each clip; None and NaN are left out.
      seed: of the resampling.
      resamples: how many.

    Returns:
      {"mean", "ci95", "n"}: `ci95` is [low, high], None with fewer than two clips; `mean` is None
      with none.
    """
    good = np.array([v for v in values if v is not None and np.isfinite(v)], np.float64)
    if not len(good):
        return {"mean": None, "ci95": None, "n": 0}
    interval = None
    if len(good) > 1:
        rng = np.random.default_rng(seed)
        drawn = good[rng.integers(0, len(good), (resamples, len(good)))]
        tail = (1 - LEVEL) / 2
        interval = [float(q) for q in np.quantile(drawn.mean(1), [tail, 1 - tail])]
    return {"mean": float(good.mean()), "ci95": interval, "n": len(good)}
