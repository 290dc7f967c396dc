"""The training run: mesh, data, state, one compiled step, resumption, and what is written down.

A run's directory holds `config.json`, `checkpoints/`, `metrics.jsonl` (one JSON object a line) and
`samples/STEP.png`. Started again with the same arguments, a run goes on from its newest checkpoint
to bit-identical losses: noise goes by the step, and the position of the data is in the checkpoint.
"""

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from talkjax import pictures, runs
from talkjax.errors import UserError
from talkjax.training import checkpoints, metrics, plan, sharding, state, step
from talkjax.training.stage import Stage

# (split) -> batches of this process: for "train" endless, with get_state and set_state; for
# "validation", which stands for any held-out data, one pass, the same whenever iterated.
MakeData = Callable[[str], Iterable[dict[str, np.ndarray]]]
EVAL_ONLY = ("clip", "start", "weight")  # what held-out batches have besides


def train(config: Any, workdir: str | os.PathLike, stage: Stage, make_data: MakeData) -> bool:
    """Trains, or goes on training, to `config.steps`.

    Args:
      config: see `configs/base.py`.
      workdir: of the run; with several processes one that all of them see.
      stage: from `talkjax.training.stages.build`.
      make_data: see `MakeData`.

    Returns:
      Whether it was ended early by SIGTERM (then a checkpoint of the last step is saved).

    Raises:
      UserError: the config, the data or a checkpoint does not allow it; too many steps in a row
        had a gradient that was not finite.
    """
    workdir = Path(workdir)
    first = jax.process_index() == 0
    say = functools.partial(print, flush=True) if first else lambda *_: None
    bar = first and sys.stderr.isatty()

    def warn(words: str) -> None:
        if first:
            print(f"warning: {words}", file=sys.stderr, flush=True)

    # -- data, mesh, shapes
    iterator = iter(make_data("train"))
    planned = plan.make(config, stage, _peek(iterator))
    say(
        f"{jax.device_count()} {jax.devices()[0].device_kind} devices, mesh "
        f"{dict(planned.mesh.shape)}, {jax.process_count()} process(es); stage {config.stage}, "
        f"batch {config.batch_size}"
    )

    # -- state
    keep = config.checkpoint.keep_latest, config.checkpoint.keep_best
    with (
        checkpoints.full_disk_explained(workdir),
        contextlib.closing(checkpoints.open_manager(workdir, *keep)) as manager,
    ):
        if manager.latest_step() is not None:
            checkpoints.check_config(workdir, config)
        current = checkpoints.restore_newest(manager, planned.state, iterator, warn)
        if current is not None:
            say(f"resumed {workdir} at step {int(current.step)}")
        else:
            params = checkpoints.insert(planned.init(), stage.pretrained, "published weights")
            params = checkpoints.warm_start(params, config.init_from)
            current = jax.jit(planned.create, out_shardings=planned.shardings)(params)
            del params
            if first:
                runs.write_config(workdir, config)
        done = int(current.step)
        writer = metrics.Writer(workdir / "metrics.jsonl", done) if first else metrics.Silent()
        trained, total = (
            sum(x.size for x in jax.tree.leaves(t)) for t in (current.ema, current.params)
        )
        say(f"{trained:,} of {total:,} parameters are trained")
        if done >= config.steps:
            say(f"nothing to do: {workdir} is at step {done} of {config.steps}")
            return False

        # -- compile before anything else can go wrong
        started = time.perf_counter()
        compiled = planned.train_step.lower(planned.state, planned.batch).compile()
        costs = metrics.compiled_costs(compiled) | {"compile_s": time.perf_counter() - started}
        say(metrics.describe_costs(costs))
        evaluate = _evaluation(config, workdir, stage, make_data, planned, writer, say)

        # -- the loop
        clock = metrics.Clock(config.batch_size, costs["flops"])
        in_flight: list[jax.Array] = []
        progress = metrics.Progress(done, config.steps, say, bar)
        with _sigterm(manager) as asked_to_stop, progress as shown:
            while done < config.steps:
                with clock.waiting():
                    batch = next(iterator, None)
                if batch is None:
                    raise UserError(f"the training data ended at step {done}; it must be endless")
                placed = sharding.place_batch(batch, planned.rows)
                with jax.transfer_guard("disallow"):
                    current, numbers = compiled(current, placed)
                done += 1
                # Let the host run ahead a little, not without bound: batches wait in memory.
                in_flight = [*in_flight[-1:], numbers["skipped_in_a_row"]]
                limit = config.max_skipped_in_a_row
                _check_skipped(float(in_flight[0]), done + 1 - len(in_flight), limit)

                stop, last = asked_to_stop(done), done == config.steps
                if stop or last or clock.steps == 0 or done % config.log.every == 0:
                    row = {name: float(x) for name, x in jax.device_get(numbers).items()}
                    row = {"step": done, **row, **clock.lap(done), **costs}
                    costs = {}  # in the first line only
                    warning = stage.watch(row) if stage.watch else None
                    writer.write(row | ({"warning": warning} if warning else {}))
                    shown.show(row)
                    if warning:
                        warn(f"step {done}: {warning}")
                    _check_skipped(row["skipped_in_a_row"], done, limit)
                scores = None
                if config.eval.every and (last or done % config.eval.every == 0) and not stop:
                    scores = evaluate(current, done)
                regular = done % config.checkpoint.every == 0
                # Whatever makes steps fail, checkpoints from before it must not give way.
                if stop or last or (regular and not numbers["skipped_in_a_row"]):
                    checkpoints.save(manager, done, current, iterator, scores)
                if scores or stop:
                    clock.reset(done)
                if stop:
                    break
        manager.wait_until_finished()
        _close(iterator)
    say(f"saved {workdir} at step {done}" + ("; stopped by SIGTERM" if stop else ""))
    return stop


