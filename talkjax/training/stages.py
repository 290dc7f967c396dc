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
    to_float,
)
from talkjax.diffusion import schedules
from talkjax.models.autoencoder import kl_divergence, sample_latent
from talkjax.models.landmark_completion import References
from talkjax.networks import Networks
from talkjax.training import image_batches, losses, sync_stage
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
    model, options = nets.autoencoder, config["autoencoder"]

    def init(key: jax.Array, batch: Batch) -> Params:
        return {"autoencoder": model.init(key, to_float(batch["target"]))["params"]}

    def guide(batch: Batch) -> jax.Array:
        return nets.fill_in(
            to_float(batch["target"]),
            batch["frame_landmarks"],
            to_float(batch["reference"]),
            batch["image_reference_landmarks"],
        )

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        images = to_float(batch["target"])
        variables = {"params": params["autoencoder"]}
        encoded = model.apply(variables, images, method="encode")
        kl = jnp.zeros(())
        if isinstance(encoded, tuple):
            mean, logvar = encoded
            kl = losses.mean(kl_divergence(mean, logvar), batch) / mean[0].size
            encoded = sample_latent(stream(key, "posterior"), mean, logvar)
        inputs = [encoded]
        if options["guided"]:
            shown = jax.random.uniform(stream(key, "guide"), (len(images), 1, 1, 1))
            # Without guides in some of the samples, latents would learn nothing beside the guide.
            inputs.append(jnp.where(shown < options["drop_guide"], 0.0, guide(batch)))
            amount = jax.random.uniform(stream(key, "amount"), shown.shape)
            amount *= options["latent_noise"] * jax.lax.stop_gradient(
                encoded.std((0, 1, 2), keepdims=True)
            )
            inputs[0] += amount * jax.random.normal(stream(key, "noise"), encoded.shape)
        decoded = model.apply(variables, *inputs, method="decode")
        area = losses.mouth_area(
            batch["frame_landmarks"][:, LIPS_SLICE], nets.region, images.shape[1:3], mouth_weight
        )
        mse = losses.mean(jnp.square(jnp.clip(decoded, -1, 1) - images), batch)
        metrics = {"psnr": 10 * jnp.log10(4.0 / (mse + 1e-12)), "kl": kl}
        edges = config["loss"]["edge_weight"]
        loss = losses.mean(losses.reconstruction_loss(images, decoded, area, edges), batch)
        return loss + kl_weight * kl, metrics

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        del key
        images, variables = to_float(batch["target"]), {"params": params["autoencoder"]}
        pictures = {"truth": images, "round trip": model.apply(variables, images)}
        if options["guided"]:
            encoded = model.apply(variables, images, method="encode")
            mean = encoded[0] if isinstance(encoded, tuple) else encoded
            shown = guide(batch)
            guided = model.apply(variables, mean, shown, method="decode")
            pictures |= {"guided": guided, "guide": shown}
        return pictures

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


def _diffusion_terms(
    config: Mapping[str, Any],
    nets: Networks,
    params: Params,
    batch: Batch,
    landmarks: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
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
    return loss, {"diffusion": loss, "x0_l1": losses.mean(errors, batch)}


def _denoiser_init(nets: Networks, key: jax.Array, batch: Batch) -> Params:
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
    return params


def _kept(batch: Batch) -> Batch:
    """The batch with all of its conditions."""
    yes = jnp.ones_like(batch["keep_landmarks"])
    return {**batch, "keep_landmarks": yes, "keep_reference": yes}


def _image_preview(
    nets: Networks, params: Params, batch: Batch, landmarks: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
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


def diffusion_stage(config: Mapping[str, Any], nets: Networks) -> Stage:
    """The denoiser with the true landmarks of each frame."""

    def init(key: jax.Array, batch: Batch) -> Params:
        return _denoiser_init(nets, key, batch)

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        points = batch["frame_landmarks"]
        # Predicted landmarks will be a little wrong; so are these.
        jitter = config["loss"]["landmark_jitter"]
        points = points + jitter * jax.random.normal(stream(key, "jitter"), points.shape)
        batch = image_batches.encode_images(nets, params, batch, points)
        return _diffusion_terms(config, nets, params, batch, points, key)

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        return _image_preview(nets, params, _kept(batch), batch["frame_landmarks"], key)

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
    joint = config["joint"]

    def init(key: jax.Array, batch: Batch) -> Params:
        return {**_denoiser_init(nets, key, batch), **_landmark_init(nets, key, batch)}

    def terms(
        params: Params, batch: Batch, key: jax.Array, dropout: jax.Array | None
    ) -> tuple[jax.Array, Metrics]:
        predicted = _complete(nets, params, batch, dropout)
        anchor, metrics = _landmark_terms(config, predicted, batch)
        passed = predicted if joint["end_to_end"] else jax.lax.stop_gradient(predicted)
        points = landmarks_at_frames(passed, batch)
        batch = image_batches.encode_images(nets, params, batch, points)
        loss, more = _diffusion_terms(config, nets, params, batch, points, key)
        return loss + joint["landmark_weight"] * anchor, {**metrics, **more}

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return terms(params, batch, key, key)

    def eval_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return terms(params, batch, key, None)

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        points = landmarks_at_frames(_complete(nets, params, batch, None), batch)
        return _image_preview(nets, params, _kept(batch), points, key)

    return Stage(init, loss_fn, preview, ("denoiser", "landmark"), eval_fn)


def draw_points(points: jax.Array, size: int = 128) -> jax.Array:
    """Dark dots on white: (N, K, 2) crop coordinates to (N, size, size, 3) in [-1, 1]."""
    axis = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    # Separable Gaussians, (N, K, size) each
    x = jnp.exp(-0.5 * jnp.square((points[..., 0, None] - axis[None, None]) * size))
    y = jnp.exp(-0.5 * jnp.square((points[..., 1, None] - axis[None, None]) * size))
    ink = jnp.minimum(jnp.einsum("nky,nkx->nyx", y, x), 1.0)
    return jnp.repeat((1.0 - 2.0 * ink)[..., None], 3, axis=-1)
