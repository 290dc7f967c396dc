"""The train step, which all stages share, the evaluation step and the preview."""

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

    A step whose loss or gradient is not finite changes the counters only: parameters, optimizer,
    average and schedule stay where they are.

    Args:
      loss_fn: `Stage.loss_fn`.
      optimizer: Optimizer of the trainable parameters.
      schedule: Learning rate by good steps, for the metrics.
      trainable: Path prefixes, `Stage.trainable`.
      ema_decay: Decay of the moving average after its warm-up.
      accumulation: Microbatches per step. Every device takes part in each; losses, metrics and
        gradients are averaged.
      seed: Seed of the run. The step's key is its stream "train", folded with the step number.
      mesh: Mesh from `sharding.make_mesh`.
      shardings: Shardings of the state.

    Returns:
      The step. Its metrics are the stage's and "loss", "grad_norm" (before clipping),
      "learning_rate", "skipped" and "skipped_in_a_row": () float32, replicated.
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
        microbatches = NamedSharding(mesh, PartitionSpec(None, sharding.AXES))

        def to_microbatches(x: jax.Array) -> jax.Array:
            # Every n-th row, not a run of rows, so that each device keeps its own.
            x = x.reshape(x.shape[0] // accumulation, accumulation, *x.shape[1:])
            return jax.lax.with_sharding_constraint(x.swapaxes(0, 1), microbatches)

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
        # The compiler averages over devices; this shards the result like the parameters.
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

    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        sharding.on_mesh(mesh, train_step),
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
    )


def make_eval_step(
    loss_fn: LossFn, *, seed: int, mesh: Mesh, shardings: state.TrainState
) -> Callable[[state.TrainState, Batch, jax.Array], Metrics]:
    """Builds the jitted step (state, batch, index) -> metrics, with the averaged parameters.

    The noise depends on the batch's index, so that evaluations at different steps compare. The
    metrics are means over the batch under its `weight`, whose sum is the metric "weight".
    """

    def eval_step(current: state.TrainState, batch: Batch, index: jax.Array) -> Metrics:
        params = state.averaged_params(current)
        loss, metrics = loss_fn(params, batch, stream(jax.random.key(seed), "eval", index))
        metrics = {**metrics, "loss": loss, "weight": batch["weight"].sum()}
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), metrics)

    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        sharding.on_mesh(mesh, eval_step),
        in_shardings=(shardings, sharding.batch_sharding(mesh), replicated),
        out_shardings=replicated,
    )


def make_preview(
    preview: Callable[[Params, Batch, jax.Array], dict[str, jax.Array]],
    *,
    seed: int,
    mesh: Mesh,
    shardings: state.TrainState,
) -> Callable[[state.TrainState, Batch], dict[str, jax.Array]]:
    """Builds the jitted function (state, batch) -> pictures, replicated on every device."""

    def run(current: state.TrainState, batch: Batch) -> dict[str, jax.Array]:
        key = stream(jax.random.key(seed), "preview")
        return preview(state.averaged_params(current), batch, key)

    return jax.jit(
        sharding.on_mesh(mesh, run),
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
