"""The training run: data, mesh, state, compiled programs, the loop, evaluation and resumption.

A run's directory holds `config.json`, `checkpoints/`, `metrics.jsonl` (one JSON object per line)
and `samples/STEP.png`; `tensorboard/` and `profile/` if asked for. Started again with the same
arguments, a run resumes from its newest checkpoint with bit-identical losses: noise depends on the
step alone, and the position of the data is in the checkpoint.
"""

import contextlib
import functools
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from talkjax import files, pictures, runs
from talkjax.errors import UserError
from talkjax.training import (
    checkpoints,
    costs,
    input,
    metrics,
    plan,
    profiler,
    sharding,
    state,
    tensorboard,
)
from talkjax.training.stage import Params, Stage

_NOT_TRAINED_ON = ("clip", "start")  # what held-out batches hold besides


def train(
    config: Any,
    workdir: files.PathLike,
    stage: Stage,
    make_data: input.MakeData,
    load_initial: Callable[[], Params] = dict,
    should_stop: Callable[[Mapping[int, float]], bool] = lambda _: False,
    profile: tuple[int, int] | None = None,
) -> bool:
    """Trains, or resumes training, up to `config.steps`.

    Args:
      config: Configuration, see `talkjax.configuration`.
      workdir: Directory of the run, local or in a bucket; with several processes, one that all of
        them see.
      stage: Stage from `talkjax.training.stages`.
      make_data: See `input.MakeData`.
      load_initial: () -> {network: params} that replace the initialisation of a new run.
      should_stop: ({step: evaluation loss} so far) -> whether to end early; called after every
        step. With several processes, it must give the same answer in all of them.
      profile: First and last step of a trace by JAX's profiler, see `profiler.Recorder`.

    Returns:
      Whether SIGTERM ended the run early. The last step is saved however a run ends.

    Raises:
      UserError: Configuration, data or a checkpoint do not allow it, another process trains in
        `workdir`, or too many steps in a row had a gradient that was not finite.
    """
    workdir = files.as_path(workdir)
    first = jax.process_index() == 0
    say = functools.partial(print, flush=True) if first else lambda *_: None

    def warn(message: str) -> None:
        if first:
            print(f"warning: {message}", file=sys.stderr, flush=True)

    with contextlib.ExitStack() as stack:
        stack.enter_context(checkpoints.full_disk_explained(workdir))
        if first:
            remedy = "wait until it has ended, or choose another --workdir"
            stack.enter_context(files.held(workdir, remedy))

        # -- data, mesh, shapes
        iterator = stack.enter_context(contextlib.closing(iter(make_data("train"))))
        planned = plan.make_plan(config, stage, _peek(iterator))
        say(
            f"{jax.device_count()} {jax.devices()[0].device_kind} devices, mesh "
            f"{dict(planned.mesh.shape)}, {jax.process_count()} process(es); stage "
            f"{config.stage}, batch {config.batch_size}"
        )
        if problem := costs.find_problem(costs.step_costs(planned, {})):
            warn(problem)  # without temporaries, which are known after compilation

        # -- state
        losses = metrics.evaluation_losses(workdir / metrics.FILE)
        keep = config.checkpoint.keep_latest, config.checkpoint.keep_best
        manager = checkpoints.open_manager(workdir, *keep, losses)
        stack.enter_context(contextlib.closing(manager))
        if manager.latest_step() is not None:
            checkpoints.check_config(workdir, config)
        current = checkpoints.restore_newest(manager, planned.state, iterator, warn)
        if current is not None:
            say(f"resumed {workdir} at step {int(current.step)}")
        else:
            params = checkpoints.insert(planned.init(), load_initial(), "what the run starts from")
            current = jax.jit(planned.create, out_shardings=planned.shardings)(params)
            del params
            if first:
                runs.write_config(workdir, config)
        done = int(current.step)
        for step in [step for step in losses if step > done]:
            del losses[step]  # of a checkpoint that turned out to be damaged
        input.check_encoder(config, current.params)
        writers = [metrics.Writer(workdir / metrics.FILE, done)] if first else []
        if first and config.log.tensorboard:
            writers.append(tensorboard.EventWriter(workdir, done))
        writer = stack.enter_context(contextlib.closing(metrics.Several(*writers)))
        trained, total = (
            sum(x.size for x in jax.tree.leaves(t)) for t in (current.ema, current.params)
        )
        say(f"{trained:,} of {total:,} parameters are trained")

        last = done >= config.steps or should_stop(losses)

        def evaluation_is_due() -> bool:
            every = config.eval.every
            due = bool(every) and (done % every == 0 or last)
            return due and done > 0 and done not in losses

        if last and not evaluation_is_due():
            say(f"nothing to do: {workdir} is at step {done} of {config.steps}")
            return False

        # -- compile every program before anything else can fail
        started = time.perf_counter()
        compiled = {name: planned.lower(name).compile() for name in planned.wanted(config)}
        cost = costs.step_costs(planned, compiled)
        cost["compile_s"] = time.perf_counter() - started
        say(costs.describe(cost))
        if problem := costs.find_problem(cost):
            warn(problem)
        evaluate = functools.partial(_evaluate, config, make_data, planned, compiled, writer, say)
        if evaluation_is_due():  # the run was killed between a save and its evaluation
            losses[done] = evaluate(current, done)["loss"]

        # -- the loop
        clock = metrics.Clock(config.batch_size, cost["flops"])
        stack.enter_context(contextlib.closing(clock))
        recorder = profiler.Recorder(profile, workdir, done, say, warn)
        stack.enter_context(recorder)
        in_flight: list[jax.Array] = []
        bar = first and sys.stderr.isatty()
        shown = stack.enter_context(metrics.Progress(done, config.steps, say, bar))
        asked_to_stop = stack.enter_context(_sigterm(manager))
        stop = False
        while not (last or stop):
            recorder.before(done + 1, current.step)
            with jax.profiler.StepTraceAnnotation("train", step_num=done + 1):
                with clock.waiting():
                    batch = next(iterator, None)
                if batch is None:
                    raise UserError(f"the training data ended at step {done}; it must be endless")
                placed = sharding.place_batch(batch, planned.batch_sharding)
                with jax.transfer_guard("disallow"):
                    current, numbers = compiled["train"](current, placed)
            done += 1
            clock.dispatched(numbers["loss"])
            recorder.after(done, numbers)
            # The host may run ahead a little, but not without bound: batches wait in memory.
            in_flight = [*in_flight[-1:], numbers["skipped_in_a_row"]]
            limit = config.max_skipped_in_a_row
            _check_skipped(float(in_flight[0]), done + 1 - len(in_flight), limit)

            stop = asked_to_stop(done)
            last = done == config.steps or should_stop(losses)
            if stop or last or clock.steps == 0 or done % config.log.every == 0:
                row = {name: float(x) for name, x in jax.device_get(numbers).items()}
                row = {"step": done, **row, **clock.lap(done), **cost}
                cost = {}  # in the first line only
                warning = stage.find_problem(row) if stage.find_problem else None
                writer.write(row | ({"warning": warning} if warning else {}))
                shown.show(row)
                if warning:
                    warn(f"step {done}: {warning}")
                _check_skipped(row["skipped_in_a_row"], done, limit)
            due = done % config.checkpoint.every == 0
            due |= bool(config.eval.every) and done % config.eval.every == 0
            # Whatever makes steps fail, it must not displace the checkpoints from before it.
            if stop or last or (due and not numbers["skipped_in_a_row"]):
                checkpoints.save(manager, done, current, iterator)
            if evaluation_is_due() and not stop:
                losses[done] = evaluate(current, done)["loss"]
                clock.reset(done)
        manager.wait_until_finished()
    say(f"saved {workdir} at step {done}" + ("; stopped by SIGTERM" if stop else ""))
    return stop


