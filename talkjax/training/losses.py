"""The losses of the four stages: functions of arrays, each a mean over the batch."""

import jax
import jax.numpy as jnp

from talkjax.diffusion import schedules


def landmark_loss(predicted: jax.Array, truth: jax.Array) -> tuple[jax.Array, jax.Array]:
    """L1 on positions and L1 on frame-to-frame velocity (arXiv 2408.05416, section 3.1).

    Args:
      predicted, truth: (B, T, K, 2) crop coordinates.

    Returns:
      Two scalars, in crop units.
    """
    position = jnp.abs(predicted - truth).mean()
    velocity = jnp.abs(jnp.diff(predicted, axis=1) - jnp.diff(truth, axis=1)).mean()
    return position, velocity


def v_min_snr_weights(schedule: schedules.Schedule, t: jax.Array, gamma: float) -> jax.Array:
    """min(snr + 1, gamma) / (snr + 1) for v prediction, of t's shape.

    `schedules.min_snr_weights` vanishes at pure noise, where a sampler of few steps decides what
    the mouth does; this keeps weight 1 there and only tames the nearly clean end.
    """
    ratio = schedules.snr(schedule, t) + 1.0
    return jnp.minimum(ratio, gamma) / ratio


def diffusion_loss(
    output: jax.Array, target: jax.Array, weights: jax.Array, area: jax.Array
) -> jax.Array:
    """Weighted mean squared error of the network's output.

    Args:
      output, target: (B, h, w, c).
      weights: (B,) by timestep.
      area: (h, w) by place.
    """
    error = jnp.square(output - target).mean(-1) * area[None]
    return (error.sum((1, 2)) / area.sum() * weights).mean()


def reconstruction_loss(images: jax.Array, decoded: jax.Array) -> jax.Array:
    """L1 on pixels and on their differences to the right and below, which keeps edges crisp."""
    loss = jnp.abs(images - decoded).mean()
    for axis in (1, 2):
        difference = jnp.diff(images, axis=axis) - jnp.diff(decoded, axis=axis)
        loss += 0.5 * jnp.abs(difference).mean()
    return loss
