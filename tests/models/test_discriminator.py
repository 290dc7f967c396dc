"""The patch discriminator of the losses of pictures."""

import jax
import jax.numpy as jnp
import numpy as np

from talkjax.models.discriminator import PatchDiscriminator
from tests.parameters import random_for


def test_pictures_are_judged_by_what_differs_from_the_guide():
    judge = PatchDiscriminator()
    keys = jax.random.split(jax.random.key(0), 3)
    images, guide, shift = (jax.random.uniform(key, (2, 40, 56, 3)) for key in keys)
    params = {"params": random_for(lambda key, x: judge.init(key, x)["params"], images)}
    run = jax.jit(judge.apply)
    plain, guided = run(params, images), run(params, images, guide)
    assert plain.shape == guided.shape == (2, 5, 7)
    assert jnp.abs(plain - guided).max() > 1e-3
    np.testing.assert_allclose(run(params, images + shift, guide + shift), guided, atol=1e-4)
