"""Kills a training run at random moments, again and again, and checks that nothing is lost.

    uv run -m benchmarks.crash [--kills=200] [--seed=0] [--data=SHARDS] [--dir=DIR] [--report=FILE]

A tiny landmark stage trains on tiny shards: `train.py` itself, on real files, with real
checkpoints. Every attempt is a process of its own and dies by SIGKILL at a random moment of a
random phase (opening data, restoring, compiling, a step, a save, ...); the next one goes on from
what it left. When a run has come to its end, another begins. Checked are

- after every kill: no complete checkpoint was lost, and the next attempt goes on from the newest;
- at the end of every run: all numbers in metrics.jsonl and the last training state are those of a
  run that nobody disturbed, to the last bit, and the directory holds the same checkpoints and
  files and nothing else.

The undisturbed run and the end of the last one are `python train.py`. The attempts in between are
forked from this process, which has imported the same modules but started no device: that saves
each of them the seconds of importing. In them, the functions that the loop calls tell which phase
it is in. Prints how many kills hit which phase; exit code 1 if anything was lost, or if no kill hit
a save.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp

from talkjax import commands, runs
from talkjax.data import loader
from talkjax.training import checkpoints, command, loop, metrics, stages

ROOT = Path(__file__).resolve().parents[1]
IMPORTED_FOR_THE_ATTEMPTS = (loader, stages)  # train.py imports them when it needs them
ITEMS = ("data", "state")  # of a complete checkpoint
# What differs between runs that compute the same: times, and where a process started.
TIMES = {"step_s", "data_wait_s", "samples_per_s", "tflops_per_device", "compile_s", "flops",
         "argument_bytes", "temporary_bytes"}  # fmt: skip
LONGEST = 300.0  # seconds that an attempt may take
CONFIG = [
    "--config=configs/demo_64.py:landmark",
    "--config.dtype=float32",
    "--config.landmark.features=16",
    "--config.landmark.layers=1",
    "--config.landmark.heads=2",
    "--config.steps=30",
    "--config.batch_size=4",
    "--config.optimizer.warmup_steps=2",
    "--config.log.every=1",
    "--config.checkpoint.every=5",
    "--config.eval.every=10",
    "--config.eval.batches=1",
    "--config.data.memory_limit=0",  # every sample is read from the shards: fetching takes time
    "--config.data.num_threads=1",
    "--config.data.prefetch=1",
]


class LostError(Exception):
    """Something that a killed run should have kept, or left behind."""


# ---- phases -------------------------------------------------------------------------------------

# What an attempt does, by the byte that it sends when it begins to.
PHASES = {
    b"b": "begin",
    b"d": "open data",
    b"r": "restore or init",
    b"c": "compile",
    b"f": "fetch",
    b"s": "step",
    b"w": "save",  # what the steps wait for; the rest goes on beside them
    b"e": "evaluate",
}
OFTEN = {"fetch": 20, "step": 20, "save": 4, "evaluate": 2}  # how often an attempt comes to them


def tell_phases(send: Callable[[bytes], Any]) -> None:
    """Makes the functions that begin a phase of the loop say so, in this process for good."""

    def telling(function: Callable[..., Any], mark: bytes) -> Callable[..., Any]:
        def told(*args: Any, **kwargs: Any) -> Any:
            send(mark)
            return function(*args, **kwargs)

        return told

    class Clock(metrics.Clock):
        @contextlib.contextmanager
        def waiting(self) -> Iterator[None]:
            send(b"f")
            with super().waiting():
                yield
            send(b"s")

    loop._evaluate = telling(loop._evaluate, b"e")
    metrics.Writer = telling(metrics.Writer, b"c")  # the last thing before
    checkpoints.open_manager = telling(checkpoints.open_manager, b"r")
    checkpoints.save = telling(checkpoints.save, b"w")
    loop.train = telling(loop.train, b"d")
    metrics.Clock = Clock


# ---- attempts -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Plan:
    """When to kill: `delay` seconds after `phase` begins for the `occurrence`-th time."""

    phase: str
    occurrence: int
    delay: float


@dataclasses.dataclass(frozen=True)
class Attempt:
    """How one went: (phase, second at which it began), the exit code, what was printed."""

    marks: list[tuple[str, float]]
    code: int
    output: str

    @property
    def killed(self) -> bool:
        """Whether the plan's moment came before the end."""
        return self.code == -signal.SIGKILL

    @property
    def resumed_at(self) -> int | None:
        """The step it went on from; None if it did not come so far, or began anew."""
        found = re.search(r"^resumed .* at step (\d+)$", self.output, re.M)
        return int(found[1]) if found else None