def _peek(iterator: Iterator) -> dict[str, np.ndarray]:
    """The first batch, the iterator left as it was."""
    before = iterator.get_state()
    batch = next(iterator, None)
    if batch is None:
        raise UserError("the training data is empty; prepare some clips or lower batch_size")
    iterator.set_state(before)
    return batch


def _close(iterator: Any) -> None:
    """Ends an iterator's threads and processes."""
    if hasattr(iterator, "close"):
        iterator.close()


def _check_skipped(in_a_row: float, step: int, limit: int) -> None:
    if in_a_row > limit:
        raise UserError(
            f"the last {in_a_row:.0f} steps before step {step} had a loss or gradient that was not "
            "finite; lower --config.optimizer.learning_rate or look at the data (checkpoints from "
            "before are kept)"
        )


@contextlib.contextmanager
def _sigterm(manager: Any) -> Iterator[Callable[[int], bool]]:
    """Yields step -> whether to save and stop now; in every process at the same step."""
    if jax.process_count() > 1:
        # JAX's coordination service catches the signal and agrees on the step.
        yield manager.reached_preemption
        return
    caught = []
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: caught.append(True))
    except ValueError:  # not the main thread: whoever runs us has to do without
        yield lambda _: False
        return
    try:
        yield lambda _: bool(caught)
    finally:
        signal.signal(signal.SIGTERM, before)


def _evaluation(
    config: Any,
    workdir: Path,
    stage: Stage,
    make_data: MakeData,
    planned: plan.Plan,
    writer: metrics.Writer,
    say: Callable[..., None],
) -> Callable[[state.TrainState, int], dict[str, float] | None]:
    """Builds (state, step) -> mean metrics on held-out data; writes them, and pictures, down."""
    if not config.eval.every:
        return lambda *_: None
    mesh, rows, shardings = planned.mesh, planned.rows, planned.shardings
    data = make_data("validation")
    eval_fn = stage.eval_fn or stage.loss_fn
    run = step.make_eval_step(eval_fn, seed=config.seed, mesh=mesh, shardings=shardings)
    draw = None
    if stage.preview and config.eval.pictures:
        draw = step.make_preview(stage.preview, seed=config.seed, mesh=mesh, shardings=shardings)
    # Pictures, too, are made on all devices: as many of them as are asked for, or one each.
    shown = -(-max(config.eval.pictures, 1) // mesh.size) * mesh.size // jax.process_count()

    def evaluate(current: state.TrainState, done: int) -> dict[str, float] | None:
        totals, count = {}, 0
        iterator = iter(data)
        for index in range(config.eval.batches):
            batch = next(iterator, None)
            if batch is None:
                break
            batch = {name: x for name, x in batch.items() if name not in EVAL_ONLY}
            placed = sharding.place_batch(batch, rows)
            numbers = jax.device_get(run(current, placed, np.int32(index)))
            totals = {name: totals.get(name, 0.0) + float(x) for name, x in numbers.items()}
            count += 1
            if draw and index == 0:
                few = {name: x[:shown] for name, x in batch.items()}
                columns = jax.device_get(draw(current, sharding.place_batch(few, rows)))
                if jax.process_index() == 0:
                    # Under jit a dict comes back sorted by name; the truth belongs first.
                    names = sorted(columns, key=lambda name: (name != "truth", name))
                    columns = {name: columns[name][: config.eval.pictures] for name in names}
                    path = workdir / "samples" / f"{done:08d}.png"
                    pictures.write_png(path, pictures.grid(columns), " | ".join(columns))
        _close(iterator)
        if not count:
            raise UserError("the held-out split is empty; prepare one or set --config.eval.every=0")
        scores = {name: total / count for name, total in totals.items()}
        writer.write({"step": done, **{f"eval_{name}": x for name, x in scores.items()}})
        say(f"step {done}: " + ", ".join(f"eval_{name} {x:.4g}" for name, x in scores.items()))
        return scores

    return evaluate
