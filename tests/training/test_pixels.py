"""Stages that learn from pixels: the warp in the mask, losses of pictures, augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.training import image_batches, picture_losses, stages
from tests.parameters import random_for
from tests.training.small_stages import warped


def test_warped_references_fill_in_the_mask_unless_they_are_dropped():
    config, data = warped()
    stage = stages.make_stage(config)
    params, nets = random_for(stage.init, data), stages.networks.make_networks(config)
    data["keep_reference"] = np.array([True, False])
    made = jax.jit(lambda d: image_batches.encode_images(nets, params, d, d["frame_landmarks"]))(
        data
    )
    target = data["target"].astype(np.float32) / 127.5 - 1
    hidden = np.zeros((48, 64), bool)
    hidden[nets.hidden] = True
    filled = np.asarray(made["filled"])
    np.testing.assert_allclose(filled[:, :, ~hidden], target[:, :, ~hidden], atol=1e-6)
    np.testing.assert_array_equal(filled[1][:, hidden], 0)
    assert filled[0][:, hidden].std() > 0.1
    assert np.abs(filled[0][:, hidden] - target[0][:, hidden]).mean() > 0.1


def test_a_residual_denoiser_begins_at_the_warp():
    config, data = warped()
    config.diffusion.update({"schedule": "cosine", "prediction": "v"})
    config.diffusion.update({"residual_scale": 0.5, "last_timestep": 1.0})
    config.loss.landmark_jitter = 0.0
    stage = stages.make_stage(config)
    nets = stages.networks.make_networks(config)
    params = random_for(stage.init, data)
    params["denoiser"] = stage.init(jax.random.key(0), data)["denoiser"]  # its output is 0
    noise = jax.random.normal(jax.random.key(1), (4, *nets.latent_shape))

    @jax.jit
    def sample(batch):
        made = image_batches.encode_images(nets, params, batch, batch["frame_landmarks"])
        points = batch["frame_landmarks"]
        return made, image_batches.sample_latents(nets, params, made, points, noise, 1)

    made, got = sample(data)
    warp = image_batches.flat(made["masked_latent"])
    np.testing.assert_allclose(got, warp, atol=1e-3)
    truth = image_batches.flat(made["target_latent"])
    state = nets.to_state(truth, warp)
    np.testing.assert_allclose(state, 2 * (truth - warp), atol=1e-4)
    np.testing.assert_allclose(nets.to_latents(state, warp), truth, atol=1e-4)
    # At the last timestep nothing but noise is left, so that every estimate is the warp, too.
    _, metrics = jax.jit(stage.loss_fn)(params, data, jax.random.key(0))
    want = (jnp.abs(truth - warp).mean(-1) * nets.mask[None]).sum((1, 2)) / nets.mask.sum()
    np.testing.assert_allclose(metrics["x0_l1"], want.mean(), rtol=1e-3)
    config.denoiser.fill = "grey"
    with pytest.raises(ValueError, match=r"requires denoiser\.fill='warp'"):
        stages.make_stage(config)


def test_losses_of_pictures_train_the_denoiser_and_its_discriminator():
    config, data = warped()
    config.diffusion.last_timestep = 1.0
    plain = stages.make_stage(config.copy_and_resolve_references())
    assert plain.trainable == ("denoiser",)
    config.loss.update({"picture_weight": 1.0, "adversarial_weight": 0.5})
    stage = stages.make_stage(config)
    assert stage.trainable == ("denoiser", "discriminator")
    params = random_for(stage.init, data)
    key, data = jax.random.key(0), jax.tree.map(jnp.asarray, data)
    grad = jax.jit(jax.value_and_grad(lambda p: stage.loss_fn(p, data, key), has_aux=True))
    (loss, metrics), gradient = grad(params)
    without, _ = jax.jit(plain.loss_fn)(params, data, key)
    terms = metrics["adversarial"] + metrics["discriminator"]
    np.testing.assert_allclose(loss, without + metrics["picture"] + 0.5 * terms, rtol=1e-4)
    # The discriminator learns from its own loss alone: it would otherwise help the denoiser.
    config.loss.update({"picture_weight": 0.0, "adversarial_weight": 1.0})
    stage = stages.make_stage(config)

    def own(judge):
        return stage.loss_fn({**params, "discriminator": judge}, data, key)[1]["discriminator"]

    want = jax.jit(jax.grad(own))(params["discriminator"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, 0.5 * b, atol=1e-5),
        gradient["discriminator"],
        want,
    )


def test_lips_that_are_read_off_pictures_train_the_denoiser_and_the_regressor(monkeypatch):
    monkeypatch.setattr(picture_losses, "_LARGEST_ERROR", 0.5)
    config, data = warped()
    config.diffusion.last_timestep = 1.0
    plain = stages.make_stage(config.copy_and_resolve_references())
    config.loss.lip_weight = 3.0
    stage = stages.make_stage(config)
    assert stage.trainable == ("denoiser", "lip_regressor")
    params = random_for(stage.init, data)
    key, data = jax.random.key(0), jax.tree.map(jnp.asarray, data)
    grad = jax.jit(jax.value_and_grad(lambda p: stage.loss_fn(p, data, key), has_aux=True))
    (loss, metrics), gradient = grad(params)
    without, _ = jax.jit(plain.loss_fn)(params, data, key)
    trust = 1 - metrics["lip_regressor"] / 0.5
    assert 0.2 < trust < 0.9
    untaught = loss - 3 * trust * metrics["lips"]
    assert metrics["lips"] > 0 and untaught > without

    # The regressor learns on true pictures alone: it would otherwise learn generated ones.
    config.loss.lip_weight = 1e-9
    alone = stages.make_stage(config)
    _, own = jax.jit(jax.value_and_grad(lambda p: alone.loss_fn(p, data, key), has_aux=True))(
        params
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        gradient["lip_regressor"],
        own["lip_regressor"],
    )
    config.loss.lip_weight = 3.0

    # The lips' part alone reaches the denoiser.
    def lips(denoiser):
        return stage.loss_fn({**params, "denoiser": denoiser}, data, key)[1]["lips"]

    slope = jax.jit(jax.grad(lips))(params["denoiser"])
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(slope)) > 0
    # One that is wrong by more than what counts does not teach.
    monkeypatch.setattr(picture_losses, "_LARGEST_ERROR", 0.01)
    got, _ = jax.jit(stages.make_stage(config).loss_fn)(params, data, key)
    np.testing.assert_allclose(got, untaught, rtol=1e-4)


def test_pictures_count_only_at_the_last_timestep():
    config, data = warped()
    config.loss.picture_weight = 1.0
    config.diffusion.last_timestep = 0.0
    stage = stages.make_stage(config)
    _, metrics = jax.jit(stage.loss_fn)(random_for(stage.init, data), data, jax.random.key(0))
    assert metrics["picture"] == 0


@pytest.mark.parametrize("name", ["diffusion", "autoencoder"])
def test_augmentation_is_for_training_alone(name):
    config, data = warped()
    config.stage = name
    if name == "autoencoder":
        data |= {k: data[k][:, 0] for k in ("target", "frame_landmarks")}
    plain = stages.make_stage(config.copy_and_resolve_references())
    config.augmentation.update({"mirror": 1.0, "colour": 1.0})
    stage = stages.make_stage(config)
    params = random_for(stage.init, data)
    losses = [
        float(jax.jit(f)(params, data, jax.random.key(0))[0])
        for f in (plain.loss_fn, stage.eval_fn, stage.loss_fn)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_cached_latents_with_pixels_are_filled_in_too():
    config, data = warped()
    stage = stages.make_stage(config)
    params, nets = random_for(stage.init, data), stages.networks.make_networks(config)
    encode = jax.jit(lambda x: nets.encode(params["autoencoder"], x))
    cached = data | {f"{k}_latent": encode(data[k]) for k in ("target", "reference")}
    first, _ = jax.jit(stage.loss_fn)(params, data, jax.random.key(0))
    second, _ = jax.jit(stage.loss_fn)(params, cached, jax.random.key(0))
    np.testing.assert_allclose(first, second, rtol=1e-4)


def test_a_guided_autoencoder_trains_on_what_fills_in_the_mask():
    config, data = warped()
    config.stage = "autoencoder"
    config.autoencoder.update({"kind": "light", "size": "tiny", "f": 8, "guided": True})
    stage = stages.make_stage(config)
    data = {
        **data,
        "target": data["target"][:, 0],
        "frame_landmarks": data["frame_landmarks"][:, 0],
    }
    params = random_for(stage.init, data)
    loss = jax.jit(stage.loss_fn)
    value, metrics = loss(params, data, jax.random.key(0))
    assert np.isfinite(value) and np.isfinite(metrics["psnr"])
    other = {**data, "reference": 255 - data["reference"]}
    assert abs(loss(params, other, jax.random.key(0))[0] - value) > 1e-4
    pictures = jax.jit(stage.preview)(params, data, jax.random.key(0))
    assert pictures["guided"].shape == pictures["guide"].shape == pictures["truth"].shape
