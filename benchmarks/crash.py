"""Kills a training run at random moments and checks that nothing is lost.

    python -m benchmarks.crash [--kills=200] [--seed=0] [--data=SHARDS] [--dir=DIR] [--report=FILE]

`train.py` trains a tiny landmark stage on tiny shards, with real files and checkpoints. Every
attempt is a process that SIGKILL ends at a random moment of a random phase (opening data,
restoring, compiling, a step, a save, ...); the next attempt resumes from what is left. When a run
is complete, another one begins. The checks are:

- After every kill, no complete checkpoint is lost, and the next attempt resumes from the newest.
- At the end of every run, all numbers in metrics.jsonl and the last training state are
  bit-identical to those of an undisturbed run, and the directory holds the same files.

The undisturbed run and the last attempt are `python train.py`. The attempts in between are forked
from this process, which has imported the same modules but started no device; this saves the
seconds that the imports take. In them, the functions that the loop calls report the current
phase. Prints how many kills hit each phase. The exit code is 1 if anything was lost, or if no kill
hit a save.
"""

import collections
import contextlib
import dataclasses
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

from talkjax import commands, files, runs
from talkjax.data import loader
from talkjax.training import checkpoints, command, loop, metrics, stages

ROOT = Path(__file__).resolve().parents[1]
IMPORTED_FOR_THE_ATTEMPTS = (loader, stages)  # train.py imports them late
ITEMS = ("data", "state")  # items of a complete checkpoint
# Differs between runs that compute the same: times, and what depends on the first step.
TIMES = {"step_s", "data_wait_s", "data_stall", "samples_per_s", "tflops_per_device", "compile_s",
         "flops", "parameter_bytes", "optimizer_bytes", "average_bytes", "batch_bytes",
         "temporary_bytes", "memory_bytes", "limit_bytes"}  # fmt: skip
TIME_LIMIT = 300.0  # seconds for an attempt
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
    "--config.data.num_threads=1",
    "--config.data.prefetch=1",
]


class LostError(Exception):
    """A killed run lost something, or did not end like an undisturbed one."""


# ---- phases -------------------------------------------------------------------------------------

# The phases of an attempt, by the byte that it sends at their beginning.
PHASES = {
    b"b": "begin",
    b"d": "open data",
    b"r": "restore or init",
    b"c": "compile",
    b"f": "fetch",
    b"s": "step",
    b"w": "save",  # the part that steps wait for; the rest runs in the background
    b"e": "evaluate",
}
OCCURRENCES = {"fetch": 20, "step": 20, "save": 4, "evaluate": 2}  # upper bounds; 1 for others


def report_phases(send: Callable[[bytes], Any]) -> None:
    """Patches the functions that begin a phase of the loop to report it, in this process."""

    def reporting(function: Callable[..., Any], mark: bytes) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            send(mark)
            return function(*args, **kwargs)

        return wrapped

    class ReportingClock(metrics.Clock):
        @contextlib.contextmanager
        def waiting(self) -> Iterator[None]:
            send(b"f")
            with super().waiting():
                yield
            send(b"s")

    loop._evaluate = reporting(loop._evaluate, b"e")
    metrics.Writer = reporting(metrics.Writer, b"c")  # the last call before compilation
    checkpoints.open_manager = reporting(checkpoints.open_manager, b"r")
    checkpoints.save = reporting(checkpoints.save, b"w")
    loop.train = reporting(loop.train, b"d")
    metrics.Clock = ReportingClock


# ---- attempts -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kill:
    """The moment of a kill: `delay` seconds after `phase` begins for the `occurrence`-th time."""

    phase: str
    occurrence: int
    delay: float


@dataclasses.dataclass(frozen=True)
class Attempt:
    """The result of an attempt: (phase, second of its beginning), exit code and output."""

    marks: list[tuple[str, float]]
    code: int
    output: str

    @property
    def killed(self) -> bool:
        """Whether the kill came before the end."""
        return self.code == -signal.SIGKILL

    @property
    def resumed_at(self) -> int | None:
        """The step it resumed from; None if it did not get so far, or started from scratch."""
        found = re.search(r"^resumed .* at step (\d+)$", self.output, re.M)
        return int(found[1]) if found else None


