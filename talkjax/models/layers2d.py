"""Small two-dimensional building blocks that several models share."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def upsample2x(x: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling by two: (B, H, W, C) -> (B, 2H, 2W, C)."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


class GroupNorm(nn.Module):
    """Group normalisation of (B, ..., C) over all axes but the first and, by groups, the last.

    `flax.linen.GroupNorm` does not run in bfloat16 under strict dtype promotion; this one takes
    its statistics in float32 (two passes, so that a large mean costs no precision) and returns
    `dtype`.

    Attributes:
      groups: number of groups; must divide C.
      epsilon: added to the variance.
      dtype: output type; `scale` and `bias` are float32.
    """

    groups: int = 32
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, ..., C) -> the same shape in `dtype`."""
        batch, channels = x.shape[0], x.shape[-1]
        if channels % self.groups:
            raise ValueError(f"{channels} channels do not divide into {self.groups} groups")
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        # (B, positions, groups, channels of a group)
        h = x.astype(jnp.float32).reshape(batch, -1, self.groups, channels // self.groups)
        h = h - h.mean(axis=(1, 3), keepdims=True)
        h = h * jax.lax.rsqrt(jnp.square(h).mean(axis=(1, 3), keepdims=True) + self.epsilon)
        shape = (1,) * (x.ndim - 1) + (channels,)
        h = h.reshape(x.shape) * scale.reshape(shape) + bias.reshape(shape)
        return h.astype(self.dtype)
