"""The JAX part of sampling: one noise, guidance, sharding, agreement with training's sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from talkjax import networks
from talkjax.conventions import FULL, MASK, mask_region
from talkjax.errors import UserError
from talkjax.models.landmark_completion import References
from talkjax.sampling import regions
from talkjax.sampling.options import Options
from talkjax.sampling.sampler import Sampler
from talkjax.training import image_batches, stages
from tests.sampling import fakes

B = 8


@pytest.fixture(scope="module")
def model():
    config = fakes.tiny_config()
    return jax.tree.map(jnp.asarray, fakes.random_params(config)), networks.make_networks(config)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(3)
    images = rng.uniform(-1, 1, (B, 32, 32, 3)).astype(np.float32)
    return {
        "masked": jnp.asarray(mask_region(images, FULL, MASK, 32)),
        "landmarks": jnp.asarray(rng.uniform(0.2, 0.8, (B, 131, 2)).astype(np.float32)),
        "images": jnp.asarray(rng.integers(0, 256, (1, 32, 32, 3), np.uint8)),
        "points": jnp.asarray(rng.uniform(0.2, 0.8, (1, 131, 2)).astype(np.float32)),
    }


_COMPILED = {}


def generate(model, inputs, seed=0, **options):
    params, nets = model
    options.setdefault("steps", 2)

    def run(params, key, masked, landmarks, images, points):
        reference = regions.encode_reference(params, nets, images, points)
        return regions.generate_regions(params, nets, masked, landmarks, reference, key, **options)

    compiled = _COMPILED.setdefault(tuple(sorted(options.items())), jax.jit(run))
    return np.asarray(compiled(params, jax.random.key(seed), **inputs))


def test_shape_and_determinism(model, inputs):
    got = generate(model, inputs)
    assert got.shape == (B, 32, 32, 3) and got.dtype == np.uint8
    np.testing.assert_array_equal(got, generate(model, inputs))
    assert (got != generate(model, inputs, seed=1)).any()


def test_equal_frames_come_out_equal(model, inputs):
    same = {**inputs, **{k: jnp.repeat(inputs[k][:1], B, 0) for k in ("masked", "landmarks")}}
    got = generate(model, same, eta=1.0)  # the steps' noise is shared as well
    assert np.abs(got.astype(int) - got[:1]).max() <= 1


def test_agrees_with_the_sampler_of_training(model, inputs):
    params, nets = model
    noise = jax.random.normal(jax.random.split(jax.random.key(0))[0], (1, *nets.latent_shape))
    encode = jax.jit(lambda images: nets.encode(params["autoencoder"], images))
    batch = {
        "keep_landmarks": jnp.ones(B, bool),
        "keep_reference": jnp.ones(B, bool),
        "image_reference_landmarks": jnp.repeat(inputs["points"][None], B, 0),
        "reference_latent": jnp.repeat(encode(inputs["images"])[None], B, 0),
        "masked_latent": encode(inputs["masked"])[:, None],
    }

    @jax.jit
    def trained(params, batch, landmarks, noise):
        latents = image_batches.sample_latents(nets, params, batch, landmarks, noise, 2)
        return nets.decode(params["autoencoder"], latents)

    want = trained(params, batch, inputs["landmarks"][:, None], jnp.repeat(noise, B, 0))
    got = generate(model, inputs) / 127.5 - 1
    np.testing.assert_allclose(got, want, atol=1.01 / 127.5)


def test_guidance_does_something(model, inputs):
    plain = generate(model, inputs)
    guided = generate(model, inputs, landmark_guidance=2.0, reference_guidance=3.0)  # 3 passes
    assert (plain != guided).mean() > 0.2
    alone = generate(model, inputs, reference_guidance=0.0)  # one pass, without the reference
    assert (plain != alone).mean() > 0.2


def test_the_denoiser_attends_to_the_first_references(model, inputs):
    params, nets = model
    images = jnp.concatenate([inputs["images"], 255 - inputs["images"]])
    points = jnp.concatenate([inputs["points"], inputs["points"] + 0.1])
    sampler = Sampler(params, fakes.tiny_config(), nets)
    assert sampler.image_references == 1
    both = sampler.encode_reference(images, points)
    first = regions.encode_reference(params, nets, images[:1], points[:1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), both, first)


def test_a_denoiser_of_residuals_refuses_guidance(inputs, tmp_path):
    changes = {"denoiser.fill": "warp", "diffusion.residual_scale": 0.5}
    config = fakes.tiny_config(**changes)
    model = jax.tree.map(jnp.asarray, fakes.random_params(config)), networks.make_networks(config)
    for scale in (2.5, 0.0):
        with pytest.raises(ValueError, match="cannot be guided"):
            generate(model, inputs, reference_guidance=scale, steps=3)  # not compiled yet
    sampler = Sampler.from_pretrained(fakes.save_checkpoint(tmp_path, **changes))
    with pytest.raises(UserError, match="which guidance cannot"):
        sampler.generate(
            video="v.mp4", audio="a.wav", out="o.mp4", options=Options(landmark_guidance=2)
        )


def test_frames_shard_over_devices(model, inputs):
    params, nets = model
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), (AxisType.Auto,) * 2)
    batch_sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    replicated = NamedSharding(mesh, PartitionSpec())
    placed = {
        k: jax.device_put(v, batch_sharding if k in ("masked", "landmarks") else replicated)
        for k, v in inputs.items()
    }
    got = generate((jax.device_put(params, replicated), nets), placed)
    assert np.abs(got.astype(int) - generate(model, inputs)).max() <= 1


def test_content_completion(model):
    params, nets = model
    rng = np.random.default_rng(0)
    past, future = regions.context_ticks(nets)
    mel, pose, faces = (
        rng.uniform(size=shape).astype(np.float32)
        for shape in ((past + 10 + future, 16, 80), (10, 74, 2), (3, 131, 2))
    )
    complete = jax.jit(lambda p, *args: regions.complete_content(p, nets, *args))
    got = complete(params, mel, pose, References.single(faces))
    assert got.shape == (10, 57, 2) and got.dtype == jnp.float32


def test_expected_params_are_those_of_training():
    config = fakes.tiny_config()
    stage = stages.make_stage(config)
    frames, window = 1, config["data"]["window"]
    batch = {
        "mel": jnp.zeros((1, window + 16, 16, 80)),
        "pose": jnp.zeros((1, window, 74, 2)),
        "reference_landmarks": jnp.zeros((1, 3, 131, 2)),
        "reference_mel": jnp.zeros((1, 3, 16, 80)),
        "reference_heard": jnp.zeros((1, 3), bool),
        "frame_landmarks": jnp.zeros((1, frames, 131, 2)),
        "image_reference_landmarks": jnp.zeros((1, 1, 131, 2)),
    }
    want = jax.eval_shape(stage.init, jax.random.key(0), batch)
    got = regions.expected_params(networks.make_networks(config))
    assert jax.tree.map(lambda x: x.shape, got) == jax.tree.map(lambda x: x.shape, want)
