import numpy as np
import pytest

from talkjax.training import agreement, stages
from tests.parameters import random_for
from tests.training.small_stages import batch, tiny_config


def test_signal_agrees_and_noise_does_not():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=4000)
    same = agreement.agreement(np.tile(signal, (16, 1)))
    assert same["cosine_of_halves"] == pytest.approx(1)
    assert same["norm_of_mean"] == pytest.approx(same["norm"]) == np.linalg.norm(signal)
    noise = rng.normal(size=(16, 4000))
    alone = agreement.agreement(noise)
    assert abs(alone["cosine_of_halves"]) < 0.06
    assert alone["norm_of_mean"] == pytest.approx(alone["norm"] / 4, rel=0.05)
    # Of equal parts of signal and noise a batch, halves of 8 agree by 1 / (1 + 1 / 8).
    mixed = agreement.agreement(signal[None] + noise)
    assert mixed["cosine_of_halves"] == pytest.approx(8 / 9, abs=0.03)
    assert agreement.cosine(signal, np.zeros(4000)) == 0


def test_both_losses_reach_the_landmark_network():
    plain = tiny_config("joint").to_dict()
    params = random_for(stages.make_stage(plain).init, batch())
    batches = [batch(seed) for seed in range(4)]
    found = agreement.landmark_gradients(plain, params, batches)
    (pictures,) = found["pictures"]
    assert found["batches"] == 4 and -1 <= pictures["cosine"] <= 1
    assert pictures["norm"] > 0 and found["landmark"]["norm"] > 0
