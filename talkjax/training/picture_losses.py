"""Losses of pictures that are decoded from the denoiser's estimates, stages diffusion and joint.

The mean of the latents that could be right decodes to a blurred mouth, and not all of a latent is
equally visible. `loss.picture_weight` compares pixels. `loss.lip_weight` compares the lips' places
that a regressor reads off the pictures. `loss.adversarial_weight` adds a patch discriminator. The
regressor and the discriminator learn at the same time: in one loss for all networks, each sees the
others' parameters or pictures as constants.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from talkjax.conventions import LIPS_SLICE, to_float
from talkjax.models.discriminator import PatchDiscriminator
from talkjax.models.lip_regressor import LipRegressor, map_loss, mean_places
from talkjax.networks import Networks
from talkjax.training import losses
from talkjax.training.rng import stream
from talkjax.training.stage import Batch, Metrics, Params

# Weight of a loss -> what it trains besides the denoiser.
_PARTS = {"adversarial_weight": "discriminator", "lip_weight": "lip_regressor"}
_MAPS_WEIGHT = 0.1  # of the heat maps' cross-entropy beside L1 of the places
_LARGEST_ERROR = 0.02  # of the regressor on true pictures, in crop units, for it to count
_MODELS = {"discriminator": PatchDiscriminator, "lip_regressor": LipRegressor}


def are_used(config: Mapping[str, Any]) -> bool:
    """Returns whether a configuration has any of these losses."""
    return bool(config["loss"]["picture_weight"] or trained_parts(config))


def trained_parts(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of what these losses train besides the denoiser."""
    return tuple(part for weight, part in _PARTS.items() if config["loss"][weight])


def init_parts(config: Mapping[str, Any], nets: Networks, key: jax.Array) -> Params:
    """Initialises what these losses train besides the denoiser: {part: parameters}."""
    image = jnp.zeros((1, *nets.image_size, 3))
    return {
        part: _MODELS[part]().init(stream(key, part), image)["params"]
        for part in trained_parts(config)
    }


def lip_differences(
    params: Params, nets: Networks, images: jax.Array, truth: jax.Array
) -> jax.Array:
    """Differences between the lips that are read off pictures and off true ones: (B,).

    What the regressor gets wrong about somebody's lips is mostly the same in both. The loss would
    otherwise teach its errors.

    Args:
      params: Parameters of the regressor.
      nets: Networks, for the region.
      images: (B, H, W, 3) in [-1, 1].
      truth: (B, H, W, 3).

    Returns:
      L1 in crop units.
    """
    wanted = jax.lax.stop_gradient(_read_lips(params, truth)[1])
    return _in_crop_units(_read_lips(params, images)[1] - wanted, nets)


def trust_in(errors: jax.Array) -> jax.Array:
    """Shares by which regressors count, of their errors in crop units.

    One that has not learned yet must not teach.
    """
    return jnp.clip(1 - errors / _LARGEST_ERROR, 0.0, 1.0)


def _read_lips(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    maps = LipRegressor().apply({"params": params}, images)
    return maps, mean_places(maps)


def _in_crop_units(differences: jax.Array, nets: Networks) -> jax.Array:
    """L1 of differences (B, 40, 2) in shares of the region: (B,)."""
    y0, x0, y1, x1 = nets.region
    return jnp.abs(differences * jnp.array([[[x1 - x0, y1 - y0]]])).mean((1, 2))


def _regressor_terms(
    params: Params, nets: Networks, images: jax.Array, lips: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The regressor's loss on true pictures, and its error in crop units: (B,) each."""
    y0, x0, y1, x1 = nets.region
    places = (lips - jnp.array([[[x0, y0]]])) / jnp.array([[[x1 - x0, y1 - y0]]])
    maps, found = _read_lips(params, images)
    error = _in_crop_units(found - places, nets)
    return _MAPS_WEIGHT * map_loss(maps, places) + error, error


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
      params: Parameters with the subtree "autoencoder" and those of `trained_parts`.
      batch: Output of `image_batches.encode_images`, from pixels.
      latents: (B * F, h, w, c) estimates.
      last: (B * F,) which of them are of the last timestep, where sampling in one step begins. The
        others do not count.

    Returns:
      The weighted sum, and metrics: "picture" is L1 of pixels and edges in units of [-1, 1], "lips"
      the difference of the lips that are read off them and off true ones, in crop units, and
      "lip_regressor" the error of the latter; "adversarial" is what the discriminator makes of the
      pictures (less is more real) and "discriminator" its own loss (1 is a guess).
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
    if trained_parts(config):
        # What the decoder can show, so that the denoiser is judged and not the autoencoder.
        real = jax.lax.stop_gradient(decode(batch["target_latent"][:, 0]))
    if config["loss"]["lip_weight"]:
        lips = batch["frame_landmarks"][..., LIPS_SLICE, :]
        fixed = jax.lax.stop_gradient(params["lip_regressor"])
        metrics["lips"] = losses.mean(lip_differences(fixed, nets, made, real) * counts, batch)
        shown = to_float(batch["target"]).at[:, 0].set(real)
        shown, lips = shown.reshape(-1, *real.shape[1:]), lips.reshape(-1, *lips.shape[2:])
        own, wrong = _regressor_terms(params["lip_regressor"], nets, shown, lips)
        metrics["lip_regressor"] = losses.mean(wrong, batch)
        trust = trust_in(jax.lax.stop_gradient(metrics["lip_regressor"]))
        lip_weight = config["loss"]["lip_weight"] * trust
        total = total + lip_weight * metrics["lips"] + losses.mean(own, batch)
    if config["loss"]["adversarial_weight"]:
        judge = PatchDiscriminator()
        # In stage joint, landmarks must not move the warp so that the discriminator does better.
        given = jax.lax.stop_gradient(guide)

        def score(params: Params, images: jax.Array) -> jax.Array:
            return judge.apply({"params": params}, images, given)

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
