"""The losses of the four stages: functions of arrays, each a mean over the batch."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from talkjax.diffusion import schedules

_LIP_MARGIN = 0.03  # crop units


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


def mouth_area(
    lips: jax.Array, region: Sequence[float], shape: tuple[int, int], weight: float
) -> jax.Array:
    """How much each place of an image counts: 1, and up to 1 + weight where the mouth is.

    A mouth is a twentieth of the region but most of what one looks at. The bump is a Gaussian about
    the lips' bounding box, half of it wide and high (and `_LIP_MARGIN` more).

    Args:
      lips: (B, K, 2) crop coordinates.
      region: (y0, x0, y1, x1) of the crop that the images show.
      shape: (h, w) of the images or latents.
      weight: how much more the middle of the mouth counts.

    Returns:
      (B, h, w).
    """
    low, high = lips.min(1), lips.max(1)
    centre, spread = (low + high) / 2, (high - low) / 2 + _LIP_MARGIN
    y0, x0, y1, x1 = region
    bumps = []
    for axis, (start, end, count) in enumerate(((x0, x1, shape[1]), (y0, y1, shape[0]))):
        place = start + (jnp.arange(count, dtype=jnp.float32)[None] + 0.5) / count * (end - start)
        distance = (place - centre[:, axis, None]) / spread[:, axis, None]
        bumps.append(jnp.exp(-0.5 * jnp.square(distance)))
    across, down = bumps
    return 1.0 + weight * down[:, :, None] * across[:, None, :]


def diffusion_loss(
    output: jax.Array, target: jax.Array, weights: jax.Array, area: jax.Array
) -> jax.Array:
    """Weighted mean squared error of the network's output.

    Args:
      output, target: (B, h, w, c).
      weights: (B,) by timestep.
      area: (B, h, w) by place.
    """
    error = jnp.square(output - target).mean(-1) * area
    return (error.sum((1, 2)) / area.sum((1, 2)) * weights).mean()


def reconstruction_loss(images: jax.Array, decoded: jax.Array, area: jax.Array) -> jax.Array:
    """L1 on pixels and on their differences to the right and below, which keeps edges crisp.

    Args:
      images, decoded: (B, H, W, 3).
      area: (B, H, W) by place.
    """
    area = (area / area.mean((1, 2), keepdims=True))[..., None]
    loss = (area * jnp.abs(images - decoded)).mean()
    for axis in (1, 2):
        difference = jnp.diff(images, axis=axis) - jnp.diff(decoded, axis=axis)
        here = jax.lax.slice_in_dim(area, 1, None, axis=axis)
        loss += 0.5 * (here * jnp.abs(difference)).mean()
    return loss
