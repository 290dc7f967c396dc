"""The plan of a run: mesh, shapes, shardings and the three jitted programs.

Nothing here touches a device, so a plan can be made, and its programs compiled, for machines that
are not there (`talkjax.compile_ahead`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from talkjax.training import sharding, state, step
from talkjax.training.rng import stream
from talkjax.training.stage import Params, Stage

PROGRAMS = ("train", "eval", "preview")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run of one stage on one mesh.

    Attributes:
      mesh: Mesh from `sharding.make_mesh`.
      batch_sharding: Sharding of every array of a batch.
      batch: {name: shape of the global training batch}.
      state: Shapes and shardings of the training state.
      shardings: Shardings of the training state.
      init: () -> fresh parameters, placed on the mesh.
      create: params -> a fresh training state, not yet placed.
      programs: {name of `PROGRAMS`: (jitted function, shapes of its arguments)}. "preview" is
        absent where the stage has none or `config.eval.pictures` is 0.
    """

    mesh: Mesh
    batch_sharding: NamedSharding
    batch: dict[str, jax.ShapeDtypeStruct]
    state: state.TrainState
    shardings: state.TrainState
    init: Callable[[], Params]
    create: Callable[[Params], state.TrainState]
    programs: dict[str, tuple[Any, tuple[Any, ...]]]

    def wanted(self, config: Any) -> list[str]:
        """Names of the programs that a run of this configuration needs."""
        return list(self.programs) if config.eval.every else ["train"]

    def lower(self, name: str) -> jax.stages.Lowered:
        """Lowers a program, ready to be compiled."""
        function, arguments = self.programs[name]
        return function.lower(*arguments)


def make_plan(
    config: Any, stage: Stage, example: Mapping[str, Any], devices: Sequence[Any] | None = None
) -> Plan:
    """Plans a run.

    Args:
      config: Configuration, see `talkjax.configuration`.
      stage: Stage from `talkjax.training.stages`.
      example: Arrays or shapes of a training batch; their leading axes do not matter.
      devices: Devices of the mesh; all devices by default.

    Raises:
      UserError: Mesh, batch size, rules or optimizer do not fit each other.
    """
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, devices)
    accumulation = config.optimizer.accumulation
    sharding.check_batch_size(config.batch_size, mesh, accumulation)
    batch_sharding = sharding.batch_sharding(mesh)

    def batch_of(size: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=batch_sharding)
            for name, x in example.items()
        }

    batch = batch_of(config.batch_size)
    layout = functools.partial(
        sharding.param_specs,
        mesh=mesh,
        rules=tuple((pattern, tactic) for pattern, tactic in config.mesh.rules),
        min_size=config.mesh.fsdp_min_size,
    )
    schedule = state.make_schedule(config.optimizer, config.steps)
    optimizer = state.make_optimizer(config.optimizer, schedule)
    create = functools.partial(state.create_state, optimizer=optimizer, prefixes=stage.trainable)
    key = stream(jax.random.key(config.seed), "init")
    init = functools.partial(_init_params, stage.init, key, batch, mesh, layout)
    shapes = jax.eval_shape(lambda: create(init()))
    shardings = _state_shardings(shapes, optimizer, stage.trainable, mesh, layout)
    shapes = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        shardings,
    )

    def gathered(function: Callable[..., Any]) -> Callable[..., Any]:
        """Gathers the parameters, the first argument of a stage's function."""
        return lambda params, *rest: function(
            sharding.gather(params, shardings.params, stage.compute_type), *rest
        )

    on_mesh = {"seed": config.seed, "mesh": mesh, "shardings": shardings}
    train_step = step.make_train_step(
        gathered(stage.loss_fn),
        optimizer,
        schedule,
        trainable=stage.trainable,
        ema_decay=config.ema_decay,
        accumulation=accumulation,
        **on_mesh,
    )
    weight = jax.ShapeDtypeStruct((config.batch_size,), jnp.float32, sharding=batch_sharding)
    index = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    eval_step = step.make_eval_step(gathered(stage.eval_fn or stage.loss_fn), **on_mesh)
    programs = {
        "train": (train_step, (shapes, batch)),
        "eval": (eval_step, (shapes, batch | {"weight": weight}, index)),
    }
    if stage.preview and config.eval.pictures:
        # Pictures, too, are made on all devices: the requested number, rounded up.
        count = -(-config.eval.pictures // mesh.size) * mesh.size
        preview = step.make_preview(gathered(stage.preview), **on_mesh)
        programs["preview"] = preview, (shapes, batch_of(min(count, config.batch_size)))
    return Plan(mesh, batch_sharding, batch, shapes, shardings, init, create, programs)


def _state_shardings(
    abstract: state.TrainState,
    optimizer: optax.GradientTransformation,
    prefixes: Sequence[str],
    mesh: Mesh,
    layout: Callable[[Any], Any],
) -> state.TrainState:
    """Shardings of a whole state: whatever mirrors a parameter is sharded like it."""
    specs = layout(abstract.params)
    train, _ = state.split(specs, prefixes)
    opt_specs = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, spec: spec,
        abstract.opt_state,
        train,
        transform_non_params=lambda _: PartitionSpec(),
    )
    scalar = PartitionSpec()
    return sharding.named(mesh, state.TrainState(scalar, specs, opt_specs, train, scalar, scalar))


def _init_params(
    init: Callable[[jax.Array, Any], Params],
    key: jax.Array,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    mesh: Mesh,
    layout: Callable[[Any], Any],
) -> Params:
    """Initialises parameters straight into their shardings: no device ever holds them whole."""

    def run(key: jax.Array) -> Params:
        return init(key, {k: jnp.zeros((1, *x.shape[1:]), x.dtype) for k, x in batch.items()})

    specs = layout(jax.eval_shape(run, key))
    return jax.jit(run, out_shardings=sharding.named(mesh, specs))(key)
