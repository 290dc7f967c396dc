"""The image part of a batch: latents, the denoiser's conditions, and sampling under them.

Shapes: B samples of a batch, F frames of each, R reference images of each.
"""

import functools

import jax
import jax.numpy as jnp

from talkjax.conventions import to_float
from talkjax.diffusion import samplers
from talkjax.models.unet import Conditions
from talkjax.networks import Networks
from talkjax.training.stage import Batch, Params


def encode_images(nets: Networks, params: Params, batch: Batch, landmarks: jax.Array) -> Batch:
    """Target, filled-in target and references as latents, unless the batch has them.

    Args:
      landmarks: (B, F, 131, 2) that references are warped to. The gradient passes through the warp.

    Returns:
      The batch with `target_latent`, `masked_latent` and `reference_latent`; from pixels also with
      `filled` (B, F, H, W, 3).
    """
    encode = functools.partial(nets.encode, params["autoencoder"])
    made = {}
    if "target_latent" not in batch:
        made["target_latent"] = jax.lax.stop_gradient(encode(batch["target"]))
        made["reference_latent"] = jax.lax.stop_gradient(encode(batch["reference"]))
    if "masked_latent" not in batch:
        target, frames = to_float(batch["target"]), landmarks.shape[1]
        images, own = (
            per_frame(x, frames)
            for x in (to_float(batch["reference"]), batch["image_reference_landmarks"])
        )
        filled = nets.fill_in(flat(target), flat(landmarks), images, own)
        # Where the reference is dropped, nothing of it may be left.
        rows, columns = nets.hidden
        grey = flat(target).at[:, rows, columns].set(0.0)
        keep = per_frame(batch["keep_reference"], frames)
        filled = jnp.where(keep[:, None, None, None], filled, grey).reshape(target.shape)
        latent = encode(filled)
        if nets.fill == "grey":
            latent = jax.lax.stop_gradient(latent)
        made |= {"filled": filled, "masked_latent": latent}
    return {**batch, **made}


def per_frame(values: jax.Array, frames: int) -> jax.Array:
    """(B, ...) -> (B * F, ...), each row F times in a row."""
    return jnp.repeat(values, frames, axis=0)


def flat(values: jax.Array) -> jax.Array:
    """(B, F, ...) -> (B * F, ...)."""
    return values.reshape(-1, *values.shape[2:])


def make_conditions(
    nets: Networks, params: Params, batch: Batch, landmarks: jax.Array
) -> Conditions:
    """The denoiser's conditions for frames with landmarks (B, F, 131, 2), flattened to B * F."""
    frames, own = landmarks.shape[1], batch["image_reference_landmarks"]
    keep_landmarks = per_frame(batch["keep_landmarks"], frames)
    denoiser = functools.partial(nets.denoiser.apply, {"params": params["denoiser"]})
    motion = denoiser(
        flat(landmarks),
        per_frame(own[:, 0], frames),
        keep_landmarks,
        nets.latent_shape[:2],
        method="motion_context",
    )
    reference = denoiser(batch["reference_latent"], own, method="reference_context")
    return Conditions(
        masked=flat(batch["masked_latent"]),
        mask=jnp.asarray(nets.mask),
        motion=motion,
        reference=jax.tree.map(lambda x: per_frame(x, frames), reference),
        keep_landmarks=keep_landmarks,
        keep_reference=per_frame(batch["keep_reference"], frames),
    )


def denoise(
    nets: Networks, params: Params, conditions: Conditions, z: jax.Array, t: jax.Array
) -> jax.Array:
    """Evaluates the denoiser on noisy latents (B * F, h, w, c) at timesteps (B * F,)."""
    variables = {"params": params["denoiser"]}
    return nets.denoiser.apply(variables, z, t, conditions, method="denoise")


def sample_latents(
    nets: Networks, params: Params, batch: Batch, landmarks: jax.Array, noise: jax.Array, steps: int
) -> jax.Array:
    """DDIM from `noise` (B * F, h, w, c) under the batch's conditions: the same shape."""
    conditions = make_conditions(nets, params, batch, landmarks)

    def predict(z: jax.Array, t: jax.Array) -> jax.Array:
        times = jnp.full((z.shape[0],), t, jnp.int32)
        return denoise(nets, params, conditions, z, times)

    state = samplers.ddim(nets.schedule, predict, noise, steps=steps, prediction=nets.prediction)
    return nets.to_latents(state, conditions.masked)
