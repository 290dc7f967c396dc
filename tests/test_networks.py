import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base_256, demo_64, demo_128, person_128
from talkjax import networks
from talkjax.configuration import with_defaults
from talkjax.conventions import MASK, masked_slices
from talkjax.training import stages


def abstract_batch(nets, frames=2):
    def array(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    return {
        "mel": array(1, 41, 16, 80),
        "pose": array(1, 25, 74, 2),
        "content": array(1, 25, 57, 2),
        "reference_landmarks": array(1, 4, 131, 2),
        "reference_mel": array(1, 4, 16, 80),
        "reference_heard": array(1, 4, dtype=jnp.bool_),
        "frame_landmarks": array(1, frames, 131, 2),
        "image_reference_landmarks": array(1, 1, 131, 2),
        "frame_tick": array(1, frames),
        "keep_landmarks": array(1, dtype=jnp.bool_),
        "keep_reference": array(1, dtype=jnp.bool_),
        "target": array(1, frames, *nets.image_size, 3, dtype=jnp.uint8),
        "reference": array(1, 1, *nets.image_size, 3, dtype=jnp.uint8),
    }


@pytest.mark.parametrize(
    ("config", "total", "denoiser"),
    [
        (demo_64, (0, 5e6), (1e6, 3e6)),
        (demo_128, (0, 20e6), (3e6, 8e6)),  # 40 MB as float16
        (person_128, (0, 20e6), (5e6, 15e6)),
        (base_256, (200e6, 450e6), (200e6, 300e6)),
    ],
)
def test_sizes_and_a_joint_step_without_weights(config, total, denoiser):
    """The paper-size model, bf16 and all, is traced on any machine in seconds."""
    config = config.get_config()
    config.stage = "joint"
    config.autoencoder.latent_mean, config.autoencoder.latent_std = (0.0,), (1.0,)
    batch = abstract_batch(networks.make_networks(config))
    stage = stages.make_stage(config)
    params = jax.eval_shape(stage.init, jax.random.key(0), batch)
    sizes = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in params.items()}
    assert denoiser[0] < sizes["denoiser"] < denoiser[1]
    assert total[0] < sum(sizes.values()) < total[1]
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    loss, metrics = jax.eval_shape(stage.loss_fn, params, batch, jax.random.key(0))
    assert loss.shape == () and loss.dtype == jnp.float32 and "landmark_l1" in metrics


def test_mask_covers_every_cell_that_a_hidden_pixel_touches():
    nets = networks.make_networks(person_128.get_config())
    assert nets.latent_shape == (10, 14, 32) and nets.image_size == (80, 112)
    rows, columns = masked_slices(nets.region, MASK, 128)
    assert (rows, columns) == (slice(8, 72), slice(8, 104))
    expected = np.zeros((10, 14))
    expected[1:9, 1:13] = 1
    np.testing.assert_array_equal(nets.mask, expected)


def test_the_config_of_an_earlier_version_makes_its_networks(repository):
    """It lacks fields that later versions added."""
    config = json.loads((repository / "tests/golden/earlier_config.json").read_text())
    config["denoiser"].pop("skip_after_attention", None)
    config["autoencoder"].pop("remat", None)
    nets = networks.make_networks(with_defaults(config))
    assert nets.latent_shape == (10, 14, 16) and nets.prediction == "v"
    # It was trained with skip connections that leave before the attention.
    assert not nets.denoiser.config.skip_after_attention


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("region", (0.3, 0.0625, 1.0, 0.9375)),
        ("autoencoder.kind", "vq"),
        ("autoencoder.latent_mean", (0.0, 1.0)),
        ("diffusion.schedule", "sigmoid"),
        ("diffusion.prediction", "x0"),
        ("denoiser.remat", "some"),
    ],
)
def test_what_does_not_fit_is_refused(field, value):
    config = person_128.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=r"region|autoencoder|channels|schedule|prediction|remat"):
        networks.make_networks(config)


def test_latents_are_not_normalised_with_unknown_statistics():
    """Stable Diffusion's statistics, once the default, are wrong for any other autoencoder."""
    nets = networks.make_networks(demo_64.get_config())
    assert nets.latent_mean is None and nets.latent_std is None
    with pytest.raises(ValueError, match="latent_mean and latent_std are not set"):
        nets.decode({}, np.zeros((1, *nets.latent_shape), np.float32))
