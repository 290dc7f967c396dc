"""Stages that learn from pixels: the warp in the mask, losses of pictures, augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.training import diffusion_stage, image_batches, picture_losses, stages
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
    output = params["denoiser"]["conv_out"]  # zero where training starts, not in `random_for`
    params["denoiser"]["conv_out"] = jax.tree.map(np.zeros_like, output)
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


def seen(config):
    """Networks, random parameters and encoded images of the losses of pictures."""
    config.diffusion.last_timestep = 1.0
    _, data = warped()
    stage, nets = stages.make_stage(config), stages.networks.make_networks(config)
    params = {k: v for k, v in random_for(stage.init, data).items() if k != "denoiser"}
    data["filled"] = data["target"].astype(np.float32)[::-1] / 127.5 - 1
    data["target_latent"] = np.random.default_rng(1).normal(size=(2, 2, 6, 8, 4)).astype("f4")
    return nets, params, data


def terms_of(config, nets, part=None, last=True):
    """A compiled function of parameters and data: ((loss, metrics), gradients).

    They are those of `part` of the metrics, or of the loss, in the parameters, the latents and what
    fills in the mask. Data that the function closed over would be constants, and be computed with
    while it compiles.
    """

    def loss(params, latents, filled, data):
        known, data = jnp.full(4, last), {**data, "filled": filled}
        total, metrics = picture_losses.picture_terms(config, nets, params, data, latents, known)
        return (metrics[part] if part else total), metrics

    grad = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    latents = jax.random.normal(jax.random.key(0), (4, 6, 8, 4))
    return lambda params, data: grad(params, latents, data["filled"], data)


def largest(tree):
    return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))


def test_a_discriminator_trains_what_made_the_pictures_and_itself():
    config, _ = warped()
    assert stages.make_stage(config.copy_and_resolve_references()).trainable == ("denoiser",)
    config.loss.update({"picture_weight": 1.0, "adversarial_weight": 0.5})
    assert stages.make_stage(config).trainable == ("denoiser", "discriminator")
    nets, params, data = seen(config)
    run = terms_of(config, nets)
    (loss, metrics), (own, latents, _) = run(params, data)
    # It sees what the pictures were made from.
    (_, other), _ = run(params, {**data, "filled": -data["filled"]})
    assert abs(other["adversarial"] - metrics["adversarial"]) > 1e-4
    terms = metrics["adversarial"] + metrics["discriminator"]
    np.testing.assert_allclose(loss, metrics["picture"] + 0.5 * terms, rtol=1e-5)
    # It learns from its own loss alone: it would otherwise help what it judges.
    judged = terms_of(config, nets, "discriminator")(params, data)[1]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, 0.5 * b, atol=1e-5),
        own["discriminator"],
        judged[0]["discriminator"],
    )
    assert largest(judged[1:]) == 0  # whoever made the pictures, and in joint the landmarks
    assert largest(terms_of(config, nets, "adversarial")(params, data)[1][1]) > 1e-5
    assert largest(latents[1::2]) == 0 < largest(latents[::2])  # the first frame of each window


def test_lips_that_are_read_off_pictures_train_what_made_them_and_the_regressor(monkeypatch):
    monkeypatch.setattr(picture_losses, "_LARGEST_ERROR", 0.5)
    config, _ = warped()
    config.loss.lip_weight = 3.0
    assert stages.make_stage(config).trainable == ("denoiser", "lip_regressor")
    nets, params, data = seen(config)
    (loss, metrics), (own, latents, _) = terms_of(config, nets)(params, data)
    config.loss.lip_weight = 1e-9
    (untaught, _), (alone, *_) = terms_of(config, nets)(params, data)
    trust = 1 - metrics["lip_regressor"] / 0.5
    assert 0.2 < trust < 0.9 and metrics["lips"] > 0
    np.testing.assert_allclose(loss, untaught + 3 * trust * metrics["lips"], rtol=1e-4)
    assert largest(latents[::2]) > 1e-6
    # The regressor learns on true pictures alone: it would otherwise learn generated ones.
    assert largest(own["lip_regressor"]) > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        own["lip_regressor"],
        alone["lip_regressor"],
    )


def test_a_regressor_that_is_wrong_by_more_than_what_counts_does_not_teach():
    errors = jnp.array([0.0, 0.01, 0.02, 0.3])
    np.testing.assert_allclose(picture_losses.trust_in(errors), [1, 0.5, 0, 0], atol=1e-6)


def test_pictures_count_only_at_the_last_timestep():
    config, _ = warped()
    config.loss.picture_weight = 1.0
    nets, params, data = seen(config)
    (loss, _), (_, latents, _) = terms_of(config, nets, last=False)(params, data)
    assert loss == 0 == largest(latents)


def test_the_losses_of_pictures_are_part_of_the_stage():
    config, data = warped()
    config.diffusion.last_timestep = 1.0
    config.loss.update({"picture_weight": 2.0, "lip_weight": 1.0, "adversarial_weight": 0.5})
    stage = stages.make_stage(config)
    params = random_for(stage.init, data)
    loss, metrics = jax.jit(stage.loss_fn)(params, data, jax.random.key(0))
    assert {"picture", "lips", "lip_regressor", "adversarial", "discriminator"} <= metrics.keys()
    assert loss > metrics["diffusion"] + 2 * metrics["picture"] > metrics["diffusion"]


def test_augmentation_of_an_autoencoder_is_for_training_alone():
    config, data = warped()
    config.stage = "autoencoder"
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


def test_augmentation_of_a_denoiser_is_for_training_alone(monkeypatch):
    config, data = warped()
    config.augmentation.update({"mirror": 1.0, "colour": 1.0})
    config.loss.landmark_jitter = 0.0
    stage = stages.make_stage(config)
    params = random_for(stage.init, data)
    monkeypatch.setattr(
        diffusion_stage, "diffusion_terms", lambda *arguments: (arguments[3], arguments[4])
    )
    compared = ("target", "reference", "frame_landmarks", "image_reference_landmarks")
    shown, points = jax.jit(stage.eval_fn)(params, data, jax.random.key(0))
    for name in compared:
        np.testing.assert_array_equal(shown[name], data[name])
    np.testing.assert_array_equal(points, data["frame_landmarks"])
    changed, points = jax.jit(stage.loss_fn)(params, data, jax.random.key(0))
    for name in compared:
        assert np.abs(np.asarray(changed[name], np.float32) - data[name]).max() > 0.01
    np.testing.assert_array_equal(points, changed["frame_landmarks"])


def test_cached_latents_with_pixels_are_filled_in_too():
    config, data = warped()
    stage = stages.make_stage(config)
    params, nets = random_for(stage.init, data), stages.networks.make_networks(config)
    encode = jax.jit(lambda params, x: nets.encode(params["autoencoder"], x))
    cached = data | {f"{k}_latent": encode(params, data[k]) for k in ("target", "reference")}
    whole = jax.jit(lambda p, d: image_batches.encode_images(nets, p, d, d["frame_landmarks"]))
    first, second = whole(params, data), whole(params, cached)
    assert first.keys() == second.keys() > {"filled", "masked_latent"}
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=1e-4)


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
