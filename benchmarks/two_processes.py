"""Compares a run of two processes with a run of one, and checks how the two end together.

    python -m benchmarks.two_processes [--out=DIR] [--heartbeat_timeout=10]

Runs train.py with a tiny model on generated clips, on the CPU with a few simulated devices per
process. It prints one JSON line for each of: a whole run by two processes against one by a single
process (stage landmark; stage joint with gradient accumulation), SIGTERM to one process, kill -9 of
either, a mistake in one of them, and resuming as two processes and as one on another mesh. It
takes some minutes. `tests/training/test_distributed.py` asserts what is printed here.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from talkjax import commands

ROOT = Path(__file__).resolve().parents[1]
DEVICES = 4  # of a run, divided among its processes
TINY = {
    "optimizer.schedule": "constant",  # such a run can be extended
    "optimizer.warmup_steps": 2,
    "batch_size": 8,
    "log.every": 1,
    "checkpoint.every": 4,
    "eval.every": 0,
    "mesh.fsdp_min_size": 64,
    "data.frames": 1,
    "landmark.features": 16,
    "landmark.layers": 1,
    "landmark.heads": 2,
    "denoiser.channels": "(8,16)",
    "denoiser.blocks": 1,
    "denoiser.groups": 4,
    "denoiser.talkformer.heads": 2,
}
JOINT = {"stage": "joint", "optimizer.accumulation": 2, "eval.every": 4, "eval.batches": 2}
LIMIT = 600.0  # seconds after which a run counts as hanging


def write_data(folder: Path) -> Path:
    """Writes shards of a few generated clips and returns their directory."""
    sys.path.insert(0, str(ROOT))
    from tests.data_pipelines.synthetic import make_record, write_shards

    clips = [make_record(f"clip{i}", ticks=50 + 5 * i, size=64) for i in range(8)]
    return write_shards(folder, {"train": clips[:6], "test": clips[6:]})


class LocalRun:
    """A started run and its processes; each process writes to its own log.

    Args:
      workdir: Directory of the run.
      data: Directory from `write_data`, or one for each process.
      processes: Number of processes; they share `DEVICES`.
      stage: Stage of configs/demo_64.py.
      flags: Additional flags of train.py.
      **changes: Config fields, in addition to `TINY`.
    """

    def __init__(
        self,
        workdir: Path,
        data: Path | Sequence[Path],
        processes: int = 2,
        stage: str = "landmark",
        flags: Sequence[str] = (),
        **changes: Any,
    ):
        self.workdir = workdir
        folders = [data] * processes if isinstance(data, Path) else data
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            # Little optimization, because compilation takes most of such a run.
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // processes} "
            "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{_free_port()}",
            "JAX_NUM_PROCESSES": str(processes),
        }
        command = [sys.executable, str(ROOT / "train.py"), f"--workdir={workdir}", *flags]
        command += [f"--config={ROOT}/configs/demo_64.py:{stage}"]
        command += ["--distributed"] if processes > 1 else []
        command += [f"--config.{name}={value}" for name, value in (TINY | changes).items()]
        self.logs = [workdir.with_name(f"{workdir.name}.{i}.log") for i in range(processes)]
        self.processes = []
        for index, (log, folder) in enumerate(zip(self.logs, folders, strict=True)):
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        [*command, f"--config.data.dir={folder}"],
                        env=environment | {"JAX_PROCESS_ID": str(index)},
                        cwd=ROOT,
                        stdout=file,
                        stderr=file,
                    )
                )

    def wait_for_step(self, step: int) -> None:
        """Waits until a step has been taken; raises if a process ends before."""
        self._wait(lambda: (losses(self.workdir) or [(0,)])[-1][0] >= step, running=True)

    def end(self) -> list[tuple[int, float]]:
        """Waits for the end and returns (exit code, seconds from now) of each process."""
        began, ended = time.monotonic(), {}

        def all_ended() -> bool:
            for process in self.processes:
                if process.poll() is not None:
                    ended.setdefault(process.pid, time.monotonic() - began)
            return len(ended) == len(self.processes)

        self._wait(all_ended)
        return [(process.returncode, ended[process.pid]) for process in self.processes]

    def finish(self) -> None:
        """Waits for the end; raises if a process failed."""
        codes = [code for code, _ in self.end()]
        if any(codes):
            raise RuntimeError(f"exit codes {codes}\n{self._tails()}")

    def last_line(self, index: int) -> str:
        """Returns the last line of a process's log."""
        return ["", *self.logs[index].read_text().splitlines()][-1]

    def _wait(self, done: Callable[[], bool], running: bool = False) -> None:
        began = time.monotonic()
        while not done():
            gone = running and any(p.poll() is not None for p in self.processes)
            if gone or time.monotonic() - began > LIMIT:
                for process in self.processes:
                    process.kill()
                raise RuntimeError(f"{'ended early' if gone else 'hung'}\n{self._tails()}")
            time.sleep(0.05)

    def _tails(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in self.logs)