def run_attempt(arguments: Sequence[str], kill: Kill | None) -> Attempt:
    """Trains in a forked process and kills it as planned."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as log, open(reading, "rb", buffering=0) as pipe:
        begun = time.perf_counter()
        pid = os.fork()
        if not pid:
            _train_forked(arguments, writing, log.fileno())
        os.close(writing)
        marks, last = [], begun + TIME_LIMIT
        while True:
            ready = select.select([pipe], [], [], max(last - time.perf_counter(), 0))[0]
            if not ready:
                os.kill(pid, signal.SIGKILL)
                last = begun + 2 * TIME_LIMIT  # read what is left in the pipe
                continue
            sent = pipe.read(4096)
            if not sent:
                break
            for index in range(len(sent)):
                marks.append((PHASES[sent[index : index + 1]], time.perf_counter() - begun))
                if kill and [name for name, _ in marks].count(kill.phase) == kill.occurrence:
                    last = min(last, time.perf_counter() + kill.delay)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        log.seek(0)
        return Attempt(marks, code, log.read().decode())


def _train_forked(arguments: Sequence[str], pipe: int, log: int) -> NoReturn:
    code = 1
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        report_phases(lambda mark: os.write(pipe, mark))
        os.write(pipe, b"b")
        code = commands.run_main(command.main, arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def plan_kill(rng: np.random.Generator, lengths: dict[str, float]) -> Kill:
    """Returns a random moment of a random phase; all phases are equally likely."""
    phase = str(rng.choice(list(PHASES.values())))
    return Kill(
        phase, int(rng.integers(1, 1 + OCCURRENCES.get(phase, 1))), rng.uniform(0, lengths[phase])
    )


def phase_lengths(undisturbed: Attempt) -> dict[str, float]:
    """Returns the mean length of every phase in seconds, for saves until the next one begins."""
    times: dict[str, list[float]] = collections.defaultdict(list)
    for (phase, start), (_, end) in zip(undisturbed.marks, undisturbed.marks[1:], strict=False):
        times[phase].append(end - start)
    saves = [start for phase, start in undisturbed.marks if phase == "save"]
    return {phase: float(np.mean(t)) for phase, t in times.items()} | {
        "save": float(np.mean(np.diff(saves)))
    }


# ---- what is left -------------------------------------------------------------------------------


def checkpoint_steps(workdir: Path) -> list[int]:
    """Returns the steps of the checkpoints that have their final names."""
    found = runs.checkpoint_directory(workdir).glob("*")
    return sorted(int(path.name) for path in found if path.name.isdigit())


def interrupted_in(workdir: Path) -> str:
    """Returns what was interrupted: "writing" or "deleting" a checkpoint, or "" for neither."""
    directory = runs.checkpoint_directory(workdir)
    if any("tmp" in path.name for path in directory.glob("*")):
        return "writing"
    halves = [s for s in checkpoint_steps(workdir)
              if not all((directory / str(s) / item).is_dir() for item in ITEMS)]  # fmt: skip
    return "deleting" if halves else ""


def files_of(workdir: Path) -> list[str]:
    """Returns the files of a run's directory, down to the items of its checkpoints."""
    found = (path.relative_to(workdir) for path in workdir.rglob("*"))
    return sorted(str(path) for path in found if len(path.parts) <= 3 or "tmp" in path.name)


def numbers_of(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl without times."""
    rows = metrics.read(workdir / "metrics.jsonl")
    return [{name: x for name, x in row.items() if name not in TIMES} for row in rows]


def state_of(workdir: Path) -> list[np.ndarray]:
    """Returns the arrays of the newest checkpoint's training state."""
    path = runs.checkpoint_directory(workdir) / str(max(checkpoint_steps(workdir))) / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        restored = checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=kinds))
    return jax.tree.leaves(restored)


