from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax import weights
from talkjax.models import autoencoder

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def golden():
    params = weights.autoencoder_kl_params(GOLDEN / "autoencoder_kl.safetensors", groups=4)
    model = autoencoder.AutoencoderKL(**autoencoder.layout_of(params), groups=4)
    with np.load(GOLDEN / "autoencoder_kl.npz") as data:
        return model, params, dict(data)


def test_matches_diffusers(golden):
    model, params, data = golden
    mean, logvar = model.apply({"params": params}, data["images"], method="encode")
    np.testing.assert_allclose(mean, data["mean"], atol=1e-4)
    np.testing.assert_allclose(logvar, data["logvar"], atol=1e-4)
    decoded = model.apply({"params": params}, data["mean"], method="decode")
    np.testing.assert_allclose(decoded, data["decoded"], atol=1e-4)
    np.testing.assert_allclose(autoencoder.kl_divergence(mean, logvar), data["kl"], rtol=1e-4)
    assert min(data["mean"].std(), data["decoded"].std()) > 0.05


@pytest.mark.parametrize(
    ("name", "f", "count"),
    [("base", 8, 83_653_863), ("base", 4, None), ("tiny", 8, 3_884_295), ("tiny", 4, 2_702_087)],
)
def test_sizes(name, f, count):
    model = autoencoder.AutoencoderKL(**autoencoder.size_arguments(name, f), dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, 256, 192, 3), jnp.float32)
    params = weights.abstract_params(model, images)
    if count is not None:  # base, f=8: the published size of Stable Diffusion's
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    assert autoencoder.layout_of(params) == autoencoder.size_arguments(name, f)

    def encode(p, x):
        return model.apply({"params": p}, x, method="encode")

    mean, logvar = jax.eval_shape(encode, params, images)
    assert mean.shape == logvar.shape == (2, 256 // f, 192 // f, 4)
    assert mean.dtype == logvar.dtype == jnp.float32
    decoded = jax.eval_shape(lambda p, x: model.apply({"params": p}, x), params, images)
    assert decoded.shape == images.shape and decoded.dtype == jnp.float32


def test_bfloat16_and_remat_gradients(golden):
    model, params, data = golden

    def gradient(model):
        def loss(p):
            return jnp.square(model.apply({"params": p}, data["images"][:1])).mean()

        return jax.tree.leaves(jax.jit(jax.grad(loss))(params))

    plain = gradient(model)
    half = gradient(model.clone(dtype=jnp.bfloat16, remat=True))
    dot = sum(jnp.vdot(a, b) for a, b in zip(plain, half, strict=True))
    norms = [jnp.sqrt(sum(jnp.vdot(a, a) for a in leaves)) for leaves in (plain, half)]
    assert dot / (norms[0] * norms[1]) > 0.98
    assert all(leaf.dtype == jnp.float32 for leaf in half)


def test_posterior_samples_have_its_mean_and_spread():
    mean = jnp.full((1, 64, 64, 2), 0.7)
    logvar = jnp.full((1, 64, 64, 2), 2 * np.log(0.3))
    draw = autoencoder.sample_latent(jax.random.key(1), mean, logvar)
    np.testing.assert_allclose([draw.mean(), draw.std()], [0.7, 0.3], atol=0.02)


def test_wrong_sizes_are_refused(golden):
    model, params, _ = golden
    with pytest.raises(ValueError, match="multiples of 4"):
        model.apply({"params": params}, jnp.zeros((1, 16, 18, 3)), method="encode")
    with pytest.raises(ValueError, match="unknown autoencoder size"):
        autoencoder.size_arguments("huge")
    with pytest.raises(ValueError, match="unknown autoencoder size"):
        autoencoder.size_arguments("tiny", f=16)
