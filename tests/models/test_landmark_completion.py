import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.models.landmark_completion import LandmarkCompletion, LandmarkConfig

CONFIG = LandmarkConfig(features=32, layers=1, heads=2, dropout=0.2)


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def forward(model, params, *inputs, **options):
    return model.apply(params, *inputs, **options)


def arguments(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    return (
        jax.random.normal(keys[0], (2, 6, 16, 80)),
        jax.random.uniform(keys[1], (2, 6, 74, 2)),
        jax.random.uniform(keys[2], (2, 3, 131, 2)),
    )


@pytest.fixture(scope="module")
def fitted():
    model = LandmarkCompletion(CONFIG)
    return model, jax.jit(model.init)(jax.random.key(0), *arguments())


def test_starts_near_the_references_mean(fitted):
    model, params = fitted
    out = forward(model, params, *arguments())
    assert out.shape == (2, 6, 57, 2) and out.dtype == jnp.float32
    mean = arguments()[2].mean(1, keepdims=True)[:, :, 74:]
    assert float(jnp.abs(out - mean).mean()) < 0.01


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_input_matters(fitted, which):
    model, params = fitted
    inputs = list(arguments())
    before = forward(model, params, *inputs)
    inputs[which] = inputs[which].at[:, 0].add(1.0)
    assert float(jnp.abs(forward(model, params, *inputs) - before).max()) > 1e-6


def test_dropout_is_only_for_training(fitted):
    model, params = fitted
    plain = [forward(model, params, *arguments()) for _ in range(2)]
    np.testing.assert_array_equal(*plain)
    noisy = forward(model, params, *arguments(), train=True, rngs={"dropout": jax.random.key(1)})
    assert not np.array_equal(noisy, plain[0])


def test_bfloat16_returns_float32(fitted):
    _, params = fitted
    out = forward(LandmarkCompletion(CONFIG, dtype=jnp.bfloat16), params, *arguments())
    assert out.dtype == jnp.float32 and np.isfinite(out).all()


def test_offsets_come_from_a_product_of_full_precision(fitted):
    model, params = fitted
    jaxpr = jax.make_jaxpr(lambda p: model.apply(p, *arguments()))(params)
    products = [eqn for eqn in jaxpr.eqns if eqn.primitive is jax.lax.dot_general_p]
    assert products[-1].outvars[0].aval.shape[-1] == 2 * 57
    assert products[-1].params["precision"] == (jax.lax.Precision.HIGHEST,) * 2