def check_same(workdir: Path, undisturbed: Path) -> None:
    """Raises `LostError` unless a killed run ended like the undisturbed one."""
    for what, read in (("files", files_of), ("numbers", numbers_of), ("state", state_of)):
        ours, theirs = read(workdir), read(undisturbed)
        if len(ours) != len(theirs):
            raise LostError(f"{workdir}: {what} differ: {ours}, not {theirs}")
        for a, b in zip(ours, theirs, strict=True):
            if not np.array_equal(a, b):
                raise LostError(f"{workdir}: {what} differ: {a!r}, not {b!r}")


# ---- the whole ----------------------------------------------------------------------------------


def kill_repeatedly(root: Path, data: str, kills: int, seed: int) -> dict[str, Any]:
    """Runs everything and returns the report.

    Raises:
      LostError: A check failed.
    """
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "programs")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", str(root / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    shared = [*CONFIG, f"--config.data.dir={data}"]
    undisturbed, rehearsal = root / "undisturbed", root / "rehearsal"
    run_train(shared, undisturbed)
    rehearsed = run_attempt([*shared, f"--workdir={rehearsal}"], None)
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
        done = run_attempt([*shared, f"--workdir={workdir}"], plan_kill(rng, lengths))
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
        raise LostError(f"{workdir}: resumed from {done.resumed_at}, not {newest}:\n{done.output}")
    if newest is not None and "parameters are trained" in done.output and not done.resumed_at:
        raise LostError(f"{workdir}: started from scratch, not step {newest}:\n{done.output}")
    if before and max(after, default=-1) < newest:
        raise LostError(f"{workdir}: checkpoint {newest} is gone; only {after} are left")


def run_train(shared: Sequence[str], workdir: Path) -> None:
    """Runs `python train.py` as a user does."""
    command = [sys.executable, "train.py", *shared, f"--workdir={workdir}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT)
    if done.returncode:
        raise LostError(f"{workdir}: train.py failed:\n{done.stdout}{done.stderr}")


def make_shards(directory: Path) -> str:
    """Writes tiny shards, in another process so that this one starts no device or thread."""
    code = (
        "import pathlib, sys\n"
        "from tests.data_pipelines.synthetic import make_record, write_shards\n"
        "train = [make_record(f'train{i}', ticks=50 + 5 * i) for i in range(8)]\n"
        "test = [make_record(f'test{i}', ticks=60) for i in range(2)]\n"
        "write_shards(pathlib.Path(sys.argv[1]), {'train': train, 'test': test})\n"
    )
    subprocess.run([sys.executable, "-c", code, directory], cwd=ROOT, check=True)
    return str(directory / "shards")


def make_parser() -> commands.Parser:
    """Returns the parser of this command's flags."""
    parser = commands.Parser(__doc__, prog="python -m benchmarks.crash")
    add = parser.add_argument
    add(
        "--kills",
        type=commands.bounded(int, 1),
        default=200,
        help="number of kills (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="seed of their moments (default: %(default)s)")
    add("--data", metavar="DIR", help="prepared shards (default: tiny generated ones)")
    add("--dir", metavar="DIR", type=Path, help="empty folder that keeps the runs")
    add("--report", metavar="FILE", help="file to write the report to, as JSON")
    return parser


def main(argv: Sequence[str]) -> None:
    """Kills runs, checks them and prints the report; exits with 1 if anything was lost."""
    args = make_parser().parse_args(argv)
    root, report_file = (path and Path(path).absolute() for path in (args.dir, args.report))
    data = args.data and os.path.abspath(args.data)
    os.chdir(ROOT)
    with contextlib.ExitStack() as stack:
        root = root or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            report = kill_repeatedly(
                root, data or make_shards(root / "data"), args.kills, args.seed
            )
        except LostError as error:
            print(f"lost: {error}", file=sys.stderr)
            sys.exit(1)
    text = files.json_text(report)
    if report_file:
        files.write_text(report_file, text)
    print(text, end="")
    if not report["interrupted"].get("writing"):
        print("no kill hit a save; use more --kills", file=sys.stderr)
        sys.exit(1)


def run() -> None:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
