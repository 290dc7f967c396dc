"""Places in crop coordinates: grids, Fourier features and correspondences.

Everything here is a function of arrays in the unit square of the crop (x to the right, y down) and
is differentiable in the landmarks; this is how the diffusion loss reaches the landmark network.
"""

import jax
import jax.numpy as jnp

# For matrix products whose result is a coordinate. At the default precision, a TPU rounds the
# factors to bfloat16, which moves a coordinate by up to 0.002 of the crop.
COORDINATE_PRECISION = jax.lax.Precision.HIGHEST


def grid_positions(height: int, width: int, region: tuple[float, ...]) -> jax.Array:
    """Returns the centres (height * width, 2) of a grid of cells that tiles (y0, x0, y1, x1)."""
    y0, x0, y1, x1 = region
    y = y0 + (jnp.arange(height, dtype=jnp.float32) + 0.5) * ((y1 - y0) / height)
    x = x0 + (jnp.arange(width, dtype=jnp.float32) + 0.5) * ((x1 - x0) / width)
    grid_y, grid_x = jnp.meshgrid(y, x, indexing="ij")
    return jnp.stack([grid_x, grid_y], -1).reshape(-1, 2)


def fourier_features(points: jax.Array, bands: int) -> jax.Array:
    """Computes sines and cosines of points at octaves that begin at one period per crop.

    Args:
      points: (..., 2) in crop coordinates.
      bands: Number of octaves.

    Returns:
      (..., 4 * bands).
    """
    frequencies = 2 * jnp.pi * 2.0 ** jnp.arange(bands, dtype=jnp.float32)
    # (..., 2, bands)
    phase = points[..., None] * frequencies.reshape((1,) * points.ndim + (bands,))
    phase = phase.reshape((*points.shape[:-1], 2 * bands))
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1)


def squared_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes all |a - b|^2 of points (B, N, 2) and (B, M, 2): (B, N, M)."""
    return jnp.square(a[:, :, None, :] - b[:, None, :, :]).sum(-1)


def mean_position(weights: jax.Array, points: jax.Array) -> jax.Array:
    """Averages points by weights of sum 1: (B, N, M) and (B, M, C) to (B, N, C)."""
    return jnp.matmul(weights, points, precision=COORDINATE_PRECISION)


def corresponding_points(
    points: jax.Array, landmarks: jax.Array, reference: jax.Array, sigma: float
) -> jax.Array:
    """Finds where the facial points at `points` lie in the reference image.

    The offsets to nearby landmarks describe a facial point, and the place in the reference with the
    same offsets to the same landmarks is the same facial point. Its displacement is therefore that
    of the landmarks, averaged with weights that are Gaussians of the distance to them.

    Args:
      points: (B, N, 2) places in the target image, in crop coordinates.
      landmarks: (B, K, 2) landmarks of the target image.
      reference: (B, K, 2) landmarks of the reference image.
      sigma: Standard deviation of the Gaussian, in crop units.

    Returns:
      (B, N, 2) places in the reference image.
    """
    weights = jax.nn.softmax(-squared_distance(points, landmarks) / (2 * sigma**2), axis=-1)
    return points + mean_position(weights, reference - landmarks)