def _peek(iterator: Iterator) -> dict[str, np.ndarray]:
    """Returns the first batch and leaves the iterator where it was."""
    before = iterator.get_state()
    batch = next(iterator, None)
    if batch is None:
        raise UserError("the training data is empty; prepare some clips or lower batch_size")
    iterator.set_state(before)
    return batch


def _check_skipped(in_a_row: float, step: int, limit: int) -> None:
    if in_a_row > limit:
        raise UserError(
            f"the last {in_a_row:.0f} steps before step {step} had a loss or gradient that was not "
            "finite; lower --config.optimizer.learning_rate or check the data (checkpoints from "
            "before are kept)"
        )


@contextlib.contextmanager
def _sigterm(manager: Any) -> Iterator[Callable[[int], bool]]:
    """Yields (step) -> whether to save and stop now; in every process at the same step."""
    if jax.process_count() > 1:
        # JAX's coordination service catches the signal and agrees on the step.
        yield manager.reached_preemption
        return
    caught = []
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: caught.append(True))
    except ValueError:  # not the main thread, which alone may handle signals
        yield lambda _: False
        return
    try:
        yield lambda _: bool(caught)
    finally:
        signal.signal(signal.SIGTERM, before)


def _evaluate(
    config: Any,
    make_data: input.MakeData,
    planned: plan.Plan,
    compiled: dict[str, Any],
    writer: metrics.Several,
    say: Callable[..., None],
    current: state.TrainState,
    done: int,
) -> dict[str, float]:
    """Evaluates the averaged parameters on held-out data; writes means and a picture grid."""
    totals: dict[str, float] = {}
    with contextlib.closing(iter(make_data("validation"))) as iterator:
        for index in range(config.eval.batches):
            batch = next(iterator, None)
            if batch is None:
                break
            everything = np.ones(len(next(iter(batch.values()))), np.float32)
            batch = {"weight": everything} | batch
            batch = {name: x for name, x in batch.items() if name not in _NOT_TRAINED_ON}
            placed = sharding.place_batch(batch, planned.batch_sharding)
            numbers = jax.device_get(compiled["eval"](current, placed, np.int32(index)))
            weight = float(numbers.pop("weight"))
            for name, x in (numbers | {"weight": 1.0}).items():
                totals[name] = totals.get(name, 0.0) + float(x) * weight
            if "preview" in compiled and index == 0:
                _draw(config, planned, compiled["preview"], writer, current, batch, done)
    weight = totals.pop("weight", 0.0)
    if not weight:
        raise UserError("the held-out split is empty; prepare one or set --config.eval.every=0")
    means = {name: total / weight for name, total in totals.items()}
    writer.write({"step": done, **{f"eval_{name}": x for name, x in means.items()}})
    say(f"step {done}: " + ", ".join(f"eval_{name} {x:.4g}" for name, x in means.items()))
    return means


def _draw(
    config: Any,
    planned: plan.Plan,
    preview: Any,
    writer: metrics.Several,
    current: state.TrainState,
    batch: dict[str, np.ndarray],
    done: int,
) -> None:
    """Writes the picture grid of a held-out batch's first samples."""
    _, (_, shapes) = planned.programs["preview"]
    batch = {
        name: batch[name][: shape.shape[0] // jax.process_count()] for name, shape in shapes.items()
    }
    placed = sharding.place_batch(batch, planned.batch_sharding)
    columns = jax.device_get(preview(current, placed))
    if jax.process_index() == 0:
        # Under jit a dict comes back sorted by name; the truth belongs first.
        names = sorted(columns, key=lambda name: (name != "truth", name))
        columns = {name: columns[name][: config.eval.pictures] for name in names}
        writer.write_pictures(done, pictures.grid(columns), " | ".join(columns))