def losses(workdir: Path, names: Sequence[str] = ("loss", "grad_norm")) -> list[tuple]:
    """Returns (step, loss, gradient norm) of every logged step."""
    from talkjax.training import metrics

    rows = metrics.read(workdir / "metrics.jsonl")
    return [(row["step"], *map(row.get, names)) for row in rows if names[0] in row]


def loss_difference(first: Path, second: Path, name: str = "loss") -> float:
    """Returns the largest difference of losses of two runs, which must have the same steps."""
    pairs = list(zip(losses(first, [name]), losses(second, [name]), strict=True))
    if not pairs or any(a[0] != b[0] for a, b in pairs):
        raise RuntimeError(f"{first} and {second} have different steps")
    return max(abs(a[1] - b[1]) for a, b in pairs)


def compare(folder: Path, data: Path, steps: int, **options: Any) -> dict[str, Any]:
    """Compares whole runs by one process and by two."""
    for processes, name in ((1, "one"), (2, "two")):
        LocalRun(folder / name, data, processes, steps=steps, **options).finish()
    one, two = folder / "one", folder / "two"
    result = {"steps": steps, "loss": losses(two)[-1][1], "difference": loss_difference(one, two)}
    if options.get("eval.every"):
        result["difference of eval_loss"] = loss_difference(one, two, "eval_loss")
    return result


def stop(run: LocalRun, number: int, index: int) -> dict[str, Any]:
    """Sends a signal to one process and returns how all of them end."""
    run.processes[index].send_signal(number)
    ends = run.end()
    return {
        "codes": [code for code, _ in ends],
        "seconds": [round(seconds, 1) for _, seconds in ends],
        "last_words": [run.last_line(i) for i in range(len(ends))],
        "last_step": losses(run.workdir)[-1][0],
    }


def stop_and_resume(folder: Path, data: Path, steps: int, timeout: int) -> dict[str, dict]:
    """Stops a run by SIGTERM, by kill -9 of process 1 and of process 0, and resumes it each time.

    `folder` must hold an undisturbed run `two` of the same number of steps, for comparison.
    """
    run, results = folder / "stopped", {}
    flags = [f"--heartbeat_timeout={timeout}"]
    for name, number, index in (
        ("SIGTERM to process 1", signal.SIGTERM, 1),
        ("kill -9 of process 1", signal.SIGKILL, 1),
        ("kill -9 of process 0", signal.SIGKILL, 0),
    ):
        going = LocalRun(run, data, steps=10_000, flags=flags)
        # Beyond a checkpoint, so that each begins with what the previous one has left.
        newest = max((step for step, *_ in losses(run)), default=0)
        going.wait_for_step(newest + 5)
        results[name] = stop(going, number, index)
        results[name]["checkpoints"] = sorted(int(p.name) for p in _checkpoints(run))
    shutil.copytree(run, folder / "moved")
    LocalRun(run, data, steps=steps).finish()
    LocalRun(folder / "moved", data, 1, steps=steps, **{"mesh.fsdp": 2}).finish()
    results["resumed by two"] = {"identical": losses(run) == losses(folder / "two")}
    difference = loss_difference(folder / "moved", folder / "two")
    results["resumed by one, data=2 x fsdp=2"] = {"difference": difference}
    return results


def fail_in_one_process(folder: Path, data: Path, index: int, timeout: int) -> dict[str, Any]:
    """Starts a run of which one process does not find its data."""
    own = [data, data]
    own[index] = folder / "missing"
    run = LocalRun(
        folder / f"mistake{index}", own, flags=[f"--heartbeat_timeout={timeout}"], steps=8
    )
    ends = run.end()
    return {
        "codes": [code for code, _ in ends],
        "seconds between": round(ends[1 - index][1] - ends[index][1], 1),
        "last_words": [run.last_line(i) for i in range(2)],
    }


def _checkpoints(workdir: Path) -> list[Path]:
    return [p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def make_parser() -> commands.Parser:
    """Returns the parser of this command's flags."""
    parser = commands.Parser(__doc__, prog="python -m benchmarks.two_processes")
    parser.add_argument(
        "--out", metavar="DIR", help="folder that keeps the runs and their logs (default: deleted)"
    )
    parser.add_argument(
        "--heartbeat_timeout",
        type=commands.bounded(int, 2),
        default=10,
        metavar="SECONDS",
        help="time after which a silent process counts as dead (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs everything and prints the results."""
    args = make_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.out or temporary)
        (folder / "joint").mkdir(parents=True)
        data = write_data(folder)

        def report(name: str, result: Any) -> None:
            print(json.dumps({"what": name} | result), flush=True)

        report("two against one, landmark", compare(folder, data, 40))
        for name, result in stop_and_resume(folder, data, 40, args.heartbeat_timeout).items():
            report(name, result)
        for index in range(2):
            result = fail_in_one_process(folder, data, index, args.heartbeat_timeout)
            report(f"a mistake in process {index}", result)
        report("two against one, joint", compare(folder / "joint", data, 4, **JOINT))


def run() -> None:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
