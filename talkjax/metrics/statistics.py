"""Means over clips with bootstrap intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEVEL = 0.95


def bootstrap_mean(
    values: Sequence[float | None], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Computes a mean over clips and its percentile bootstrap interval (Efron 1979).

    Args:
      values: One value per clip; None and NaN are left out.
      seed: Seed of the resampling.
      resamples: Number of resamples.

    Returns:
      {"mean", "ci95", "n"}. `ci95` is [low, high], or None with fewer than two clips; `mean` is
      None without any.
    """
    known = np.array([v for v in values if v is not None and np.isfinite(v)], np.float64)
    if not len(known):
        return {"mean": None, "ci95": None, "n": 0}
    interval = None
    if len(known) > 1:
        low, high = stats.bootstrap(
            (known,), np.mean, n_resamples=resamples, confidence_level=LEVEL, method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
        interval = [float(low), float(high)]
    return {"mean": float(known.mean()), "ci95": interval, "n": len(known)}