def attempt(arguments: Sequence[str], plan: Plan | None) -> Attempt:
    """Trains in a forked process, which is killed as planned."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as log, open(reading, "rb", buffering=0) as pipe:
        begun = time.perf_counter()
        pid = os.fork()
        if not pid:
            _train_forked(arguments, writing, log.fileno())
        os.close(writing)
        marks, last = [], begun + LONGEST
        while True:
            ready = select.select([pipe], [], [], max(last - time.perf_counter(), 0))[0]
            if not ready:
                os.kill(pid, signal.SIGKILL)
                last = begun + 2 * LONGEST  # read what is left in the pipe
                continue
            sent = pipe.read(4096)
            if not sent:
                break
            for index in range(len(sent)):
                marks.append((PHASES[sent[index : index + 1]], time.perf_counter() - begun))
                if plan and [name for name, _ in marks].count(plan.phase) == plan.occurrence:
                    last = min(last, time.perf_counter() + plan.delay)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        log.seek(0)
        return Attempt(marks, code, log.read().decode())


def _train_forked(arguments: Sequence[str], pipe: int, log: int) -> NoReturn:
    code = 1
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        tell_phases(lambda mark: os.write(pipe, mark))
        os.write(pipe, b"b")
        code = commands.run_main(command.main, arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def make_plan(rng: np.random.Generator, lengths: dict[str, float]) -> Plan:
    """A random moment of a random phase; every phase is as likely."""
    phase = str(rng.choice(list(PHASES.values())))
    return Plan(
        phase, int(rng.integers(1, 1 + OFTEN.get(phase, 1))), rng.uniform(0, lengths[phase])
    )


def phase_lengths(undisturbed: Attempt) -> dict[str, float]:
    """The mean length of every phase, seconds; a save's until the next one begins."""
    times: dict[str, list[float]] = collections.defaultdict(list)
    for (phase, start), (_, end) in zip(undisturbed.marks, undisturbed.marks[1:], strict=False):
        times[phase].append(end - start)
    saves = [start for phase, start in undisturbed.marks if phase == "save"]
    return {phase: float(np.mean(t)) for phase, t in times.items()} | {
        "save": float(np.mean(np.diff(saves)))
    }


# ---- what is left -------------------------------------------------------------------------------


def checkpoint_steps(workdir: Path) -> list[int]:
    """The checkpoints under their final names."""
    found = runs.checkpoint_directory(workdir).glob("*")
    return sorted(int(path.name) for path in found if path.name.isdigit())


def interrupted_in(workdir: Path) -> str:
    """Whether a kill hit a save or the deletion of an old checkpoint, by what it left."""
    directory = runs.checkpoint_directory(workdir)
    if any("tmp" in path.name for path in directory.glob("*")):
        return "writing"
    halves = [s for s in checkpoint_steps(workdir)
              if not all((directory / str(s) / item).is_dir() for item in ITEMS)]  # fmt: skip
    return "deleting" if halves else ""


def files_of(workdir: Path) -> list[str]:
    """What a run's directory holds, down to the items of its checkpoints."""
    found = (path.relative_to(workdir) for path in workdir.rglob("*"))
    return sorted(str(path) for path in found if len(path.parts) <= 3 or "tmp" in path.name)


def numbers_of(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without times."""
    rows = metrics.read(workdir / "metrics.jsonl")
    return [{name: x for name, x in row.items() if name not in TIMES} for row in rows]


def state_of(workdir: Path) -> list[np.ndarray]:
    """Every array of the newest checkpoint's training state."""
    path = runs.checkpoint_directory(workdir) / str(max(checkpoint_steps(workdir))) / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        restored = checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=kinds))
    return jax.tree.leaves(restored)


def check_same(workdir: Path, undisturbed: Path) -> None:
    """Raises `LostError` unless a run that was killed ended like the one that was not."""
    for what, read in (("files", files_of), ("numbers", numbers_of), ("state", state_of)):
        ours, theirs = read(workdir), read(undisturbed)
        if len(ours) != len(theirs):
            raise LostError(f"{workdir}: other {what}: {ours}, not {theirs}")
        for a, b in zip(ours, theirs, strict=True):
            if not np.array_equal(a, b):
                raise LostError(f"{workdir}: other {what}: {a!r}, not {b!r}")


# ---- the whole ----------------------------------------------------------------------------------


