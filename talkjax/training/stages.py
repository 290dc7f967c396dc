"""The training stages (arXiv 2408.05416, section 3.3) as pure functions of arrays.

`autoencoder`; `landmark`; `diffusion` (true landmarks, condition dropout); `joint` (predicted
landmarks: the diffusion loss flows into the landmark network, its own loss stays as an anchor).
The sync expert, stage `sync`, is in `talkjax.training.sync_stage`. `make_stage(config)` returns a
`Stage`, which is all that the training loop knows.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from talkjax import networks
from talkjax.conventions import (
    LEFT_EYE_SLICE,
    LIPS_SLICE,
    NUM_POSE,
    RIGHT_EYE_SLICE,
    Box,
    masked_slices,
    to_float,
)
from talkjax.diffusion import samplers, schedules
from talkjax.models.autoencoder import kl_divergence, sample_latent
from talkjax.models.landmark_completion import References
from talkjax.models.unet import Conditions
from talkjax.networks import Networks
from talkjax.training import losses, sync_stage
from talkjax.training.rng import stream
from talkjax.training.stage import Batch, Metrics, Params, Stage

PREVIEW_STEPS = 10


def make_stage(config: Mapping[str, Any]) -> Stage:
    """The stage that `config.stage` names.

    Raises:
      ValueError: unknown stage.
    """
    if config["stage"] == "sync":  # none of the networks below
        return sync_stage.make_sync_stage(config)
    nets = networks.make_networks(config)
    makers: dict[str, Callable[[Mapping[str, Any], Networks], Stage]] = {
        "autoencoder": autoencoder_stage,
        "landmark": landmark_stage,
        "diffusion": diffusion_stage,
        "joint": joint_stage,
    }
    if config["stage"] not in makers:
        raise ValueError(f"no stage {config['stage']!r}; use one of {', '.join(makers)}, sync")
    return makers[config["stage"]](config, nets)


# ---- autoencoder --------------------------------------------------------------------------------


def autoencoder_stage(config: Mapping[str, Any], nets: Networks) -> Stage:
    """L1 on pixels and edges; where latents are distributions, a KL term and a sampled latent."""
    kl_weight, mouth_weight = config["autoencoder"]["kl_weight"], config["loss"]["mouth_weight"]
    model = nets.autoencoder

    def init(key: jax.Array, batch: Batch) -> Params:
        return {"autoencoder": model.init(key, to_float(batch["target"]))["params"]}

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        images = to_float(batch["target"])
        variables = {"params": params["autoencoder"]}
        encoded = model.apply(variables, images, method="encode")
        kl = jnp.zeros(())
        if isinstance(encoded, tuple):
            mean, logvar = encoded
            kl = losses.mean(kl_divergence(mean, logvar), batch) / mean[0].size
            encoded = sample_latent(stream(key, "posterior"), mean, logvar)
        decoded = model.apply(variables, encoded, method="decode")
        area = losses.mouth_area(
            batch["frame_landmarks"][:, LIPS_SLICE], nets.region, images.shape[1:3], mouth_weight
        )
        mse = losses.mean(jnp.square(jnp.clip(decoded, -1, 1) - images), batch)
        metrics = {"psnr": 10 * jnp.log10(4.0 / (mse + 1e-12)), "kl": kl}
        loss = losses.mean(losses.reconstruction_loss(images, decoded, area), batch)
        return loss + kl_weight * kl, metrics

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        del key
        images = to_float(batch["target"])
        return {
            "truth": images,
            "round trip": model.apply({"params": params["autoencoder"]}, images),
        }

    return Stage(init, loss_fn, preview, ("autoencoder",))


# ---- landmarks ----------------------------------------------------------------------------------


def _references(batch: Batch) -> References:
    return References(*(batch[f"reference_{name}"] for name in References._fields))


def _landmark_init(nets: Networks, key: jax.Array, batch: Batch) -> Params:
    inputs = batch["mel"], batch["pose"], _references(batch)
    return nets.init_landmark(stream(key, "landmark"), *inputs)


def _complete(nets: Networks, params: Params, batch: Batch, key: jax.Array | None) -> jax.Array:
    dropout = None if key is None else stream(key, "dropout")
    return nets.complete(params, batch["mel"], batch["pose"], _references(batch), dropout)


def _landmark_terms(
    config: Mapping[str, Any], predicted: jax.Array, batch: Batch
) -> tuple[jax.Array, Metrics]:
    position, velocity, spread = (
        losses.mean(error, batch) for error in losses.landmark_loss(predicted, batch["content"])
    )
    left = batch["pose"][:, :, LEFT_EYE_SLICE].mean(2)
    right = batch["pose"][:, :, RIGHT_EYE_SLICE].mean(2)
    unit = losses.mean(jnp.linalg.norm(left - right, axis=-1), batch)
    weights = config["loss"]
    total = position + weights["velocity_weight"] * velocity + weights["spread_weight"] * spread
    return total / unit, {"landmark_l1": position / unit}


def landmark_stage(config: Mapping[str, Any], nets: Networks) -> Stage:
    """Landmark completion alone."""

    def init(key: jax.Array, batch: Batch) -> Params:
        return _landmark_init(nets, key, batch)

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return _landmark_terms(config, _complete(nets, params, batch, key), batch)

    def eval_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        del key  # no dropout
        return _landmark_terms(config, _complete(nets, params, batch, None), batch)

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        del key
        predicted = _complete(nets, params, batch, None)
        middle = predicted.shape[1] // 2
        return {
            "truth": draw_points(batch["content"][:, middle]),
            "predicted": draw_points(predicted[:, middle]),
        }

    return Stage(init, loss_fn, preview, ("landmark",), eval_fn)


# ---- diffusion and joint ------------------------------------------------------------------------


def _images(nets: Networks, params: Params, batch: Batch, mask: tuple[slice, slice]) -> Batch:
    """Target, masked target and reference as latents, encoded here unless the batch has them."""
    if "target_latent" in batch:
        return batch
    target = to_float(batch["target"])
    hidden = target.at[..., mask[0], mask[1], :].set(0.0)
    encoder = params["autoencoder"]
    return {
        **batch,
        "target_latent": jax.lax.stop_gradient(nets.encode(encoder, target)),
        "masked_latent": jax.lax.stop_gradient(nets.encode(encoder, hidden)),
        "reference_latent": jax.lax.stop_gradient(nets.encode(encoder, batch["reference"])),
    }


def _per_frame(values: jax.Array, frames: int) -> jax.Array:
    """(B, ...) -> (B * F, ...), each row F times in a row."""
    return jnp.repeat(values, frames, axis=0)


def _flat(values: jax.Array) -> jax.Array:
    """(B, F, ...) -> (B * F, ...)."""
    return values.reshape(-1, *values.shape[2:])


def _conditions(nets: Networks, params: Params, batch: Batch, landmarks: jax.Array) -> Conditions:
    """The denoiser's conditions for frames with landmarks (B, F, 131, 2), flattened to B * F."""
    frames, own = landmarks.shape[1], batch["image_reference_landmarks"]
    keep_landmarks = _per_frame(batch["keep_landmarks"], frames)
    denoiser = functools.partial(nets.denoiser.apply, {"params": params["denoiser"]})
    motion = denoiser(
        _flat(landmarks),
        _per_frame(own, frames),
        keep_landmarks,
        nets.latent_shape[:2],
        method="motion_context",
    )
    reference = denoiser(batch["reference_latent"], own, method="reference_context")
    return Conditions(
        masked=_flat(batch["masked_latent"]),
        mask=jnp.asarray(nets.mask),
        motion=motion,
        reference=jax.tree.map(lambda x: _per_frame(x, frames), reference),
        keep_landmarks=keep_landmarks,
        keep_reference=_per_frame(batch["keep_reference"], frames),
    )


