"""The one train step, for every stage, and its evaluation counterpart."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from talkjax.training import sharding, state
from talkjax.training.rng import stream
from talkjax.training.stage import Batch, Metrics, Params

LossFn = Callable[[Params, Batch, jax.Array], tuple[jax.Array, Metrics]]


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    trainable: Sequence[str],
    ema_decay: float,
    accumulation: int,
    seed: int,
    mesh: Mesh,
    shardings: state.TrainState,
) -> Callable[[state.TrainState, Batch], tuple[state.TrainState, Metrics]]:
    """Builds the jitted step (state, batch) -> (state, metrics); the old state is donated.

    A step whose loss or gradient is not finite changes nothing but the counters: neither
    parameters nor optimiser nor average take part, and the schedule stands still.

    Args:
      loss_fn: `Stage.loss_fn`.
      optimizer: over the trainable parameters.
      schedule: learning rate by good steps, for the metrics.
      trainable: path prefixes, `Stage.trainable`.
      ema_decay: of the moving average, once warmed up.
      accumulation: microbatches per step. Every device takes part in each; their losses,
        metrics and gradients are averaged.
      seed: the run's; the step takes its key's "train" stream, then the step number.
      mesh: from `sharding.make_mesh`.
      shardings: from `state.state_shardings`.

    Returns:
      The step. Its metrics are the stage's, and "loss", "grad_norm" (before clipping),
      "learning_rate", "skipped" and "skipped_in_a_row": () float32, on every device.
    """

    def loss_and_grad(train: Params, frozen: Params, batch: Batch, key: jax.Array) -> Any:
        def loss_of(train: Params) -> tuple[jax.Array, Metrics]:
            loss, metrics = loss_fn(state.merge(frozen, train), batch, key)
            return loss, {**metrics, "loss": loss}

        (_, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(train)
        return metrics, grads

    def accumulated(train: Params, frozen: Params, batch: Batch, key: jax.Array) -> Any:
        if accumulation == 1:
            return loss_and_grad(train, frozen, batch, key)
        rows = NamedSharding(mesh, PartitionSpec(None, sharding.AXES))

        def to_microbatches(x: jax.Array) -> jax.Array:
            # Every accumulation-th row, not a run of rows: each device keeps to its own.
            x = x.reshape(x.shape[0] // accumulation, accumulation, *x.shape[1:])
            return jax.lax.with_sharding_constraint(x.swapaxes(0, 1), rows)

        def body(total: Any, inputs: tuple[jax.Array, Batch]) -> tuple[Any, None]:
            index, micro = inputs
            part = loss_and_grad(train, frozen, micro, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, part), None

        micro = jax.tree.map(to_microbatches, batch)
        one = jax.tree.map(lambda x: x[0], micro)
        shapes = jax.eval_shape(loss_and_grad, train, frozen, one, key)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(body, zeros, (jnp.arange(accumulation), micro))
        return jax.tree.map(lambda x: x / accumulation, total)

    def train_step(old: state.TrainState, batch: Batch) -> tuple[state.TrainState, Metrics]:
        train, frozen = state.split(old.params, trainable)
        key = stream(jax.random.key(seed), "train", old.step)
        metrics, grads = accumulated(train, frozen, batch, key)
        # The average over devices is the compiler's; splitting it like the parameters is ours.
        grads = jax.lax.with_sharding_constraint(grads, shardings.ema)
        norm = optax.global_norm(grads)
        good = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
        good_steps = old.step - old.skipped

        updates, opt_state = optimizer.update(grads, old.opt_state, train)
        train_new = optax.apply_updates(train, updates)
        ema = state.update_ema(old.ema, train_new, good_steps, ema_decay)

        def keep(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

        bad = (~good).astype(jnp.int32)
        new = state.TrainState(
            step=old.step + 1,
            params=state.merge(frozen, keep(train_new, train)),
            opt_state=keep(opt_state, old.opt_state),
            ema=keep(ema, old.ema),
            skipped=old.skipped + bad,
            skipped_in_a_row=(old.skipped_in_a_row + bad) * bad,
        )
        metrics |= {
            "grad_norm": norm,
            "learning_rate": schedule(good_steps),
            "skipped": new.skipped,
            "skipped_in_a_row": new.skipped_in_a_row,
        }
        return new, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), metrics)

    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        sharding.on_mesh(mesh, train_step),
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, everywhere),
        donate_argnums=0,
    )


def make_eval_step(
    loss_fn: LossFn, *, seed: int, mesh: Mesh, shardings: state.TrainState
) -> Callable[[state.TrainState, Batch, jax.Array], Metrics]:
    """Builds the jitted (state, batch, index) -> metrics, on the averaged parameters.

    The noise goes by the batch's index, so that evaluations at different steps compare.
    """

    def eval_step(current: state.TrainState, batch: Batch, index: jax.Array) -> Metrics:
        params = state.averaged_params(current)
        loss, metrics = loss_fn(params, batch, stream(jax.random.key(seed), "eval", index))
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), {**metrics, "loss": loss})

    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        sharding.on_mesh(mesh, eval_step),
        in_shardings=(shardings, sharding.batch_sharding(mesh), everywhere),
        out_shardings=everywhere,
    )


def make_preview(
    preview: Callable[[Params, Batch, jax.Array], dict[str, jax.Array]],
    *,
    seed: int,
    mesh: Mesh,
    shardings: state.TrainState,
) -> Callable[[state.TrainState, Batch], dict[str, jax.Array]]:
    """Builds the jitted (state, batch) -> pictures, each whole on every device."""

    def run(current: state.TrainState, batch: Batch) -> dict[str, jax.Array]:
        key = stream(jax.random.key(seed), "preview")
        return preview(state.averaged_params(current), batch, key)

    return jax.jit(
        sharding.on_mesh(mesh, run),
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
