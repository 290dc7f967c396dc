"""What a run is going to do, before anything is done: mesh, shapes, shardings and the step.

Nothing here touches a device, so a plan can be made, and its step compiled, for machines that are
not there (`talkjax.training.compile_ahead`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from talkjax.training import sharding, state, step
from talkjax.training.rng import stream
from talkjax.training.stage import Batch, Metrics, Params, Stage


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run of one stage on one mesh.

    Attributes:
      mesh: from `sharding.make_mesh`.
      rows: sharding of every array of a batch.
      batch: {name: shape of the whole, global batch}.
      state: shapes and shardings of the training state.
      shardings: of the training state.
      init: () -> fresh parameters, placed.
      create: params -> a fresh training state, not yet placed.
      train_step: from `step.make_train_step`; `lower(plan.state, plan.batch)` compiles it.
    """

    mesh: Mesh
    rows: jax.sharding.NamedSharding
    batch: dict[str, jax.ShapeDtypeStruct]
    state: state.TrainState
    shardings: state.TrainState
    init: Callable[[], Params]
    create: Callable[[Params], state.TrainState]
    train_step: Callable[[state.TrainState, Batch], tuple[state.TrainState, Metrics]]


def make(
    config: Any, stage: Stage, example: Mapping[str, Any], devices: Sequence[Any] | None = None
) -> Plan:
    """Plans a run.

    Args:
      config: see `configs/base.py`.
      stage: from `talkjax.training.stages.build`.
      example: arrays or shapes of a batch; their leading axes do not matter.
      devices: of the mesh; by default those of this run.

    Raises:
      UserError: mesh, batch size, rules or optimiser do not fit.
    """
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, devices)
    accumulation = config.optimizer.accumulation
    sharding.check_batch_size(config.batch_size, mesh, accumulation)
    rows = sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((config.batch_size, *x.shape[1:]), x.dtype, sharding=rows)
        for name, x in example.items()
    }
    rules = tuple((pattern, tactic) for pattern, tactic in config.mesh.rules)
    layout = (mesh, rules, config.mesh.fsdp_min_size)
    schedule = state.make_schedule(config.optimizer, config.steps)
    optimizer = state.make_optimizer(config.optimizer, schedule)
    create = functools.partial(state.create, optimizer=optimizer, prefixes=stage.trainable)
    key = stream(jax.random.key(config.seed), "init")
    init = functools.partial(state.init_params, stage.init, key, batch, *layout)
    shapes = jax.eval_shape(lambda: create(init()))
    shardings = state.state_shardings(shapes, optimizer, stage.trainable, *layout)
    shapes = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        shardings,
    )
    train_step = step.make_train_step(
        stage.loss_fn,
        optimizer,
        schedule,
        trainable=stage.trainable,
        ema_decay=config.ema_decay,
        accumulation=accumulation,
        seed=config.seed,
        mesh=mesh,
        shardings=shardings,
    )
    return Plan(mesh, rows, batch, shapes, shardings, init, create, train_step)
