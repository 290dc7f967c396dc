"""Stage `landmark`: the completion of lip and jaw landmarks alone."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from talkjax.conventions import LEFT_EYE_SLICE, RIGHT_EYE_SLICE
from talkjax.models.landmark_completion import References
from talkjax.networks import Networks
from talkjax.training import losses
from talkjax.training.rng import stream
from talkjax.training.stage import Batch, Metrics, Params, Stage


def landmark_stage(config: Mapping[str, Any], nets: Networks) -> Stage:
    """Landmark completion alone."""

    def init(key: jax.Array, batch: Batch) -> Params:
        return init_landmark(nets, key, batch)

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return landmark_terms(config, complete(nets, params, batch, key), batch)

    def eval_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        del key  # no dropout
        return landmark_terms(config, complete(nets, params, batch, None), batch)

    def preview(params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        del key
        predicted = complete(nets, params, batch, None)
        middle = predicted.shape[1] // 2
        return {
            "truth": draw_points(batch["content"][:, middle]),
            "predicted": draw_points(predicted[:, middle]),
        }

    return Stage(init, loss_fn, preview, ("landmark",), eval_fn)


def _references(batch: Batch) -> References:
    return References(*(batch[f"reference_{name}"] for name in References._fields))


def init_landmark(nets: Networks, key: jax.Array, batch: Batch) -> Params:
    """Initialises the landmark network, and the speech encoder if there is one."""
    inputs = batch["mel"], batch["pose"], _references(batch)
    return nets.init_landmark(stream(key, "landmark"), *inputs)


def complete(nets: Networks, params: Params, batch: Batch, key: jax.Array | None) -> jax.Array:
    """Predicts content landmarks of a batch, (B, T, 57, 2); the key is that of dropout."""
    dropout = None if key is None else stream(key, "dropout")
    return nets.complete(params, batch["mel"], batch["pose"], _references(batch), dropout)


def landmark_terms(
    config: Mapping[str, Any], predicted: jax.Array, batch: Batch
) -> tuple[jax.Array, Metrics]:
    """Loss of predicted content landmarks (B, T, 57, 2), in units of the distance of the eyes."""
    position, velocity, spread = (
        losses.mean(error, batch) for error in losses.landmark_loss(predicted, batch["content"])
    )
    left = batch["pose"][:, :, LEFT_EYE_SLICE].mean(2)
    right = batch["pose"][:, :, RIGHT_EYE_SLICE].mean(2)
    unit = losses.mean(jnp.linalg.norm(left - right, axis=-1), batch)
    weights = config["loss"]
    total = position + weights["velocity_weight"] * velocity + weights["spread_weight"] * spread
    return total / unit, {"landmark_l1": position / unit}


def draw_points(points: jax.Array, size: int = 128) -> jax.Array:
    """Dark dots on white: (N, K, 2) crop coordinates to (N, size, size, 3) in [-1, 1]."""
    axis = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    # Separable Gaussians, (N, K, size) each
    x = jnp.exp(-0.5 * jnp.square((points[..., 0, None] - axis[None, None]) * size))
    y = jnp.exp(-0.5 * jnp.square((points[..., 1, None] - axis[None, None]) * size))
    ink = jnp.minimum(jnp.einsum("nky,nkx->nyx", y, x), 1.0)
    return jnp.repeat((1.0 - 2.0 * ink)[..., None], 3, axis=-1)
