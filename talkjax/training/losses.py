"""Losses of the training stages: functions of arrays.

Each returns one value per sample, and `mean` averages them. Held-out batches carry a weight per
sample, which is 0 for the samples that only fill the last batch.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

_LIP_MARGIN = 0.03  # crop units


def mean(values: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Averages per-sample values under the weights of a batch.

    Args:
      values: (B, ...) or (B * F, ...), the F values of a sample in a row.
      batch: `weight` (B,) float32, if it has one; else all samples count the same.

    Returns:
      A scalar.
    """
    per_value = values.reshape(len(values), -1).mean(1)  # (B * F,)
    if "weight" not in batch:
        return per_value.mean()
    weight = batch["weight"]
    per_sample = per_value.reshape(len(weight), -1).mean(1)  # (B,)
    return (per_sample * weight).sum() / jnp.maximum(weight.sum(), 1e-6)


def landmark_loss(predicted: jax.Array, truth: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """L1 on positions and on frame-to-frame velocity, and how far the points move.

    The first two are the paper's (arXiv 2408.05416, section 3.1). Their optimum is the median, so a
    mouth that cannot be predicted exactly moves too little. The third compares each coordinate's
    standard deviation over the window, which tells nothing of when it moves.

    Args:
      predicted, truth: (B, T, K, 2) crop coordinates.

    Returns:
      Errors of position, velocity and spread, (B,) each, in crop units.
    """
    position = jnp.abs(predicted - truth).mean((1, 2, 3))
    velocity = jnp.abs(jnp.diff(predicted, axis=1) - jnp.diff(truth, axis=1)).mean((1, 2, 3))
    spread = jnp.abs(_spread(predicted) - _spread(truth)).mean((1, 2))
    return position, velocity, spread


def _spread(points: jax.Array) -> jax.Array:
    """Returns the standard deviations over time of (B, T, K, 2): (B, K, 2)."""
    # The root has no gradient at 0.
    return jnp.sqrt(jnp.var(points, axis=1) + 1e-8)


def mouth_area(
    lips: jax.Array, region: Sequence[float], shape: tuple[int, int], weight: float
) -> jax.Array:
    """Computes weights by place: 1, rising to 1 + `weight` at the mouth.

    The mouth is a twentieth of the region but most of what a viewer looks at. The weight is a
    Gaussian around the lips' bounding box; its deviations are half the box's sides plus
    `_LIP_MARGIN`.

    Args:
      lips: (B, K, 2) crop coordinates.
      region: (y0, x0, y1, x1), the part of the crop that the images show.
      shape: (h, w), size of the images or latents.
      weight: additional weight at the centre of the mouth.

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


def diffusion_loss(output: jax.Array, target: jax.Array, area: jax.Array) -> jax.Array:
    """Mean squared error of the network's output, weighted by place.

    Args:
      output, target: (N, h, w, c).
      area: (N, h, w) weights.

    Returns:
      (N,).
    """
    error = jnp.square(output - target).mean(-1) * area
    return error.sum((1, 2)) / area.sum((1, 2))


def reconstruction_loss(
    images: jax.Array, decoded: jax.Array, area: jax.Array, edge_weight: float
) -> jax.Array:
    """L1 on pixels and on their differences to the right and below, which keeps edges crisp.

    Args:
      images, decoded: (B, H, W, 3).
      area: (B, H, W) weights.
      edge_weight: Weight of the differences.

    Returns:
      (B,).
    """
    area = (area / area.mean((1, 2), keepdims=True))[..., None]
    loss = (area * jnp.abs(images - decoded)).mean((1, 2, 3))
    for axis in (1, 2):
        difference = jnp.diff(images, axis=axis) - jnp.diff(decoded, axis=axis)
        here = jax.lax.slice_in_dim(area, 1, None, axis=axis)
        loss += edge_weight * (here * jnp.abs(difference)).mean((1, 2, 3))
    return loss
