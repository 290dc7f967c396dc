"""Stage `diffusion`: the denoiser, with the true landmarks of each frame."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from talkjax.conventions import LIPS_SLICE
from talkjax.diffusion import schedules
from talkjax.networks import Networks
from talkjax.training import augmentation, image_batches, losses, picture_losses
from talkjax.training.rng import stream
from talkjax.training.stage import Batch, Metrics, Params, Stage

PREVIEW_STEPS = 10


def diffusion_stage(config: Mapping[str, Any], nets: Networks) -> Stage:
    """The denoiser with the true landmarks of each frame."""
    augmentation.check(config)

    def init(key: jax.Array, batch: Batch) -> Params:
        return init_denoiser(config, nets, key, batch)

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        changed = augmentation.augment(config["augmentation"], batch, stream(key, "augmentation"))
        return eval_fn(params, changed, key)

    def eval_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        points = batch["frame_landmarks"]
        # Predicted landmarks will be a little wrong; so are these.
        jitter = config["loss"]["landmark_jitter"]
        points = points + jitter * jax.random.normal(stream(key, "jitter"), points.shape)
        batch = image_batches.encode_images(nets, params, batch, points)
        return diffusion_terms(config, nets, params, batch, points, key)

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        return preview_images(nets, params, keep_all(batch), batch["frame_landmarks"], key)

    trained = ("denoiser", *picture_losses.trained_parts(config))
    return Stage(init, loss_fn, preview, trained, eval_fn)


def diffusion_terms(
    config: Mapping[str, Any],
    nets: Networks,
    params: Params,
    batch: Batch,
    landmarks: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Loss of the denoiser at random timesteps.

    Args:
      config: Configuration.
      nets: Networks of that configuration.
      params: Parameters with the subtree "denoiser".
      batch: Output of `image_batches.encode_images` for these landmarks.
      landmarks: (B, F, 131, 2) landmarks that the denoiser is shown.
      key: Random key of the step.

    Returns:
      The loss and metrics: "x0_l1" is the error of the estimate in one step, in latent units.
    """
    masked = image_batches.flat(batch["masked_latent"])
    x0 = nets.to_state(image_batches.flat(batch["target_latent"]), masked)
    t = jax.random.randint(stream(key, "timestep"), (x0.shape[0],), 0, nets.schedule.steps)
    last = jax.random.bernoulli(
        stream(key, "last timestep"), config["diffusion"]["last_timestep"], t.shape
    )
    t = jnp.where(last, nets.schedule.steps - 1, t)
    noise = jax.random.normal(stream(key, "noise"), x0.shape)
    z = schedules.add_noise(nets.schedule, x0, noise, t)
    conditions = image_batches.make_conditions(nets, params, batch, landmarks)
    output = image_batches.denoise(nets, params, conditions, z, t)
    target = schedules.training_target(nets.schedule, nets.prediction, x0, noise, t)
    gamma = config["loss"]["min_snr_gamma"]
    weights = schedules.min_snr_weights(nets.schedule, nets.prediction, t, gamma)
    mask = jnp.asarray(nets.mask)
    # Where the mouth is, not where a prediction has it: the prediction must not choose its weight.
    lips = image_batches.flat(batch["frame_landmarks"])[:, LIPS_SLICE]
    area = losses.mouth_area(lips, nets.region, x0.shape[1:3], config["loss"]["mouth_weight"])
    area = area * (mask + config["loss"]["margin_weight"] * (1 - mask))[None]
    loss = losses.mean(weights * losses.diffusion_loss(output, target, area), batch)
    estimate = schedules.predict_x0(nets.schedule, nets.prediction, output, z, t)
    wrong = nets.to_latents(estimate, masked) - nets.to_latents(x0, masked)
    errors = (jnp.abs(wrong).mean(-1) * mask[None]).sum((1, 2)) / mask.sum()
    metrics = {"diffusion": loss, "x0_l1": losses.mean(errors, batch)}
    if picture_losses.are_used(config):
        latents = nets.to_latents(estimate, masked)
        terms, more = picture_losses.picture_terms(config, nets, params, batch, latents, last)
        loss, metrics = loss + terms, metrics | more
    return loss, metrics


def init_denoiser(
    config: Mapping[str, Any], nets: Networks, key: jax.Array, batch: Batch
) -> Params:
    """Initialises the denoiser, the autoencoder and what else their losses need."""
    rows = batch["frame_landmarks"].shape[0]
    latent = jnp.zeros((rows, *nets.latent_shape))
    points = batch["image_reference_landmarks"]
    references = jnp.zeros((*points.shape[:2], *nets.latent_shape))
    yes = jnp.ones((rows,), bool)
    params = {
        "denoiser": nets.denoiser.init(
            stream(key, "denoiser"), latent, jnp.zeros((rows,)), latent, jnp.asarray(nets.mask),
            points[:, 0], references, points, yes, yes,
        )["params"],
        "autoencoder": nets.autoencoder.init(
            stream(key, "autoencoder"), jnp.zeros((1, *nets.image_size, 3))
        )["params"],
    }  # fmt: skip
    return params | picture_losses.init_parts(config, nets, stream(key, "picture losses"))


def keep_all(batch: Batch) -> Batch:
    """The batch with all of its conditions."""
    yes = jnp.ones_like(batch["keep_landmarks"])
    return {**batch, "keep_landmarks": yes, "keep_reference": yes}


def preview_images(
    nets: Networks, params: Params, batch: Batch, landmarks: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
    """Samples the first frame of every window: columns of (B, H, W, 3) images by name."""
    batch = image_batches.encode_images(nets, params, batch, landmarks)
    first = ("target_latent", "masked_latent", "filled")
    batch = {k: v[:, :1] if k in first else v for k, v in batch.items()}
    noise = jax.random.normal(stream(key, "noise"), (1, *nets.latent_shape))
    noise = jnp.repeat(noise, batch["target_latent"].shape[0], axis=0)
    made = image_batches.sample_latents(nets, params, batch, landmarks[:, :1], noise, PREVIEW_STEPS)
    decode = functools.partial(nets.decode, params["autoencoder"])
    guide = image_batches.flat(batch["filled"]) if "filled" in batch else None
    return {
        "truth": decode(image_batches.flat(batch["target_latent"]), guide),
        "generated": decode(made, guide),
        "reference": decode(batch["reference_latent"][:, 0]),
        "masked": decode(image_batches.flat(batch["masked_latent"])) if guide is None else guide,
    }
