"""Toy states and runs' directories that hold them."""

import jax
import jax.numpy as jnp
import numpy as np

from talkjax import runs
from talkjax.training import checkpoints, plan, state
from tests.training import toy


def make_state(shape=(2, 4), seed=0, fill=None):
    """A toy state on a mesh, its abstract form included."""
    c = toy.config(**{"mesh.data": shape[0], "mesh.fsdp": shape[1], "seed": seed})
    example = {name: np.zeros((16, n), np.float32) for name, n in toy.SIZES.items()}
    planned = plan.make_plan(c, toy.stage(), example, jax.devices()[: shape[0] * shape[1]])
    made = jax.jit(planned.create, out_shardings=planned.shardings)(planned.init())
    if fill is not None:
        made = jax.tree.map(lambda x: jnp.full_like(x, fill), made)
    return jax.device_put(made, planned.shardings), planned.state


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def save_run(workdir, steps=(1,), seed=0, stage="diffusion", losses=None):
    """A run's directory with checkpoints; step N's average is filled with N."""
    iterator = iter(toy.make_data(toy.config())("train"))
    manager = checkpoints.open_manager(workdir, keep_latest=2, keep_best=1, losses=losses)
    runs.write_config(workdir, toy.config(stage=stage))
    for step in steps:
        next(iterator)
        made, _ = make_state(seed=seed)
        ema = jax.tree.map(lambda x, s=step: jnp.full_like(x, s), made.ema)
        made = state.TrainState(**{**vars(made), "ema": ema})
        checkpoints.save(manager, step, made, iterator)
    manager.wait_until_finished()
    manager.close()
    return made
