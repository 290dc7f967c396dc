"""Curves whose answers are known."""

import numpy as np
import pytest

from talkjax import conventions
from talkjax.metrics import signals

CURVE = 0.3 + 0.2 * np.sin(np.arange(75) / 3.0) + 0.05 * np.sin(np.arange(75) / 1.3)


def face(ticks: int = 40, seed: int = 0) -> np.ndarray:
    """(ticks, 131, 2) random but steady faces with an inter-ocular distance of 0.3."""
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.uniform(0.2, 0.8, (1, 131, 2)), ticks, 0)
    points[:, conventions.positions(conventions.LEFT_EYE)] = (0.35, 0.2)
    points[:, conventions.positions(conventions.RIGHT_EYE)] = (0.65, 0.2)
    return points


def test_correlation_of_equal_scaled_and_opposite_curves():
    assert signals.correlation(CURVE, CURVE) == pytest.approx(1)
    assert signals.correlation(3 * CURVE + 1, CURVE) == pytest.approx(1)
    assert signals.correlation(-CURVE, CURVE) == pytest.approx(-1)


def test_correlation_of_what_does_not_move_is_zero_and_of_too_little_nan():
    assert signals.correlation(np.full(75, 0.3), CURVE) == 0
    assert np.isnan(signals.correlation(CURVE[:5], CURVE))
    gaps = CURVE.copy()
    gaps[10:20] = np.nan
    assert signals.correlation(gaps, CURVE) == pytest.approx(1)


@pytest.mark.parametrize("late", [-7, -1, 0, 3, 10])
def test_lag_is_found_with_its_sign(late):
    padded = np.pad(CURVE, 20, mode="reflect")
    assert signals.find_lag(padded[20 - late : 95 - late], CURVE) == late


def test_lag_of_what_does_not_move_is_unknown():
    assert np.isnan(signals.find_lag(np.full(75, 0.3), CURVE))


def test_articulation_is_the_share_of_the_range():
    assert signals.articulation_ratio(0.6 * CURVE + 2, CURVE) == pytest.approx(0.6)
    assert signals.articulation_ratio(np.full(75, 0.1), CURVE) == 0
    assert np.isnan(signals.articulation_ratio(CURVE, np.full(75, 0.1)))


def test_lip_distance_is_in_interocular_units_whatever_the_scale():
    truth = face()
    moved = truth.copy()
    moved[:, -conventions.NUM_LIPS :] += (0.03, 0.0)  # a tenth of 0.3
    moved[:, : -conventions.NUM_LIPS] += 0.5  # the rest of the face does not count
    assert signals.lip_distance(moved, truth) == pytest.approx(0.1)
    assert signals.lip_distance(7 * moved, 7 * truth) == pytest.approx(0.1)
    assert signals.lip_distance(truth, truth) == 0


def test_jitter_knows_trembling_from_motion():
    ticks = np.arange(40)[:, None, None]
    truth = face() + 0.01 * np.sin(ticks / 3)
    steady = face() + 0.02 * ticks  # a constant speed has no second difference
    trembling = truth + 0.003 * (-1.0) ** ticks
    assert signals.jitter_ratio(truth, truth) == pytest.approx(1)
    assert signals.lip_shake(steady) == pytest.approx(0, abs=1e-9)
    assert signals.jitter_ratio(trembling, truth) > 3


def test_clock_interpolates_keeps_gaps_and_ends():
    times = np.arange(31) / 30
    values = signals.resample_to_ticks(times[:, None] * 2, times, 30)
    assert values.shape == (30, 1)
    assert np.allclose(values[:26, 0], np.arange(26) / 25 * 2)
    assert np.isnan(values[27:]).all()
    holes = times.copy()
    holes[10:20] = np.nan  # 0.37 s without a face
    values = signals.resample_to_ticks(holes, times, 26)
    assert np.isfinite(values[:8]).all() and np.isfinite(values[17:]).all()
    assert np.isnan(values[9:16]).all()
    assert np.isnan(signals.resample_to_ticks(np.full(31, np.nan), times, 5)).all()


def test_clock_of_25_frames_a_second_changes_nothing():
    assert np.allclose(signals.resample_to_ticks(CURVE, np.arange(75) / 25, 75), CURVE)
