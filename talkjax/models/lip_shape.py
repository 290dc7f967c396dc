"""Lips drawn on a grid: where they and the opening between them are.

Attention to landmarks (`talkjax.models.talkformer`) tells a cell how far it is from points. What is
inside of the mouth is a matter of all of them together, which a network of little training learns
slowly. These pictures say it outright. They are differentiable in the landmarks.
"""

import jax
import jax.numpy as jnp

from talkjax.conventions import LIPS_SLICE, OUTER_LIPS
from talkjax.models import positions

FINE = 4  # parts of a cell along each axis
CHANNELS = 2 * FINE * FINE


def draw_lips(landmarks: jax.Array, size: tuple[int, int], region: tuple[float, ...]) -> jax.Array:
    """Draws the outlines of the lips and of the mouth's opening, filled.

    Args:
      landmarks: (B, 131, 2) in crop coordinates.
      size: Rows and columns (h, w) of the grid.
      region: Part of the crop that the grid covers, (y0, x0, y1, x1) in crop coordinates.

    Returns:
      (B, h, w, CHANNELS) float32: of each of the `FINE` x `FINE` parts of a cell, about the share
      that lies within the lips' outline, and within the opening.
    """
    height, width = size
    points = positions.grid_positions(height * FINE, width * FINE, region)
    softness = (region[2] - region[0]) / (height * FINE) / 4
    lips = landmarks[:, LIPS_SLICE]
    outlines = jnp.split(lips, [len(OUTER_LIPS)], axis=1)  # of the lips and of the opening
    drawn = [jax.nn.sigmoid(signed_distance(points, shape) / softness) for shape in outlines]
    x = jnp.stack(drawn, -1).reshape(-1, height, FINE, width, FINE, 2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, width, CHANNELS)


def signed_distance(points: jax.Array, polygon: jax.Array) -> jax.Array:
    """Computes distances to the outline of a polygon, positive inside of it.

    Args:
      points: (N, 2).
      polygon: (B, K, 2) corners in order.

    Returns:
      (B, N), in the unit of the points. Inside is where a ray crosses the outline an odd number of
      times.
    """
    start, end = polygon[:, None], jnp.roll(polygon, -1, axis=1)[:, None]  # (B, 1, K, 2)
    along, apart = end - start, points[None, :, None] - start
    length = jnp.square(along).sum(-1)
    share = (apart * along).sum(-1) / jnp.maximum(length, 1e-12)
    nearest = jnp.clip(share, 0.0, 1.0)[..., None] * along - apart  # (B, N, K, 2)
    # The root has no gradient at 0.
    distance = jnp.sqrt(jnp.square(nearest).sum(-1).min(-1) + 1e-12)
    y = points[None, :, None, 1]
    crosses = (start[..., 1] > y) != (end[..., 1] > y)
    slope = along[..., 0] / jnp.where(along[..., 1] == 0, 1.0, along[..., 1])
    left = points[None, :, None, 0] < start[..., 0] + (y - start[..., 1]) * slope
    inside = (crosses & left).sum(-1) % 2 == 1
    return jnp.where(inside, distance, -distance)
