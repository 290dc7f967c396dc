"""Losses of pictures that are decoded from the denoiser's estimates, stages diffusion and joint.

The mean of the latents that could be right decodes to a blurred mouth, and not all of a latent is
equally visible. `loss.picture_weight` compares pixels. `loss.adversarial_weight` adds a patch
discriminator, which learns at the same time: in one loss for both networks, each sees the other's
parameters or pictures as constants.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from talkjax.conventions import LIPS_SLICE, to_float
from talkjax.models.discriminator import PatchDiscriminator
from talkjax.networks import Networks
from talkjax.training import losses
from talkjax.training.stage import Batch, Metrics, Params


def are_used(config: Mapping[str, Any]) -> bool:
    """Returns whether a configuration has any of these losses."""
    return bool(config["loss"]["picture_weight"] or config["loss"]["adversarial_weight"])


def init_discriminator(config: Mapping[str, Any], nets: Networks, key: jax.Array) -> Params:
    """Initialises the discriminator, if the configuration has one: {"discriminator": ...} or {}."""
    if not config["loss"]["adversarial_weight"]:
        return {}
    image = jnp.zeros((1, *nets.image_size, 3))
    return {"discriminator": PatchDiscriminator().init(key, image)["params"]}


def trained_parts(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of what these losses train besides the denoiser."""
    return ("discriminator",) if config["loss"]["adversarial_weight"] else ()


def picture_terms(
    config: Mapping[str, Any],
    nets: Networks,
    params: Params,
    batch: Batch,
    latents: jax.Array,
    last: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Computes the losses for the first frame of every window.

    Args:
      config: Configuration.
      nets: Networks of that configuration.
      params: Parameters with the subtree "autoencoder", and "discriminator" if there is one.
      batch: Output of `image_batches.encode_images`, from pixels.
      latents: (B * F, h, w, c) estimates.
      last: (B * F,) which of them are of the last timestep, where sampling in one step begins. The
        others do not count.

    Returns:
      The weighted sum, and metrics: "picture" is L1 of pixels and edges in units of [-1, 1],
      "adversarial" what the discriminator makes of the pictures (less is more real) and
      "discriminator" its own loss (1 is a guess).
    """
    windows, frames = batch["target"].shape[:2]
    counts = last.reshape(windows, frames)[:, 0].astype(jnp.float32)
    guide = batch["filled"][:, 0] if "filled" in batch else None

    def decode(latents: jax.Array) -> jax.Array:
        return nets.decode(params["autoencoder"], latents, guide)

    def area(shape: tuple[int, int]) -> jax.Array:
        lips = batch["frame_landmarks"][:, 0, LIPS_SLICE]
        return losses.mouth_area(lips, nets.region, shape, config["loss"]["mouth_weight"])

    made = decode(latents[::frames])
    truth = to_float(batch["target"][:, 0])
    rows, columns = nets.hidden
    hidden = (x[:, rows, columns] for x in (truth, made, area(truth.shape[1:3])))
    error = losses.reconstruction_loss(*hidden, config["loss"]["edge_weight"])
    metrics = {"picture": losses.mean(error * counts, batch)}
    total = config["loss"]["picture_weight"] * metrics["picture"]
    if config["loss"]["adversarial_weight"]:
        judge = PatchDiscriminator()

        def score(params: Params, images: jax.Array) -> jax.Array:
            return judge.apply({"params": params}, images)

        # What the decoder can show, so that the denoiser is judged and not the autoencoder.
        real = jax.lax.stop_gradient(decode(batch["target_latent"][:, 0]))
        own, fixed = params["discriminator"], jax.lax.stop_gradient(params["discriminator"])
        looks = score(fixed, made)
        weight = area(looks.shape[1:3])
        weight = counts[:, None, None] * weight / weight.mean((1, 2), keepdims=True)
        wrong = jax.nn.relu(1 - score(own, real))
        wrong += jax.nn.relu(1 + score(own, jax.lax.stop_gradient(made)))
        metrics["adversarial"] = -losses.mean(looks * weight, batch)
        metrics["discriminator"] = losses.mean(wrong * weight, batch) / 2
        both = metrics["adversarial"] + metrics["discriminator"]
        total = total + config["loss"]["adversarial_weight"] * both
    return total, metrics