def _denoise(
    nets: Networks, params: Params, conditions: Conditions, z: jax.Array, t: jax.Array
) -> jax.Array:
    variables = {"params": params["denoiser"]}
    return nets.denoiser.apply(variables, z, t, conditions, method="denoise")


def _diffusion_terms(
    config: Mapping[str, Any],
    nets: Networks,
    params: Params,
    batch: Batch,
    landmarks: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    x0 = _flat(batch["target_latent"])
    t = jax.random.randint(stream(key, "timestep"), (x0.shape[0],), 0, nets.schedule.steps)
    noise = jax.random.normal(stream(key, "noise"), x0.shape)
    z = schedules.add_noise(nets.schedule, x0, noise, t)
    conditions = _conditions(nets, params, batch, landmarks)
    output = _denoise(nets, params, conditions, z, t)
    target = schedules.training_target(nets.schedule, nets.prediction, x0, noise, t)
    gamma = config["loss"]["min_snr_gamma"]
    weights = schedules.min_snr_weights(nets.schedule, nets.prediction, t, gamma)
    mask = jnp.asarray(nets.mask)
    # Where the mouth is, not where a prediction has it: the prediction must not choose its weight.
    lips = _flat(batch["frame_landmarks"])[:, LIPS_SLICE]
    area = losses.mouth_area(lips, nets.region, x0.shape[1:3], config["loss"]["mouth_weight"])
    area = area * (mask + config["loss"]["margin_weight"] * (1 - mask))[None]
    loss = losses.mean(weights * losses.diffusion_loss(output, target, area), batch)
    estimate = schedules.predict_x0(nets.schedule, nets.prediction, output, z, t)
    errors = (jnp.abs(estimate - x0).mean(-1) * mask[None]).sum((1, 2)) / mask.sum()
    return loss, {"diffusion": loss, "x0_l1": losses.mean(errors, batch)}


def _denoiser_init(nets: Networks, key: jax.Array, batch: Batch) -> Params:
    rows = batch["frame_landmarks"].shape[0]
    latent = jnp.zeros((rows, *nets.latent_shape))
    points = batch["image_reference_landmarks"]
    yes = jnp.ones((rows,), bool)
    params = {
        "denoiser": nets.denoiser.init(
            stream(key, "denoiser"), latent, jnp.zeros((rows,)), latent, jnp.asarray(nets.mask),
            points, latent, points, yes, yes,
        )["params"],
        "autoencoder": nets.autoencoder.init(
            stream(key, "autoencoder"), jnp.zeros((1, *nets.image_size, 3))
        )["params"],
    }  # fmt: skip
    return params


def sample_latents(
    nets: Networks, params: Params, batch: Batch, landmarks: jax.Array, noise: jax.Array, steps: int
) -> jax.Array:
    """DDIM from `noise` (B * F, h, w, c) under the batch's conditions: the same shape."""
    conditions = _conditions(nets, params, batch, landmarks)

    def denoise(z: jax.Array, t: jax.Array) -> jax.Array:
        times = jnp.full((z.shape[0],), t, jnp.int32)
        return _denoise(nets, params, conditions, z, times)

    return samplers.ddim(nets.schedule, denoise, noise, steps=steps, prediction=nets.prediction)


def _image_preview(
    nets: Networks, params: Params, batch: Batch, landmarks: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
    yes = jnp.ones_like(batch["keep_landmarks"])
    batch = {**batch, "keep_landmarks": yes, "keep_reference": yes}
    batch = {k: v[:, :1] if k.endswith(("target_latent", "masked_latent")) else v
             for k, v in batch.items()}  # fmt: skip
    noise = jax.random.normal(stream(key, "noise"), (1, *nets.latent_shape))
    noise = jnp.repeat(noise, batch["target_latent"].shape[0], axis=0)
    made = sample_latents(nets, params, batch, landmarks[:, :1], noise, PREVIEW_STEPS)
    decoder = params["autoencoder"]
    return {
        "truth": nets.decode(decoder, _flat(batch["target_latent"])),
        "generated": nets.decode(decoder, made),
        "reference": nets.decode(decoder, batch["reference_latent"]),
        "masked": nets.decode(decoder, _flat(batch["masked_latent"])),
    }


def diffusion_stage(config: Mapping[str, Any], nets: Networks) -> Stage:
    """The denoiser with the true landmarks of each frame."""
    mask = masked_slices(nets.region, Box(*config["mask"]), nets.crop_size)

    def init(key: jax.Array, batch: Batch) -> Params:
        return _denoiser_init(nets, key, batch)

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        batch = _images(nets, params, batch, mask)
        points = batch["frame_landmarks"]
        # Predicted landmarks will be a little wrong; so are these.
        jitter = config["loss"]["landmark_jitter"]
        points = points + jitter * jax.random.normal(stream(key, "jitter"), points.shape)
        return _diffusion_terms(config, nets, params, batch, points, key)

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        batch = _images(nets, params, batch, mask)
        return _image_preview(nets, params, batch, batch["frame_landmarks"], key)

    return Stage(init, loss_fn, preview, ("denoiser",))


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


def joint_stage(config: Mapping[str, Any], nets: Networks) -> Stage:
    """Both networks, end to end; `config.joint.end_to_end=False` stops the gradient between."""
    mask = masked_slices(nets.region, Box(*config["mask"]), nets.crop_size)
    joint = config["joint"]

    def init(key: jax.Array, batch: Batch) -> Params:
        return {**_denoiser_init(nets, key, batch), **_landmark_init(nets, key, batch)}

    def terms(
        params: Params, batch: Batch, key: jax.Array, dropout: jax.Array | None
    ) -> tuple[jax.Array, Metrics]:
        batch = _images(nets, params, batch, mask)
        predicted = _complete(nets, params, batch, dropout)
        anchor, metrics = _landmark_terms(config, predicted, batch)
        passed = predicted if joint["end_to_end"] else jax.lax.stop_gradient(predicted)
        points = landmarks_at_frames(passed, batch)
        loss, more = _diffusion_terms(config, nets, params, batch, points, key)
        return loss + joint["landmark_weight"] * anchor, {**metrics, **more}

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return terms(params, batch, key, key)

    def eval_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return terms(params, batch, key, None)

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        batch = _images(nets, params, batch, mask)
        points = landmarks_at_frames(_complete(nets, params, batch, None), batch)
        return _image_preview(nets, params, batch, points, key)

    return Stage(init, loss_fn, preview, ("denoiser", "landmark"), eval_fn)


def draw_points(points: jax.Array, size: int = 128) -> jax.Array:
    """Dark dots on white: (N, K, 2) crop coordinates to (N, size, size, 3) in [-1, 1]."""
    axis = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    # Separable Gaussians, (N, K, size) each
    x = jnp.exp(-0.5 * jnp.square((points[..., 0, None] - axis[None, None]) * size))
    y = jnp.exp(-0.5 * jnp.square((points[..., 1, None] - axis[None, None]) * size))
    ink = jnp.minimum(jnp.einsum("nky,nkx->nyx", y, x), 1.0)
    return jnp.repeat((1.0 - 2.0 * ink)[..., None], 3, axis=-1)
