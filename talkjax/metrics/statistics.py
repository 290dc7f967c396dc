"""Means over clips, and how far to trust them."""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


def bootstrap(
    values: Sequence[float | None],
    statistic: Callable[..., np.ndarray] = np.mean,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict:
    """A statistic over clips with its percentile bootstrap interval (Efron 1979).

    Args:
      values: one for each clip; None and NaN are left out.
      statistic: `np.mean` or `np.median`.
      seed: of the resampling.
      resamples: how many.

    Returns:
      {"value", "low", "high", "clips"}: 95% interval; `low` and `high` are None with fewer than
      two clips, `value` too with none.
    """
    good = np.array([v for v in values if v is not None and np.isfinite(v)], np.float64)
    if not len(good):
        return {"value": None, "low": None, "high": None, "clips": 0}
    result = {"value": float(statistic(good)), "low": None, "high": None, "clips": len(good)}
    if len(good) > 1:
        rng = np.random.default_rng(seed)
        drawn = good[rng.integers(0, len(good), (resamples, len(good)))]
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(statistic(drawn, axis=1), [tail, 1 - tail])
        result |= {"low": float(low), "high": float(high)}
    return result