def kill_again_and_again(root: Path, data: str, kills: int, seed: int) -> dict[str, Any]:
    """Runs everything; returns the report. Raises `LostError`."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "programs")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", str(root / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    shared = [*CONFIG, f"--config.data.dir={data}"]
    undisturbed, rehearsal = root / "undisturbed", root / "rehearsal"
    run_train(shared, undisturbed)
    rehearsed = attempt([*shared, f"--workdir={rehearsal}"], None)
    if rehearsed.code:
        raise LostError(f"the rehearsal failed:\n{rehearsed.output}")
    lengths = phase_lengths(rehearsed)
    rng = np.random.default_rng(seed)
    report: dict[str, Any] = {"kills": 0, "runs": 1, "seed": seed}
    hit, left = collections.Counter(), collections.Counter()
    started = time.perf_counter()
    workdir = root / "run1"
    while report["kills"] < kills:
        before = checkpoint_steps(workdir)
        done = attempt([*shared, f"--workdir={workdir}"], make_plan(rng, lengths))
        _check_attempt(done, before, checkpoint_steps(workdir), workdir)
        if done.killed:
            report["kills"] += 1
            hit[done.marks[-1][0] if done.marks else "begin"] += 1
            left[interrupted_in(workdir) or "nothing"] += 1
            if report["kills"] % 10 == 0:
                print(f"{report['kills']} kills", file=sys.stderr, flush=True)
        else:
            report["runs"] += 1
            workdir = root / f"run{report['runs']}"
    run_train(shared, workdir)
    report["seconds_per_kill"] = (time.perf_counter() - started) / max(kills, 1)
    for number in range(1, report["runs"] + 1):
        check_same(root / f"run{number}", undisturbed)
    check_same(rehearsal, undisturbed)
    phases = {phase: hit[phase] for phase in PHASES.values()}
    return report | {"phases": phases, "interrupted": dict(left), "lengths": lengths}


def _check_attempt(done: Attempt, before: list[int], after: list[int], workdir: Path) -> None:
    if not done.killed and done.code:
        raise LostError(f"{workdir}: ended with exit code {done.code}:\n{done.output}")
    newest = max(before, default=None)
    if done.resumed_at not in (None, newest) or "cannot be" in done.output:
        raise LostError(f"{workdir}: went on from {done.resumed_at}, not {newest}:\n{done.output}")
    if newest is not None and "parameters are trained" in done.output and not done.resumed_at:
        raise LostError(f"{workdir}: began anew, not from step {newest}:\n{done.output}")
    if before and max(after, default=-1) < newest:
        raise LostError(f"{workdir}: checkpoint {newest} has gone; there are {after}")


def run_train(shared: Sequence[str], workdir: Path) -> None:
    """`python train.py` as a user starts it."""
    command = [sys.executable, "train.py", *shared, f"--workdir={workdir}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST)
    if done.returncode:
        raise LostError(f"{workdir}: train.py failed:\n{done.stdout}{done.stderr}")


def make_shards(directory: Path) -> str:
    """Tiny prepared data, made by another process, so that this one starts nothing."""
    code = (
        "import pathlib, sys\n"
        "from tests.data_pipelines.synthetic import make_record, write_shards\n"
        "train = [make_record(f'train{i}', ticks=50 + 5 * i) for i in range(8)]\n"
        "test = [make_record(f'test{i}', ticks=60) for i in range(2)]\n"
        "write_shards(pathlib.Path(sys.argv[1]), {'train': train, 'test': test})\n"
    )
    subprocess.run([sys.executable, "-c", code, directory], cwd=ROOT, check=True)
    return str(directory / "shards")


def main() -> int:
    """Reads the command line, prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="prepared shards; tiny ones are made otherwise")
    parser.add_argument("--dir", type=Path, help="keep the runs here, an empty folder")
    parser.add_argument("--report", type=Path, help="write the report here, as JSON")
    flags = parser.parse_args()
    os.chdir(ROOT)
    with contextlib.ExitStack() as stack:
        root = flags.dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = flags.data or make_shards(root / "data")
        try:
            report = kill_again_and_again(root.absolute(), data, flags.kills, flags.seed)
        except LostError as error:
            print(f"lost: {error}", file=sys.stderr)
            return 1
    text = json.dumps(report, indent=1)
    if flags.report:
        flags.report.write_text(text + "\n")
    print(text)
    if not report["interrupted"].get("writing"):
        print("no kill hit a save; use more --kills", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
