import numpy as np
import pytest

from talkjax.metrics import statistics


def test_interval_holds_the_mean_and_shrinks_with_more_clips():
    rng = np.random.default_rng(0)
    few, many = (statistics.bootstrap_mean(rng.normal(2, 1, n)) for n in (10, 1000))
    for result in (few, many):
        assert result["ci95"][0] < result["mean"] < result["ci95"][1]
    narrow, wide = (np.ptp(result["ci95"]) for result in (many, few))
    assert narrow == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.15)
    assert wide > 3 * narrow


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    results = [statistics.bootstrap_mean(rng.normal(0, 1, 30), resamples=400) for _ in range(200)]
    covered = np.mean([r["ci95"][0] <= 0 <= r["ci95"][1] for r in results])
    assert 0.87 < covered < 0.99


def test_what_is_missing_does_not_count():
    result = statistics.bootstrap_mean([1.0, None, float("nan"), 3.0])
    assert result["mean"] == 2 and result["n"] == 2
    assert statistics.bootstrap_mean([None]) == {"mean": None, "ci95": None, "n": 0}
    assert statistics.bootstrap_mean([5.0])["ci95"] is None


def test_a_seed_pins_the_interval():
    values = np.random.default_rng(0).normal(size=20)
    assert statistics.bootstrap_mean(values, seed=3) == statistics.bootstrap_mean(values, seed=3)
    assert statistics.bootstrap_mean(values, seed=3) != statistics.bootstrap_mean(values, seed=4)
