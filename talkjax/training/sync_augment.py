"""Augments runs of mouth images; apart from noise, all images of a run change alike.

A sync expert must look at motion. Generated videos are softer than real ones, were encoded twice,
and are placed a little differently in their crop; none of that may count as bad sync.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from talkjax.models import sync_expert
from talkjax.training.rng import stream

_BLOCK = 8  # px, of JPEG and most video codecs


def distort(
    key: jax.Array, images: jax.Array, size: tuple[int, int], amounts: Mapping[str, Any]
) -> jax.Array:
    """Returns randomly distorted images of the same motion.

    Args:
      key: Random key.
      images: (B, L, H, W, 3), 0 to 255.
      size: (h, w) px of the network's input.
      amounts: `config.sync.augment`.

    Returns:
      (B, L, h, w, 3) float32, about [-1, 1].
    """
    images = images.astype(jnp.float32) / 127.5 - 1.0
    images = _move_and_soften(stream(key, "place"), images, size, amounts)
    images = _recolour(stream(key, "colour"), images, amounts)
    images = _quantise(stream(key, "codec"), images, amounts["codec"])
    level = amounts["noise"] * jax.random.uniform(stream(key, "level"), (len(images), 1, 1, 1, 1))
    return images + level * jax.random.normal(stream(key, "noise"), images.shape)


def _move_and_soften(
    key: jax.Array, images: jax.Array, size: tuple[int, int], amounts: Mapping[str, Any]
) -> jax.Array:
    """Zooms, shifts, mirrors and blurs, as cameras, autoencoders and smaller images do."""
    rows = (len(images),)
    zoom = jnp.exp(amounts["zoom"] * jax.random.normal(stream(key, "zoom"), rows))
    shift = amounts["shift"] * jax.random.normal(stream(key, "shift"), (2, *rows))
    mirrored = jax.random.bernoulli(stream(key, "mirror"), 0.5, rows)
    blur = amounts["blur"] * jax.random.uniform(stream(key, "blur"), rows)
    blur = jnp.where(jax.random.bernoulli(stream(key, "soft"), 0.7, rows), blur, 0.0)
    high, wide = images.shape[2:4]
    return sync_expert.resample(
        images,
        sync_expert.resampling(high, size[0], zoom, shift[0], blur),
        sync_expert.resampling(wide, size[1], jnp.where(mirrored, -zoom, zoom), shift[1], blur),
    )


def _recolour(key: jax.Array, images: jax.Array, amounts: Mapping[str, Any]) -> jax.Array:
    """Changes saturation (down to grey), contrast, brightness and colour cast."""
    rows = (len(images), 1, 1, 1)
    grey = images.mean(-1, keepdims=True)
    keep = jax.random.uniform(stream(key, "saturation"), (*rows, 1), minval=0.0, maxval=1.3)
    contrast = jnp.exp(amounts["contrast"] * jax.random.normal(stream(key, "contrast"), (*rows, 1)))
    light = amounts["brightness"] * jax.random.normal(stream(key, "light"), (*rows, 1))
    cast = amounts["cast"] * jax.random.normal(stream(key, "cast"), (*rows, 3))
    return (grey + (images - grey) * keep) * contrast + light + cast


def _quantise(key: jax.Array, images: jax.Array, amount: float) -> jax.Array:
    """Quantises 8 x 8 cosine coefficients in half of the runs, high frequencies more."""
    batch, length, high, wide, channels = images.shape
    pads = [(0, 0), (0, 0), (0, -high % _BLOCK), (0, -wide % _BLOCK), (0, 0)]
    padded = jnp.pad(images, pads, mode="edge")
    down, across = padded.shape[2] // _BLOCK, padded.shape[3] // _BLOCK
    blocks = padded.reshape(batch, length, down, _BLOCK, across, _BLOCK, channels)
    axis = np.arange(_BLOCK)
    basis = np.cos(np.pi * (axis[:, None] + 0.5) * axis[None] / _BLOCK) * np.sqrt(2 / _BLOCK)
    basis[:, 0] /= np.sqrt(2)
    basis = jnp.asarray(basis.astype(np.float32))
    waves = jnp.einsum("blhywxc,yi,xj->blhiwjc", blocks, basis, basis)
    finer = (1 + axis[:, None] + axis[None]).astype(np.float32) / _BLOCK
    amount = amount * jax.random.uniform(stream(key, "step"), (batch,)) + 1e-4
    step = amount[:, None, None] * finer[None]
    step = step[:, None, None, :, None, :, None]
    waves = jnp.round(waves / step) * step
    coded = jnp.einsum("blhiwjc,yi,xj->blhywxc", waves, basis, basis)
    coded = coded.reshape(padded.shape)[:, :, :high, :wide]
    used = jax.random.bernoulli(stream(key, "used"), 0.5, (batch, 1, 1, 1, 1))
    return jnp.where(used, coded, images)
