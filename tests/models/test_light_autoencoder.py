import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.models import light_autoencoder
from tests.parameters import random_for, random_like


def test_unfolding_undoes_folding():
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))
    folded = light_autoencoder.fold(x)
    assert folded.shape == (2, 3, 4, 12)
    np.testing.assert_array_equal(folded[1, 2, 3, 3:6], x[1, 4, 7])
    np.testing.assert_array_equal(light_autoencoder.unfold(folded), x)


@pytest.mark.parametrize("f", [4, 8])
def test_shapes_and_compute_type(f):
    size = light_autoencoder.size_arguments("tiny", f)
    model = light_autoencoder.LightAutoencoder(**size, dtype=jnp.bfloat16)
    assert model.downsampling == f
    images = jax.random.uniform(jax.random.key(0), (2, 16, 24, 3), minval=-1.0)
    params = jax.eval_shape(model.init, jax.random.key(1), images)["params"]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    params = random_like(params)
    mean, logvar = model.apply({"params": params}, images, method="encode")
    assert mean.shape == logvar.shape == (2, 16 // f, 24 // f, 4)
    assert mean.dtype == logvar.dtype == jnp.float32
    decoded = model.apply({"params": params}, mean, method="decode")
    assert decoded.shape == images.shape and decoded.dtype == jnp.float32


def test_sees_a_patch_and_not_the_whole_image():
    """No norm and no attention: training on patches is training on images."""
    model = light_autoencoder.LightAutoencoder(**light_autoencoder.size_arguments("tiny"))
    images = jax.random.uniform(jax.random.key(0), (1, 128, 128, 3), minval=-1.0)
    params = random_for(model.init, images)["params"]
    plain = model.apply({"params": params}, images)
    changed = model.apply({"params": params}, images.at[:, :8, :8].set(1.0))
    assert jnp.abs(plain - changed)[:, :8, :8].max() > 1e-4
    np.testing.assert_array_equal(plain[:, 112:, 112:], changed[:, 112:, 112:])


def test_an_untrained_posterior_lets_the_means_through():
    """Where its noise drowns them, training never begins (posterior collapse)."""
    model = light_autoencoder.LightAutoencoder(**light_autoencoder.size_arguments("small"))
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3), minval=-1.0)

    @jax.jit
    def encode(key, images):
        return model.apply(model.init(key, images), images, method="encode")

    mean, logvar = encode(jax.random.key(1), images)
    assert jnp.exp(0.5 * logvar).mean() < mean.std()


def test_the_medium_size_folds_by_four():
    size = light_autoencoder.size_arguments("medium", 16)
    model = light_autoencoder.LightAutoencoder(**size)
    assert model.downsampling == 16
    images = jnp.zeros((1, 32, 48, 3))
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images)[0])
    assert shapes.shape == images.shape


def test_a_guided_decoder_adds_to_its_guide_and_sees_it():
    size = light_autoencoder.size_arguments("tiny")
    model = light_autoencoder.LightAutoencoder(**size, guided=True)
    latents = jax.random.normal(jax.random.key(0), (2, 2, 3, 4))
    guide = jax.random.uniform(jax.random.key(1), (2, 16, 24, 3), minval=-1.0)
    decode = jax.jit(lambda params, *inputs: model.apply(params, *inputs, method="decode"))
    trained = random_for(model.init, guide)
    silent = jax.tree_util.tree_map_with_path(
        lambda path, x: x * ("conv_out" not in str(path)), trained
    )
    np.testing.assert_array_equal(decode(silent, latents, guide), guide)
    got = decode(trained, latents, guide)
    assert jnp.abs(got - guide).max() > 1e-3
    moved = guide.at[:, 4:8, 4:8].add(0.5)
    difference = decode(trained, latents, moved) - got - (moved - guide)
    assert jnp.abs(difference).max() > 1e-4
    grey = decode(trained, latents, jnp.zeros_like(guide))
    np.testing.assert_allclose(decode(trained, latents), grey, atol=1e-6)


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="unknown light autoencoder size"):
        light_autoencoder.size_arguments("large")
    with pytest.raises(ValueError, match="f=16"):
        light_autoencoder.size_arguments("small", 16)
    model = light_autoencoder.LightAutoencoder(**light_autoencoder.size_arguments("tiny"))
    with pytest.raises(ValueError, match="multiples of 8"):
        model.init(jax.random.key(0), jnp.zeros((1, 16, 20, 3)))
