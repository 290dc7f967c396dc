"""The training state as plain data, the optimiser and the moving average."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.sharding import Mesh, PartitionSpec

from talkjax.errors import UserError
from talkjax.training import sharding
from talkjax.training.stage import Params

SCHEDULES = ("cosine", "constant")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step reads and writes, and a checkpoint holds.

    Attributes:
      step: () int32, steps taken, skipped ones included: what the data and the noise go by.
      params: all parameters, frozen ones included.
      opt_state: of the trainable parameters.
      ema: moving average of the trainable parameters.
      skipped: () int32, steps whose gradient was not finite.
      skipped_in_a_row: () int32, of these the latest ones without a good step between.
    """

    step: jax.Array
    params: Params
    opt_state: Any
    ema: Params
    skipped: jax.Array
    skipped_in_a_row: jax.Array


# ---- what is trained ----------------------------------------------------------------------------


def split(params: Params, prefixes: Sequence[str]) -> tuple[Params, Params]:
    """Splits a nested dict into (trainable, frozen), the parts of the tree under `prefixes`.

    Raises:
      UserError: a prefix matches nothing.
    """
    flat = traverse_util.flatten_dict(params, sep="/")

    def under(name: str, prefix: str) -> bool:
        return not prefix or name == prefix or name.startswith(prefix + "/")

    for prefix in prefixes:
        if not any(under(name, prefix) for name in flat):
            raise UserError(
                f"trainable prefix {prefix!r} matches no parameter; there are {sorted(params)}"
            )
    train = {k: v for k, v in flat.items() if any(under(k, p) for p in prefixes)}
    frozen = {k: v for k, v in flat.items() if k not in train}
    return (
        traverse_util.unflatten_dict(train, sep="/"),
        traverse_util.unflatten_dict(frozen, sep="/"),
    )


def merge(first: Params, second: Params) -> Params:
    """The inverse of `split`; `second` wins where both have a parameter."""
    flat = traverse_util.flatten_dict(first, sep="/") | traverse_util.flatten_dict(second, sep="/")
    return traverse_util.unflatten_dict(flat, sep="/")


def averaged_params(state: TrainState) -> Params:
    """All parameters, the trained ones as their moving average: what is used and released."""
    return merge(state.params, state.ema)


# ---- optimiser ----------------------------------------------------------------------------------


def make_schedule(config: Mapping[str, Any], steps: int) -> optax.Schedule:
    """Learning rate by good (not skipped) steps: linear warm-up, then cosine or constant.

    Args:
      config: `config.optimizer`.
      steps: of the whole run; the cosine ends there.

    Raises:
      UserError: unknown schedule, or a warm-up longer than the run.
    """
    peak, warmup = float(config["learning_rate"]), int(config["warmup_steps"])
    if config["schedule"] not in SCHEDULES:
        raise UserError(
            f"optimizer.schedule={config['schedule']!r} is unknown; use one of {SCHEDULES}"
        )
    cosine = config["schedule"] == "cosine"
    if cosine and warmup >= steps:
        raise UserError(
            f"optimizer.warmup_steps={warmup} is not shorter than steps={steps}; "
            "shorten it with --config.optimizer.warmup_steps"
        )
    final = float(config["final_fraction"])

    def schedule(count: jax.Array) -> jax.Array:
        # optax's own ones mix integers and floats.
        count = jnp.asarray(count).astype(jnp.float32)
        scale = jnp.minimum((count + 1) / max(warmup, 1), 1.0)  # the first step moves, too
        if cosine:
            part = jnp.clip((count - warmup) / max(steps - warmup, 1), 0.0, 1.0)
            scale *= final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * part))
        return peak * scale

    return schedule


def make_optimizer(
    config: Mapping[str, Any], schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW; only arrays of two or more axes decay."""
    clip = float(config["clip_norm"])
    chain = optax.chain(
        optax.clip_by_global_norm(clip) if clip > 0 else optax.identity(),
        optax.adamw(
            schedule,
            b1=config["b1"],
            b2=config["b2"],
            eps=config["eps"],
            weight_decay=config["weight_decay"],
            mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
        ),
    )

    def update(*args: Any) -> Any:
        # optax mixes integers and floats, which strict promotion (in our tests) would refuse.
        with jax.numpy_dtype_promotion("standard"):
            return chain.update(*args)

    return optax.GradientTransformation(chain.init, update)


def update_ema(ema: Params, params: Params, step: jax.Array, decay: float) -> Params:
    """One step of the moving average, warmed up: min(decay, (1 + step) / (10 + step))."""
    count = step.astype(jnp.float32)
    rate = 1 - jnp.minimum(jnp.float32(decay), (1 + count) / (10 + count))
    return jax.tree.map(lambda old, new: old + rate.astype(old.dtype) * (new - old), ema, params)


# ---- creation -----------------------------------------------------------------------------------


def create(
    params: Params, optimizer: optax.GradientTransformation, prefixes: Sequence[str]
) -> TrainState:
    """A fresh state around `params`."""
    train, _ = split(params, prefixes)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(train),
        # A copy: the step donates both trees, and one buffer cannot be given away twice.
        ema=jax.tree.map(jnp.copy, train),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )


def state_shardings(
    abstract: TrainState,
    optimizer: optax.GradientTransformation,
    prefixes: Sequence[str],
    mesh: Mesh,
    rules: sharding.Rules,
    min_size: int,
) -> TrainState:
    """NamedShardings for a whole state: whatever mirrors a parameter lies where it lies.

    Args:
      abstract: the state's shapes, from `jax.eval_shape`.
      optimizer: the one the state was made with.
      prefixes: `Stage.trainable`.
      mesh: from `sharding.make_mesh`.
      rules: see `sharding.param_specs`.
      min_size: the same.

    Raises:
      UserError: as `sharding.param_specs`.
    """
    specs = sharding.param_specs(abstract.params, mesh, rules, min_size)
    train, _ = split(specs, prefixes)
    opt_specs = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, spec: spec,
        abstract.opt_state,
        train,
        transform_non_params=lambda _: PartitionSpec(),
    )
    scalar = PartitionSpec()
    return sharding.named(mesh, TrainState(scalar, specs, opt_specs, train, scalar, scalar))


def init_params(
    init: Callable[[jax.Array, Any], Params],
    key: jax.Array,
    example: Any,
    mesh: Mesh,
    rules: sharding.Rules,
    min_size: int,
) -> Params:
    """Initialises parameters straight into their shardings: no device ever holds them whole.

    Args:
      init: `Stage.init`.
      key: of the "init" stream.
      example: a batch of arrays or shapes; only shapes and dtypes (and one row) matter.
      mesh: from `sharding.make_mesh`.
      rules: see `sharding.param_specs`.
      min_size: the same.
    """
    shapes = jax.tree.map(lambda x: ((1, *x.shape[1:]), x.dtype), example, is_leaf=_is_array)

    def run(key: jax.Array) -> Params:
        batch = {name: jnp.zeros(*shape_dtype) for name, shape_dtype in shapes.items()}
        return init(key, batch)

    specs = sharding.param_specs(jax.eval_shape(run, key), mesh, rules, min_size)
    return jax.jit(run, out_shardings=sharding.named(mesh, specs))(key)


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape")
