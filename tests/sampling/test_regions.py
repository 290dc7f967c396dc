"""The JAX part of sampling: one noise, guidance, sharding, agreement with training's sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from talkjax import networks
from talkjax.sampling import regions
from talkjax.training import stages
from tests.sampling import fakes

B = 8


@pytest.fixture(scope="module")
def model():
    config = fakes.tiny_config()
    return jax.tree.map(jnp.asarray, fakes.random_params(config)), networks.build(config)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(3)
    return {
        "masked": jnp.asarray(rng.integers(0, 256, (B, 32, 32, 3), np.uint8)),
        "landmarks": jnp.asarray(rng.uniform(0.2, 0.8, (B, 131, 2)).astype(np.float32)),
        "image": jnp.asarray(rng.integers(0, 256, (32, 32, 3), np.uint8)),
        "points": jnp.asarray(rng.uniform(0.2, 0.8, (131, 2)).astype(np.float32)),
    }


def generate(model, inputs, seed=0, **options):
    params, nets = model

    def run(params, masked, landmarks, image, points):
        reference = regions.encode_reference(params, nets, image, points)
        key = jax.random.key(seed)
        options.setdefault("steps", 2)
        return regions.generate_regions(params, nets, masked, landmarks, reference, key, **options)

    return np.asarray(jax.jit(run)(params, **inputs))


def test_shape_and_determinism(model, inputs):
    got = generate(model, inputs)
    assert got.shape == (B, 32, 32, 3) and got.dtype == np.uint8
    np.testing.assert_array_equal(got, generate(model, inputs))
    assert (got != generate(model, inputs, seed=1)).any()


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_equal_frames_come_out_equal(model, inputs, eta):
    same = {**inputs, **{k: jnp.repeat(inputs[k][:1], B, 0) for k in ("masked", "landmarks")}}
    got = generate(model, same, eta=eta)
    assert np.abs(got.astype(int) - got[:1]).max() <= 1


def test_agrees_with_the_sampler_of_training(model, inputs):
    params, nets = model
    noise = jax.random.normal(
        jax.random.split(jax.random.key(0))[0], (1, *nets.latent_shape)
    )
    batch = {
        "keep_landmarks": jnp.ones(B, bool),
        "keep_reference": jnp.ones(B, bool),
        "image_reference_landmarks": jnp.repeat(inputs["points"][None], B, 0),
        "reference_latent": jnp.repeat(
            nets.encode(params["autoencoder"], inputs["image"][None]), B, 0
        ),
        "masked_latent": nets.encode(params["autoencoder"], inputs["masked"])[:, None],
    }
    latents = stages.sample_latents(
        nets, params, batch, inputs["landmarks"][:, None], jnp.repeat(noise, B, 0), 3
    )
    want = nets.decode(params["autoencoder"], latents)
    got = generate(model, inputs, steps=3) / 127.5 - 1
    np.testing.assert_allclose(got, want, atol=1.01 / 127.5)


def test_guidance_does_something_and_one_is_none(model, inputs):
    plain = generate(model, inputs)
    assert (plain != generate(model, inputs, landmark_guidance=3.0)).any()
    assert (plain != generate(model, inputs, reference_guidance=3.0)).any()
    both = generate(model, inputs, landmark_guidance=2.0, reference_guidance=2.0)
    assert (plain != both).any()


def test_frames_shard_over_devices(model, inputs):
    params, nets = model
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), (AxisType.Auto,) * 2)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    everywhere = NamedSharding(mesh, PartitionSpec())
    placed = {
        k: jax.device_put(v, rows if k in ("masked", "landmarks") else everywhere)
        for k, v in inputs.items()
    }
    got = generate((jax.device_put(params, everywhere), nets), placed)
    assert np.abs(got.astype(int) - generate(model, inputs)).max() <= 1


def test_content_completion(model):
    params, nets = model
    rng = np.random.default_rng(0)
    mel, pose, references = (
        jnp.asarray(rng.uniform(size=shape).astype(np.float32))
        for shape in ((10, 16, 80), (10, 74, 2), (3, 131, 2))
    )
    got = regions.complete_content(params, nets, mel, pose, references)
    assert got.shape == (10, 57, 2) and got.dtype == jnp.float32


def test_expected_params_are_those_of_training():
    config = fakes.tiny_config()
    stage = stages.build(config)
    frames, window = 1, config["data"]["window"]
    batch = {
        "mel": jnp.zeros((1, window, 16, 80)),
        "pose": jnp.zeros((1, window, 74, 2)),
        "reference_landmarks": jnp.zeros((1, 3, 131, 2)),
        "frame_landmarks": jnp.zeros((1, frames, 131, 2)),
        "image_reference_landmarks": jnp.zeros((1, 131, 2)),
    }
    want = jax.eval_shape(stage.init, jax.random.key(0), batch)
    got = regions.expected_params(networks.build(config))
    assert jax.tree.map(lambda x: x.shape, got) == jax.tree.map(lambda x: x.shape, want)
