"""The regressor that reads lips off pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from talkjax.models.lip_regressor import LipRegressor, map_loss, mean_places
from tests.parameters import random_for


def discs(places, shape=(40, 56)):
    """Pictures (B, *shape, 3) of a bright disc at each place (B, 2) in shares of the sides."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    x, y = places[:, 0, None, None] * shape[1], places[:, 1, None, None] * shape[0]
    distance = np.hypot(columns - x, rows - y)
    return np.repeat((distance < 5)[..., None] * 2.0 - 1, 3, -1).astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 56), (80, 112), (160, 224)])
def test_lips_lie_in_the_picture(shape):
    model, images = LipRegressor(), jnp.zeros((2, *shape, 3))
    params = random_for(model.init, images)
    got = jax.jit(lambda p, x: mean_places(model.apply(p, x)))(params, images)
    assert got.shape == (2, 40, 2) and got.dtype == jnp.float32
    assert (got > 0).all() and (got < 1).all()


def test_it_learns_where_things_are():
    model, rng = LipRegressor(), np.random.default_rng(0)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 40, 56, 3)))
    optimizer = optax.adam(2e-3)
    state = optimizer.init(params)

    @jax.jit
    def error(params, images, places):
        return jnp.abs(mean_places(model.apply(params, images)) - places[:, None]).mean()

    def loss(params, images, places):
        wanted = jnp.repeat(places[:, None], 40, 1)
        return map_loss(model.apply(params, images), wanted).mean()

    @jax.jit
    def step(params, state, images, places):
        value, gradient = jax.value_and_grad(loss)(params, images, places)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    for _ in range(60):
        places = rng.uniform(0.2, 0.8, (8, 2)).astype(np.float32)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes them
            params, state, _ = step(params, state, discs(places), places)
    places = rng.uniform(0.2, 0.8, (32, 2)).astype(np.float32)
    found = error(params, discs(places), places)
    still = np.abs(places - 0.5).mean()
    assert found < still / 10, (found, still)


def test_the_loss_of_maps_is_least_at_the_true_place():
    places = jnp.array([[[0.25, 0.5]]]).repeat(40, 1)
    maps = np.full((3, 20, 28, 40), -9.0, np.float32)
    for picture, (row, column) in enumerate([(9, 6), (9, 7), (3, 20)]):
        maps[picture, row : row + 2, column] = 0  # the first has its mean at (6.5, 10) cells
    found = map_loss(jnp.asarray(maps), places.repeat(3, 0))
    assert found.shape == (3,) and found[0] < found[1] + 1e-3 < found[2], found
    near = mean_places(jnp.asarray(maps))[0, 0]
    np.testing.assert_allclose(near, [6.5 / 28, 0.5], atol=0.01)
