"""Small two-dimensional building blocks that several models share."""

import functools
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
    `dtype`. Reverse-mode differentiation only: see `_normalise`.

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
        channels = x.shape[-1]
        if channels % self.groups:
            raise ValueError(f"{channels} channels do not divide into {self.groups} groups")
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        h = x.reshape(x.shape[0], -1, channels)
        h = _normalise(h, scale, bias, self.groups, self.epsilon)
        return h.reshape(x.shape).astype(self.dtype)


# Sums run over positions first and over the few channels of a group last, and the backward pass is
# written out: of the plain formula the compiler makes something up to four times as slow on a CPU.


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> jax.Array:
    """(B, N, C) with (C,) scale and bias -> (B, N, C) float32."""
    return _normalise_forward(x, scale, bias, groups, epsilon)[0]


def _group_mean(values: jax.Array, groups: int) -> jax.Array:
    """Means over the channels of each group: (B, C) -> (B, 1, C)."""
    batch, channels = values.shape
    means = values.reshape(batch, groups, -1).mean(-1)
    return jnp.repeat(means, channels // groups, axis=1)[:, None]


def _normalise_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    h = x.astype(jnp.float32)
    mean = _group_mean(h.mean(1), groups)
    h = h - mean
    inverse = jax.lax.rsqrt(_group_mean(jnp.square(h).mean(1), groups) + epsilon)
    out = h * (inverse * scale[None, None]) + bias[None, None]
    return out, (x, mean, inverse, scale)


def _normalise_backward(
    groups: int, epsilon: float, saved: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del epsilon
    x, mean, inverse, scale = saved
    normal = (x.astype(jnp.float32) - mean) * inverse
    bias_sum, scale_sum = gradient.sum(1), (gradient * normal).sum(1)  # (B, C)
    count = x.shape[1]
    along_one = _group_mean(bias_sum * scale[None], groups) / count
    along_normal = _group_mean(scale_sum * scale[None], groups) / count
    dx = inverse * (gradient * scale[None, None] - along_one - normal * along_normal)
    return dx.astype(x.dtype), scale_sum.sum(0), bias_sum.sum(0)


_normalise.defvjp(_normalise_forward, _normalise_backward)
