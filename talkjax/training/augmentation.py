"""Augmentation of pictures in the training step: colours, and left and right.

A few people in one studio would otherwise be learned by heart. All pictures of a sample are changed
in the same way, so what a reference tells about the target stays true. Held-out data are not
changed.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from talkjax.conventions import MIRROR
from talkjax.training.rng import stream
from talkjax.training.stage import Batch

_PICTURES = ("target", "reference")
_LANDMARKS = ("frame_landmarks", "image_reference_landmarks")
# Standard deviations at strength 1: logarithms of gains by channel, of contrast, of saturation and
# of gamma; how much of a channel goes to another; brightness as a share of the range.
_GAIN, _CONTRAST, _SATURATION, _GAMMA, _MIX, _BRIGHTNESS = 0.15, 0.2, 0.3, 0.25, 0.08, 0.08


def check(config: Mapping[str, Any]) -> None:
    """Checks that a configuration's augmentation is possible.

    Raises:
      ValueError: Latents are cached, or the region to mirror is not in the middle of the crop.
    """
    amounts = config["augmentation"]
    if not _is_on(amounts):
        return
    if config["data"]["latents"]:
        raise ValueError("augmentation changes pixels, not cached latents; unset data.latents")
    left, right = config["region"][1], config["region"][3]
    if amounts["mirror"] and abs(left + right - 1) > 1e-6:
        raise ValueError("augmentation.mirror requires a region in the middle of the crop")


def augment(config: Mapping[str, Any], batch: Batch, key: jax.Array) -> Batch:
    """Changes the pictures of a batch and their landmarks.

    Args:
      config: `augmentation` of a configuration: the chance "mirror", the strength "colour".
      batch: `target` and perhaps `reference`, (B, ..., H, W, 3) uint8 regions, which lie in the
        middle of the crop, and their landmarks, (B, ..., 131, 2).
      key: Random key.

    Returns:
      A batch of the same shapes and types.
    """
    if not _is_on(config):
        return batch
    count = len(batch["target"])
    if config["mirror"]:
        flips = jax.random.bernoulli(stream(key, "mirror"), config["mirror"], (count,))
        for names, turn in ((_PICTURES, _mirror_pictures), (_LANDMARKS, _mirror_landmarks)):

            def flip(values: jax.Array, yes: jax.Array, turn: Any = turn) -> jax.Array:
                return jnp.where(yes, turn(values), values)

            batch = _apply(batch, names, flips, flip)
    if config["colour"]:
        draws = jax.random.normal(stream(key, "colour"), (count, 16)) * config["colour"]
        batch = _apply(batch, _PICTURES, draws, recolour)
    return batch


def _is_on(amounts: Mapping[str, Any]) -> bool:
    return bool(amounts["mirror"] or amounts["colour"])


def _apply(batch: Batch, names: tuple[str, ...], by_sample: jax.Array, function: Any) -> Batch:
    changed = {name: jax.vmap(function)(batch[name], by_sample) for name in names if name in batch}
    return {**batch, **changed}


def _mirror_pictures(pictures: jax.Array) -> jax.Array:
    return pictures[..., ::-1, :]


def _mirror_landmarks(landmarks: jax.Array) -> jax.Array:
    points = landmarks[..., MIRROR, :]
    return jnp.stack([1 - points[..., 0], points[..., 1]], -1)


def recolour(pictures: jax.Array, draws: jax.Array) -> jax.Array:
    """Changes colours and brightness, all pictures in the same way.

    Args:
      pictures: (..., 3) uint8.
      draws: (16,) standard normal numbers times the strength; with 0 nothing changes.

    Returns:
      (..., 3) uint8.
    """
    gain = jnp.exp(_GAIN * draws[:3] + _CONTRAST * draws[3])
    mix = _MIX * draws[7:16].reshape(3, 3)
    saturation = jnp.exp(_SATURATION * draws[4])
    grey = jnp.full((3, 3), 1 / 3)
    # Grey stays grey before the gains: rows of `mix` must sum to 0.
    matrix = grey + saturation * (jnp.eye(3) - grey) + mix - mix.mean(1, keepdims=True)
    x = pictures.astype(jnp.float32) / 255
    x = jnp.matmul(x, matrix.T) * gain.reshape((1,) * (x.ndim - 1) + (3,))
    x = jnp.clip(x + _BRIGHTNESS * draws[5], 0.0, 1.0)
    x = jnp.power(x + 1e-6, jnp.exp(_GAMMA * draws[6]))
    return jnp.round(jnp.clip(x, 0.0, 1.0) * 255).astype(jnp.uint8)
