"""Stage `joint`: both networks, optimised end to end (arXiv 2408.05416, section 3.3).

The landmark network learns from its own loss, and through the pictures that are made of its
landmarks. The paper's loss of the pictures is that of diffusion. Its gradient is mostly noise: that
of the target and the errors of the denoiser outweigh what the landmarks did wrong. The
other losses of `PATHS` compare what the landmarks can change with as little noise as possible.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from talkjax.conventions import LIPS_SLICE, NUM_POSE, to_float
from talkjax.diffusion import schedules
from talkjax.networks import Networks
from talkjax.training import image_batches, losses, picture_losses
from talkjax.training.diffusion_stage import (
    diffusion_terms,
    init_denoiser,
    keep_all,
    preview_images,
)
from talkjax.training.landmark_stage import complete, init_landmark, landmark_terms
from talkjax.training.rng import stream
from talkjax.training.stage import Batch, Metrics, Params, Stage


def joint_stage(config: Mapping[str, Any], nets: Networks) -> Stage:
    """Makes the stage; see `joint` in `talkjax.configuration.default_config`.

    Raises:
      ValueError: `joint.path` is unknown, or nothing is trained.
    """
    joint = config["joint"]
    if not (joint["train_denoiser"] or joint["train_landmark"]):
        raise ValueError("joint.train_denoiser and joint.train_landmark must not both be False")
    if joint["path"] not in PATHS:
        raise ValueError(f"unknown joint.path {joint['path']!r}; use one of {', '.join(PATHS)}")
    path = PATHS[joint["path"]]

    def init(key: jax.Array, batch: Batch) -> Params:
        return {**init_denoiser(config, nets, key, batch), **init_landmark(nets, key, batch)}

    def terms(
        params: Params, batch: Batch, key: jax.Array, dropout: jax.Array | None
    ) -> tuple[jax.Array, Metrics]:
        predicted = complete(nets, params, batch, dropout)
        anchor, metrics = landmark_terms(config, predicted, batch)
        loss = joint["landmark_weight"] * anchor
        fixed = jax.lax.stop_gradient(predicted)
        if joint["end_to_end"]:
            passed = fixed + joint["path_weight"] * (predicted - fixed)
            value, more = path(config, nets, params, batch, landmarks_at_frames(passed, batch), key)
            loss, metrics = loss + value, metrics | more
        # The paper's path trains the denoiser as well.
        if joint["train_denoiser"] and not (joint["end_to_end"] and path is _diffusion):
            points = landmarks_at_frames(fixed, batch)
            value, more = _diffusion(config, nets, params, batch, points, key)
            loss, metrics = loss + value, metrics | more
        return loss, metrics

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return terms(params, batch, key, key)

    def eval_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return terms(params, batch, key, None)

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        points = landmarks_at_frames(complete(nets, params, batch, None), batch)
        return preview_images(nets, params, keep_all(batch), points, key)

    trained: tuple[str, ...] = ()
    if joint["train_denoiser"]:
        trained += ("denoiser", *picture_losses.trained_parts(config))
    if joint["train_landmark"]:
        trained += ("landmark",)
    return Stage(init, loss_fn, preview, trained, eval_fn)


def landmarks_at_frames(predicted: jax.Array, batch: Batch) -> jax.Array:
    """Whole faces of the window's frames: their own pose and the predicted content.

    Args:
      predicted: (B, T, 57, 2) on the 25 Hz clock; interpolated at each frame's own time.
      batch: `frame_tick` (B, F), `frame_landmarks` (B, F, 131, 2).

    Returns:
      (B, F, 131, 2).
    """
    tick = batch["frame_tick"]
    low = jnp.clip(jnp.floor(tick), 0, predicted.shape[1] - 2).astype(jnp.int32)
    share = (tick - low.astype(jnp.float32))[..., None, None]
    index = low[..., None, None]
    before = jnp.take_along_axis(predicted, index, axis=1)
    after = jnp.take_along_axis(predicted, index + 1, axis=1)
    content = before * (1 - share) + after * share
    return jnp.concatenate([batch["frame_landmarks"][:, :, :NUM_POSE], content], 2)


# ---- losses of the pictures ---------------------------------------------------------------------
# Each is (config, nets, params, batch, landmarks (B, F, 131, 2), key) -> (loss, metrics).


def _diffusion(
    config: Mapping[str, Any],
    nets: Networks,
    params: Params,
    batch: Batch,
    landmarks: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """The paper's: the error of the denoiser at a random timestep."""
    batch = image_batches.encode_images(nets, params, batch, landmarks)
    return diffusion_terms(config, nets, params, batch, landmarks, key)


