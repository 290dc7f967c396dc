"""The training state as plain data, the optimizer and the moving average."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from talkjax.errors import UserError
from talkjax.training.stage import Params

SCHEDULES = ("cosine", "constant")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step reads and writes, and that a checkpoint holds.

    Attributes:
      step: () int32. Number of steps taken, skipped ones included; data and noise depend on it.
      params: All parameters, frozen ones included.
      opt_state: Optimizer state of the trainable parameters.
      ema: Moving average of the trainable parameters.
      skipped: () int32. Number of steps whose gradient was not finite.
      skipped_in_a_row: () int32. How many of the latest steps in a row were skipped.
    """

    step: jax.Array
    params: Params
    opt_state: Any
    ema: Params
    skipped: jax.Array
    skipped_in_a_row: jax.Array


# ---- what is trained ----------------------------------------------------------------------------


def split(params: Params, prefixes: Sequence[str]) -> tuple[Params, Params]:
    """Splits parameters into (trainable, frozen): what lies under one of `prefixes`, and the rest.

    Raises:
      UserError: A prefix matches nothing.
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
    """Joins two trees, the inverse of `split`; `second` wins where both have a parameter."""
    flat = traverse_util.flatten_dict(first, sep="/") | traverse_util.flatten_dict(second, sep="/")
    return traverse_util.unflatten_dict(flat, sep="/")


def averaged_params(state: TrainState) -> Params:
    """Returns all parameters, the trained ones as their moving average, as they are released."""
    return merge(state.params, state.ema)


# ---- optimiser ----------------------------------------------------------------------------------


def make_schedule(config: Mapping[str, Any], steps: int) -> optax.Schedule:
    """Returns the learning rate by good steps: linear warm-up, then cosine or constant.

    A step is good if it was not skipped.

    Args:
      config: `config.optimizer`.
      steps: Length of the whole run, where the cosine ends.

    Raises:
      UserError: The schedule is unknown, or the warm-up is longer than the run.
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
        # optax's own schedules mix integers and floats.
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
    """Returns AdamW after clipping by global norm; only arrays of two or more axes decay."""
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
        # optax mixes integers and floats, which strict promotion in the tests would refuse.
        with jax.numpy_dtype_promotion("standard"):
            return chain.update(*args)

    return optax.GradientTransformation(chain.init, update)


def update_ema(ema: Params, params: Params, step: jax.Array, decay: float) -> Params:
    """Updates the moving average at the warmed-up rate min(decay, (1 + step) / (10 + step))."""
    count = step.astype(jnp.float32)
    rate = 1 - jnp.minimum(jnp.float32(decay), (1 + count) / (10 + count))
    return jax.tree.map(lambda old, new: old + rate.astype(old.dtype) * (new - old), ema, params)


# ---- creation -----------------------------------------------------------------------------------


def create_state(
    params: Params, optimizer: optax.GradientTransformation, prefixes: Sequence[str]
) -> TrainState:
    """Returns a fresh state with these parameters."""
    train, _ = split(params, prefixes)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(train),
        # A copy: the step donates both trees, and a buffer cannot be donated twice.
        ema=jax.tree.map(jnp.copy, train),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
    )
