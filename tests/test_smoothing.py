"""Gaussian averages over time."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from talkjax.smoothing import StreamingSmoother, smooth


def test_smoothing_keeps_a_constant_and_damps_noise():
    times = np.arange(50) / 25
    noise = np.random.default_rng(0).normal(0, 1, (50, 1))
    np.testing.assert_allclose(smooth(np.full((50, 1), 3.0), times, 0.12), 3.0)
    assert smooth(noise, times, 0.3).std() < smooth(noise, times, 0.12).std() < 0.5


def gaussian_average(values, times, sigma):
    """A direct implementation: normal weights, cut at three sigma."""
    distance = np.abs(times[:, None] - times)  # (N, N)
    weights = np.exp(-0.5 * (distance / sigma) ** 2) * (distance <= 3 * sigma + 1e-9)
    return weights @ values / weights.sum(1, keepdims=True)


@given(
    steps=st.lists(st.floats(0.005, 0.19), min_size=1, max_size=60),
    sizes=st.lists(st.integers(0, 9), max_size=30),
    sigma=st.floats(0.05, 0.5),
)
@example([0.125, *3 * [0.18413296330889803]], [], 0.18413296330889803)  # at three sigma
@settings(max_examples=60, deadline=None)
def test_smoother_gives_the_same_averages_for_pieces_of_any_size(steps, sizes, sigma):
    times = np.cumsum(steps)
    values = np.random.default_rng(len(times)).normal(0, 1, (len(times), 3))
    whole = smooth(values, times, sigma)
    np.testing.assert_allclose(whole, gaussian_average(values, times, sigma), atol=1e-9)
    smoother = StreamingSmoother(sigma)
    for _ in range(2):  # a smoother may be used again after `flush`
        averages, start = [], 0
        for size in [*sizes, len(times)]:
            piece = slice(start, min(start + size, len(times)))
            averages += [*smoother.push(times[piece], values[piece])]
            start = piece.stop
            # A sample comes out as soon as no later one can change it, and not before.
            newest = times[start - 1] if start else -np.inf
            assert len(averages) == np.sum(times[:start] + 3 * sigma + 1e-9 < newest)
        averages += [*smoother.flush()]
        np.testing.assert_array_equal(averages, whole)


def test_clip_without_frames():
    assert smooth(np.zeros((0, 2)), np.zeros(0), 0.12).shape[0] == 0