def _teacher(
    config: Mapping[str, Any],
    nets: Networks,
    params: Params,
    batch: Batch,
    landmarks: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Difference between the denoiser's estimates with these and with the true landmarks.

    Both are given the same noisy image, so that the loss is 0 when the landmarks are right, and
    neither texture nor the denoiser's own error is in it. The denoiser does not learn from it.
    """
    params = jax.lax.stop_gradient(params)

    def estimate(landmarks: jax.Array, state: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        made = image_batches.encode_images(nets, params, batch, landmarks)
        masked = image_batches.flat(made["masked_latent"])
        if state is None:
            x0 = nets.to_state(image_batches.flat(made["target_latent"]), masked)
            noise = jax.random.normal(stream(key, "noise"), x0.shape)
            state = schedules.add_noise(nets.schedule, x0, noise, t)
        conditions = image_batches.make_conditions(nets, params, made, landmarks)
        output = image_batches.denoise(nets, params, conditions, state, t)
        found = schedules.predict_x0(nets.schedule, nets.prediction, output, state, t)
        return nets.to_latents(found, masked), state

    batch = keep_all(batch)
    count = landmarks.shape[0] * landmarks.shape[1]
    t = jax.random.randint(stream(key, "timestep"), (count,), 0, nets.schedule.steps)
    wanted, state = jax.lax.stop_gradient(estimate(batch["frame_landmarks"], None))
    found, _ = estimate(landmarks, state)
    area = _mouth(config, nets, batch, found.shape[1:3]) * jnp.asarray(nets.mask)[None]
    loss = losses.mean(losses.diffusion_loss(found, wanted, area), batch)
    return loss, {"teacher": loss}


def _one_step(
    config: Mapping[str, Any],
    nets: Networks,
    params: Params,
    batch: Batch,
    landmarks: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """The error of pictures that are sampled in one step, all from the same noise."""
    del key
    batch = image_batches.encode_images(nets, params, keep_all(batch), landmarks)
    frames = landmarks.shape[0] * landmarks.shape[1]
    noise = jax.random.normal(jax.random.key(0), (1, *nets.latent_shape))
    noise = jnp.broadcast_to(noise, (frames, *nets.latent_shape))
    latents = image_batches.sample_latents(nets, params, batch, landmarks, noise, 1)
    guide = image_batches.flat(batch["filled"]) if "filled" in batch else None
    made = nets.decode(jax.lax.stop_gradient(params["autoencoder"]), latents, guide)
    loss, metrics = _picture_terms(config, nets, made, batch)
    if config["loss"]["lip_weight"]:
        truth = image_batches.flat(to_float(batch["target"]))
        regressor = jax.lax.stop_gradient(params["lip_regressor"])
        wrong = picture_losses.lip_differences(regressor, nets, made, truth)
        wrong = losses.mean(wrong, batch)
        loss, metrics = loss + config["loss"]["lip_weight"] * wrong, {**metrics, "lips": wrong}
    return loss, metrics


def _warp(
    config: Mapping[str, Any],
    nets: Networks,
    params: Params,
    batch: Batch,
    landmarks: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """The error of the references warped to the landmarks, which takes no network at all."""
    del params, key
    frames = landmarks.shape[1]
    images, own = (
        image_batches.per_frame(x, frames)
        for x in (to_float(batch["reference"]), batch["image_reference_landmarks"])
    )
    target = image_batches.flat(to_float(batch["target"]))
    made = nets.warp_into_mask(target, image_batches.flat(landmarks), images, own)
    return _picture_terms(config, nets, made, batch)


def _picture_terms(
    config: Mapping[str, Any], nets: Networks, made: jax.Array, batch: Batch
) -> tuple[jax.Array, Metrics]:
    """L1 between pictures (B * F, H, W, 3), and between the changes from frame to frame."""
    rows, columns = nets.hidden
    truth = image_batches.flat(to_float(batch["target"]))
    area = _mouth(config, nets, batch, truth.shape[1:3])[:, rows, columns, None]
    area = area / area.mean((1, 2), keepdims=True)
    error = (made - truth)[:, rows, columns]
    still = jnp.abs(error * area).mean((1, 2, 3))
    per_window = (error * area).reshape(len(batch["target"]), -1, *error.shape[1:])
    moving = jnp.abs(jnp.diff(per_window, axis=1)).mean((1, 2, 3, 4))
    value = losses.mean(still, batch)
    change = losses.mean(moving, batch)
    total = value + config["joint"]["change_weight"] * change
    return total, {"picture_l1": value, "picture_change_l1": change}


def _mouth(
    config: Mapping[str, Any], nets: Networks, batch: Batch, shape: tuple[int, int]
) -> jax.Array:
    """Weights of places, (B * F, h, w): a prediction must not choose its own."""
    lips = image_batches.flat(batch["frame_landmarks"])[:, LIPS_SLICE]
    return losses.mouth_area(lips, nets.region, shape, config["loss"]["mouth_weight"])


Path = Callable[
    [Mapping[str, Any], Networks, Params, Batch, jax.Array, jax.Array], tuple[jax.Array, Metrics]
]
PATHS: dict[str, Path] = {
    "diffusion": _diffusion, "teacher": _teacher, "one_step": _one_step, "warp": _warp,
}  # fmt: skip
NEEDS_PIXELS = ("one_step", "warp")
