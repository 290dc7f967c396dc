import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType

from talkjax.models import attention
from talkjax.models.attention import DistanceBias, attend


def inputs(batch=2, n=256, m=128, heads=2, features=24, values=16, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 5)
    query = jax.random.normal(keys[0], (batch, n, heads, features)).astype(dtype)
    key = jax.random.normal(keys[1], (batch, m, heads, features)).astype(dtype)
    value = jax.random.normal(keys[2], (batch, m, heads, values)).astype(dtype)
    points = jax.random.uniform(keys[3], (batch, n, 2)), jax.random.uniform(keys[4], (batch, m, 2))
    # The narrowest kernel has half of a width of 0.04 crops.
    return query, key, value, DistanceBias(*points, jnp.array([1250.0, 80.0][:heads]))


def by_hand(query, key, value, bias):
    q, k, v, p, s, t = (
        np.asarray(x.astype(jnp.float32), np.float64)
        for x in (query, key, value, bias.query, bias.key, bias.temperature)
    )
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            distance = ((p[b][:, None] - s[b][None]) ** 2).sum(-1)
            logits = q[b, :, h] @ k[b, :, h].T - t[h] * distance
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            out[b, :, h] = weights / weights.sum(-1, keepdims=True) @ v[b, :, h]
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.02)])
def test_xla_is_attention_with_a_gaussian_of_the_distance(dtype, tolerance):
    arguments = inputs(n=5, m=7, dtype=dtype)
    out, weights = attend(*arguments)
    assert out.dtype == dtype
    np.testing.assert_allclose(np.asarray(out, np.float32), by_hand(*arguments), atol=tolerance)
    assert weights.shape == (2, 2, 5, 7) and weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
    out, _ = attend(*arguments[:3], None)
    plain = arguments[3].replace(temperature=jnp.zeros(2))
    wanted = by_hand(*arguments[:3], plain)
    np.testing.assert_allclose(np.asarray(out, np.float32), wanted, atol=tolerance)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_distance_features_are_exact_up_to_a_constant_per_query(dtype):
    query, key, _, bias = inputs(n=40, m=30, dtype=dtype)
    wide_query, wide_key = attention.append_distance_features(query, key, bias)
    assert wide_query.dtype == wide_key.dtype == dtype
    got = jnp.einsum(
        "bnhd,bmhd->bhnm", wide_query[..., 24:], wide_key[..., 24:],
        preferred_element_type=jnp.float32,
    )  # fmt: skip
    distance = np.square(np.asarray(bias.query)[:, :, None] - np.asarray(bias.key)[:, None])
    wanted = -np.asarray(bias.temperature).reshape(1, -1, 1, 1) * distance.sum(-1)[:, None]
    off = np.asarray(got) - wanted
    off -= off.mean(-1, keepdims=True)
    # Logits reach 2500; bfloat16 loses more than this in the product of the other features.
    assert np.abs(wanted).max() > 500
    assert np.abs(off).max() < 2e-3


def gradients(implementation, arguments):
    def loss(query, key, value, bias):
        out, _ = attend(query, key, value, bias, implementation)
        return jnp.sin(3 * out.astype(jnp.float32)).sum()

    return jax.grad(loss, argnums=(0, 1, 2, 3))(*arguments)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.bfloat16, 0.1)])
def test_the_pallas_kernel_agrees_forward_and_backward(dtype, tolerance):
    arguments = inputs(batch=1, n=128, dtype=dtype)
    with pltpu.force_tpu_interpret_mode():
        out, weights = attend(*arguments, "pallas_tpu")
        grads = gradients("pallas_tpu", arguments)
    assert weights is None and out.dtype == dtype
    np.testing.assert_allclose(np.asarray(out, np.float32), by_hand(*arguments), atol=tolerance)
    for got, wanted in zip(
        jax.tree.leaves(grads), jax.tree.leaves(gradients("xla", arguments)), strict=True
    ):
        assert got.dtype == wanted.dtype
        got, wanted = (np.asarray(x, np.float32) for x in (got, wanted))
        assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted)


def test_pallas_leaves_what_its_tiles_do_not_fit_to_xla():
    arguments = inputs(n=64, m=64)
    out, weights = attend(*arguments, "pallas_tpu")  # no interpreter: the kernel would fail here
    assert weights is not None
    np.testing.assert_array_equal(out, attend(*arguments)[0])


def test_the_kernel_runs_on_each_devices_part_of_the_batch():
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), (AxisType.Auto,) * 2)
    arguments = inputs(batch=8, n=128, m=128, heads=1)
    with pltpu.force_tpu_interpret_mode(), jax.set_mesh(mesh):
        text = jax.jit(attend, static_argnums=4).lower(*arguments, "pallas_tpu").as_text()
    assert "sdy.manual_computation" in text or "shard_map" in text


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
def test_cudnn_agrees():
    arguments = inputs(dtype=jnp.bfloat16)
    out, _ = attend(*arguments, "cudnn")
    np.testing.assert_allclose(np.asarray(out, np.float32), by_hand(*arguments), atol=0.03)


def test_cudnn_is_given_the_same_problem_as_xla(monkeypatch):
    """Without a GPU: cuDNN's own formula in float32, computed by JAX."""
    plain = jax.nn.dot_product_attention

    def stand_in(query, key, value, scale, implementation):
        assert implementation == "cudnn"
        assert query.shape[-1] % 8 == 0 and query.shape[-1] == value.shape[-1]
        return plain(query, key, value, scale=scale, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    arguments = inputs(n=20, m=30)
    out, weights = attend(*arguments, "cudnn")
    assert weights is None
    np.testing.assert_allclose(out, by_hand(*arguments), atol=1e-4)


def test_unknown_and_unfit_implementations_are_errors():
    with pytest.raises(ValueError, match="flash"):
        attention.check_implementation("flash", jnp.float32)
    with pytest.raises(ValueError, match="cudnn"):
        attention.check_implementation("cudnn", jnp.float32)
    attention.check_implementation("cudnn", jnp.bfloat16)
    assert attention.supported_implementation("pallas_tpu", jnp.bfloat16, "cpu") == "xla"
    assert attention.supported_implementation("pallas_tpu", jnp.bfloat16, "tpu") == "pallas_tpu"
    assert attention.supported_implementation("cudnn", jnp.float32, "gpu") == "xla"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_float32_product_with_distance_features_has_float32_precision(dtype):
    """At the default precision, TPUs and GPUs would be off by whole units of a logit."""
    jaxpr = jax.make_jaxpr(lambda *inputs: attend(*inputs)[0])(*inputs(dtype=dtype))
    logits = next(eqn for eqn in jaxpr.eqns if eqn.primitive is jax.lax.dot_general_p)
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert logits.params["precision"] == (highest if dtype == jnp.float32 else None)
