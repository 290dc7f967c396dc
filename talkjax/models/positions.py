"""Where things are: grids, Fourier features and correspondences in crop coordinates.

Everything here is a function of arrays in the unit square of the crop (x right, y down) and is
differentiable in the landmarks, which is how the diffusion loss reaches the landmark network.
"""

import jax
import jax.numpy as jnp


def grid_positions(height: int, width: int, region: tuple[float, ...]) -> jax.Array:
    """Centres of a grid of cells that tiles `region` (y0, x0, y1, x1): (height * width, 2)."""
    y0, x0, y1, x1 = region
    y = y0 + (jnp.arange(height, dtype=jnp.float32) + 0.5) * ((y1 - y0) / height)
    x = x0 + (jnp.arange(width, dtype=jnp.float32) + 0.5) * ((x1 - x0) / width)
    grid_y, grid_x = jnp.meshgrid(y, x, indexing="ij")
    return jnp.stack([grid_x, grid_y], -1).reshape(-1, 2)


def fourier_features(points: jax.Array, bands: int) -> jax.Array:
    """Sines and cosines of (..., 2) points at `bands` octaves from one period a crop: (..., 4b)."""
    frequencies = 2 * jnp.pi * 2.0 ** jnp.arange(bands, dtype=jnp.float32)
    # (..., 2, bands)
    phase = points[..., None] * frequencies.reshape((1,) * points.ndim + (bands,))
    phase = phase.reshape((*points.shape[:-1], 2 * bands))
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1)


def squared_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Pairwise |a - b|^2 of (B, N, 2) and (B, M, 2): (B, N, M)."""
    return jnp.square(a[:, :, None, :] - b[:, None, :, :]).sum(-1)


def corresponding_points(
    points: jax.Array, landmarks: jax.Array, reference: jax.Array, sigma: float
) -> jax.Array:
    """Where the facial points under `points` lie in the reference image.

    A location is described by its offset to the landmarks near it; the place in the reference with
    the same offsets to the same landmarks is the same facial point. That is the displacement of
    the landmarks, averaged with Gaussian weights of the distance to them.

    Args:
      points: (B, N, 2) target locations.
      landmarks: (B, K, 2) the target's landmarks.
      reference: (B, K, 2) the reference's landmarks.
      sigma: width of the Gaussian, crop units.

    Returns:
      (B, N, 2) locations in the reference.
    """
    weights = jax.nn.softmax(-squared_distance(points, landmarks) / (2 * sigma**2), axis=-1)
    return points + jnp.einsum("bnk,bkd->bnd", weights, reference - landmarks)
