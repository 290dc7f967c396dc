import jax
import jax.numpy as jnp
import numpy as np

from talkjax.models import positions


def test_grid_tiles_the_region_row_by_row():
    grid = positions.grid_positions(2, 4, (0.5, 0.0, 1.0, 1.0))
    np.testing.assert_allclose(grid[0], (0.125, 0.625))
    np.testing.assert_allclose(grid[3], (0.875, 0.625))
    np.testing.assert_allclose(grid[4], (0.125, 0.875))


def test_fourier_features_tell_places_apart():
    points = jax.random.uniform(jax.random.key(0), (2, 5, 2))
    features = positions.fourier_features(points, 4)
    assert features.shape == (2, 5, 16)
    octaves = 2 * jnp.pi * jnp.array([1.0, 2, 4, 8])
    np.testing.assert_allclose(features[0, 0, :4], jnp.sin(points[0, 0, 0] * octaves), atol=1e-5)


def test_correspondence_follows_a_moved_face_and_is_differentiable():
    key = jax.random.key(0)
    landmarks = jax.random.uniform(key, (1, 131, 2))
    shift = jnp.array([0.1, -0.05]).reshape(1, 1, 2)
    points = positions.grid_positions(4, 4, (0.0, 0.0, 1.0, 1.0))[None]
    found = positions.corresponding_points(points, landmarks, landmarks + shift, 0.05)
    np.testing.assert_allclose(found, points + shift, atol=1e-5)

    def total(landmarks):
        return positions.corresponding_points(points, landmarks, landmarks[:, ::-1], 0.05).sum()

    assert float(jnp.abs(jax.grad(total)(landmarks)).sum()) > 0


def test_squared_distance():
    a, b = jnp.zeros((1, 3, 2)), jnp.ones((1, 2, 2))
    np.testing.assert_allclose(positions.squared_distance(a, b), np.full((1, 3, 2), 2.0))
