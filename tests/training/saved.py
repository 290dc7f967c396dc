"""Toy states and runs' directories that hold them."""

import jax
import jax.numpy as jnp
import numpy as np

from talkjax import runs
from talkjax.training import checkpoints, sharding, state
from tests.training import toy


def make_state(shape=(2, 4), seed=0, fill=None):
    """A toy state on a mesh, its abstract form included."""
    c = toy.config()
    mesh = sharding.make_mesh(*shape, jax.devices()[: shape[0] * shape[1]])
    optimizer = state.make_optimizer(c.optimizer, state.make_schedule(c.optimizer, c.steps))
    rules = (("bias", "replicate"), (".*", "fsdp"))
    example = {"x": np.zeros((16, toy.FEATURES), np.float32)}
    params = state.init_params(toy.init, jax.random.key(seed), example, mesh, rules, 1)
    made = state.create(params, optimizer, ["denoiser"])
    where = state.state_shardings(
        jax.eval_shape(lambda: made), optimizer, ["denoiser"], mesh, rules, 1
    )
    if fill is not None:
        made = jax.tree.map(lambda x: jnp.full_like(x, fill), made)
    made = jax.device_put(made, where)
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), made, where
    )
    return made, abstract


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def save_run(workdir, steps=(1,), seed=0, stage="diffusion", metrics=None):
    """A run's directory with checkpoints; step N's average is filled with N."""
    iterator = iter(toy.make_data(toy.config())("train"))
    manager = checkpoints.open_manager(workdir, keep_latest=2, keep_best=1)
    runs.write_config(workdir, toy.config(stage=stage))
    for step in steps:
        next(iterator)
        made, _ = make_state(seed=seed)
        ema = jax.tree.map(lambda x, s=step: jnp.full_like(x, s), made.ema)
        made = state.TrainState(**{**vars(made), "ema": ema})
        checkpoints.save(manager, step, made, iterator, metrics and metrics.get(step))
    manager.wait_until_finished()
    manager.close()
    return made
