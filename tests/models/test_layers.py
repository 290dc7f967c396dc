import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.models.layers import GroupNorm, LayerNorm


def plain(x, scale, bias, groups, epsilon=1e-6):
    """The formula, to be differentiated by JAX, in float32."""
    h = x.astype(jnp.float32).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    h = h - h.mean((1, 3), keepdims=True)
    h = h * jax.lax.rsqrt(jnp.square(h).mean((1, 3), keepdims=True) + epsilon)
    return h.reshape(x.shape) * scale[None, None, None] + bias[None, None, None]


def ours(x, scale, bias, groups, dtype=jnp.float32):
    params = {"params": {"scale": scale, "bias": bias}}
    return GroupNorm(groups, dtype=dtype).apply(params, x)


@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_are_those_of_the_formula(mean, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 3, 4, 12)) + mean, dtype)
    scale, bias = (jnp.asarray(rng.standard_normal(12), jnp.float32) for _ in range(2))
    weight = jnp.asarray(rng.standard_normal(x.shape), jnp.float32)

    def run(function, *inputs):
        def loss(*inputs):
            out = function(*inputs, 3)
            return (weight * out.astype(jnp.float32)).sum(), out

        return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*inputs)

    (expected, value), (found, other) = run(plain, x, scale, bias), run(ours, x, scale, bias)
    assert other.dtype == jnp.float32 and found[0].dtype == dtype
    # At a mean of 100 the input's own rounding is 4e-6 of its spread.
    tolerance = 1e-5 if mean == 0 else 1e-4
    np.testing.assert_allclose(value, other, rtol=0, atol=tolerance * 10)
    for one, two, part in zip(expected, found, ("x", "scale", "bias"), strict=True):
        one, two = (np.asarray(v, np.float32) for v in (one, two))
        rounding = 2**-7 if part == "x" and dtype == jnp.bfloat16 else tolerance
        assert np.abs(one - two).max() < rounding * np.abs(one).max(), part


@pytest.mark.parametrize("norm", [GroupNorm(2, dtype=jnp.bfloat16), LayerNorm(dtype=jnp.bfloat16)])
def test_bfloat16_goes_in_and_out(norm):
    """Flax's own norms fail here, under strict dtype promotion."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 4)).astype(jnp.bfloat16)
    params = norm.init(jax.random.key(0), x)
    out = norm.apply(params, x)
    assert out.dtype == jnp.bfloat16
    assert set(params["params"]) == {"scale", "bias"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert abs(float(out.astype(jnp.float32).mean())) < 0.01


def test_layer_norm_has_float32_statistics():
    x = (jax.random.normal(jax.random.key(0), (5, 64)) + 100.0).astype(jnp.bfloat16)
    out = LayerNorm().apply(LayerNorm().init(jax.random.key(0), x), x)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    np.testing.assert_allclose(out, exact, atol=1e-3)
