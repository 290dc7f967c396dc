"""A small network that reads the lips' landmarks off pictures, for losses of training.

Every landmark has a heat map, whose mean place it is (soft-argmax: Sun et al., arXiv 1711.08229).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.conventions import LIPS_SLICE

_LIPS = LIPS_SLICE.stop - LIPS_SLICE.start
_STEM_HEIGHT = 40  # rows of the first features: the finest that the lips' places need
_FEATURES = (32, 64, 128)
_DEVIATION = 0.7  # of the Gaussians that the heat maps are taught, in their cells


class LipRegressor(nn.Module):
    """Heat maps at a half of the first features' resolution, with the context of a quarter."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Draws heat maps of the lips.

        Args:
          images: (B, H, W, 3) in [-1, 1].

        Returns:
          (B, h, w, 40) float32 logits of where in the picture each landmark is.
        """
        stride = max(1, images.shape[1] // _STEM_HEIGHT)
        coarse, middle, fine = _FEATURES[2], _FEATURES[1], _FEATURES[0]
        x = images.astype(self.dtype)
        x = nn.Conv(fine, (stride + 2,) * 2, (stride,) * 2, dtype=self.dtype, name="stem")(x)
        x = self._block(nn.silu(x), middle, 2, "down")
        kept = self._block(x, middle, 1, "middle")
        x = self._block(kept, coarse, 2, "deep")
        x = self._block(x, coarse, 1, "context")
        x = jax.image.resize(x, (*kept.shape[:3], coarse), "bilinear")
        x = self._block(jnp.concatenate([x, kept], -1), middle, 1, "up")
        return nn.Conv(_LIPS, (1, 1), dtype=jnp.float32, name="maps")(x.astype(jnp.float32))

    def _block(self, x: jax.Array, features: int, stride: int, name: str) -> jax.Array:
        x = nn.Conv(features, (3, 3), (stride,) * 2, dtype=self.dtype, name=name)(x)
        return nn.silu(nn.GroupNorm(8, dtype=self.dtype, name=f"{name}_norm")(x))


def mean_places(maps: jax.Array) -> jax.Array:
    """Mean places of heat maps: (B, 40, 2), x and y in shares of the picture's width and height.

    Args:
      maps: (B, h, w, 40) logits.
    """
    shares = jax.nn.softmax(maps.reshape(len(maps), -1, _LIPS), 1)
    return jnp.einsum("bnk,nc->bkc", shares, _cells(maps.shape))


def map_loss(maps: jax.Array, places: jax.Array) -> jax.Array:
    """Cross-entropy between heat maps and Gaussians around the true places, per sample: (B,).

    Mean places alone hardly move at first, when the maps are flat.

    Args:
      maps: (B, h, w, 40) logits.
      places: (B, 40, 2) in shares of the picture's width and height.
    """
    size = jnp.array([[[maps.shape[2], maps.shape[1]]]], jnp.float32)
    apart = (_cells(maps.shape)[None, :, None] - places[:, None]) * size[:, :, None]
    wanted = jax.nn.softmax(-jnp.square(apart).sum(-1) / (2 * _DEVIATION**2), 1)
    found = jax.nn.log_softmax(maps.reshape(len(maps), -1, _LIPS), 1)
    return -(wanted * found).sum(1).mean(-1)


def _cells(shape: tuple[int, ...]) -> jax.Array:
    height, width = shape[1:3]
    rows = (jnp.arange(height, dtype=jnp.float32) + 0.5) / height
    columns = (jnp.arange(width, dtype=jnp.float32) + 0.5) / width
    return jnp.stack([jnp.tile(columns, height), jnp.repeat(rows, width)], -1)
