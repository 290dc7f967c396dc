"""Two processes of one run on this machine: do they agree with one, and how do they end?

    uv run -m benchmarks.two_processes [--out=DIR] [--heartbeat_timeout=10]

Runs train.py on a tiny model and made-up clips, on the CPU with a few pretended devices a process,
and prints one JSON line for each of: a whole run by two processes against one by one process
(stage landmark; stage joint with accumulation), SIGTERM to one process, kill -9 of either, a
mistake in one of them, and going on as two, and as one on another mesh. It takes some minutes.
`tests/training/test_distributed.py` asserts what is printed here.
"""

import argparse
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

ROOT = Path(__file__).resolve().parents[1]
DEVICES = 4  # of a whole run
TINY = {
    "optimizer.schedule": "constant",  # such a run may be prolonged
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
LIMIT = 600.0  # seconds after which a run counts as hung


def write_data(folder: Path) -> Path:
    """Shards of a few made-up clips; their directory."""
    sys.path.insert(0, str(ROOT))
    from tests.data_pipelines.synthetic import make_record, write_shards

    clips = [make_record(f"clip{i}", ticks=50 + 5 * i, size=64) for i in range(8)]
    return write_shards(folder, {"train": clips[:6], "test": clips[6:]})


class Run:
    """The processes of one run, started; each writes to a log of its own.

    Args:
      workdir: of the run.
      data: from `write_data`, or one for each process.
      processes: how many; they share `DEVICES`.
      stage: of configs/demo_64.py.
      flags: for train.py besides.
      changes: of config fields, besides `TINY`.
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
            # Little optimised: compiling is most of what such a run does.
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
        """Returns once a step has been taken; raises when a process has ended before."""
        self._wait(lambda: (losses(self.workdir) or [(0,)])[-1][0] >= step, running=True)

    def end(self) -> list[tuple[int, float]]:
        """(exit code, seconds from now until then) of each process."""
        began, ended = time.monotonic(), {}

        def all_ended() -> bool:
            for process in self.processes:
                if process.poll() is not None:
                    ended.setdefault(process.pid, time.monotonic() - began)
            return len(ended) == len(self.processes)

        self._wait(all_ended)
        return [(process.returncode, ended[process.pid]) for process in self.processes]

    def finish(self) -> None:
        """Waits for success."""
        codes = [code for code, _ in self.end()]
        if any(codes):
            raise RuntimeError(f"exit codes {codes}\n{self._tails()}")

    def last_words(self, index: int) -> str:
        """The last line of a process's log."""
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
    """(step, loss, norm of the gradient) of every step that was written down."""
    from talkjax.training import metrics

    rows = metrics.read(workdir / "metrics.jsonl")
    return [(row["step"], *map(row.get, names)) for row in rows if names[0] in row]


def loss_difference(first: Path, second: Path, name: str = "loss") -> float:
    """The largest difference of losses of two runs, which must have the same steps."""
    pairs = list(zip(losses(first, [name]), losses(second, [name]), strict=True))
    if not pairs or any(a[0] != b[0] for a, b in pairs):
        raise RuntimeError(f"{first} and {second} have not the same steps")
    return max(abs(a[1] - b[1]) for a, b in pairs)


def compare(folder: Path, data: Path, steps: int, **options: Any) -> dict[str, Any]:
    """Whole runs by one process and by two."""
    for processes, name in ((1, "one"), (2, "two")):
        Run(folder / name, data, processes, steps=steps, **options).finish()
    one, two = folder / "one", folder / "two"
    result = {"steps": steps, "loss": losses(two)[-1][1], "difference": loss_difference(one, two)}
    if options.get("eval.every"):
        result["difference of eval_loss"] = loss_difference(one, two, "eval_loss")
    return result


def stop(run: Run, number: int, index: int) -> dict[str, Any]:
    """Sends a signal to one process: how all end."""
    run.processes[index].send_signal(number)
    ends = run.end()
    return {
        "codes": [code for code, _ in ends],
        "seconds": [round(seconds, 1) for _, seconds in ends],
        "last_words": [run.last_words(i) for i in range(len(ends))],
        "last_step": losses(run.workdir)[-1][0],
    }


def stop_and_go_on(folder: Path, data: Path, steps: int, timeout: int) -> dict[str, dict]:
    """One run, stopped by SIGTERM, by kill -9 of process 1 and of process 0, and gone on with.

    `folder` has a whole run `two` of as many steps; the run here is compared with it.
    """
    run, results = folder / "stopped", {}
    flags = [f"--heartbeat_timeout={timeout}"]
    for name, number, index in (
        ("SIGTERM to process 1", signal.SIGTERM, 1),
        ("kill -9 of process 1", signal.SIGKILL, 1),
        ("kill -9 of process 0", signal.SIGKILL, 0),
    ):
        going = Run(run, data, steps=10_000, flags=flags)
        # Past a checkpoint, so that all begin with what the one before has left.
        newest = max((step for step, *_ in losses(run)), default=0)
        going.wait_for_step(newest + 5)
        results[name] = stop(going, number, index)
        results[name]["checkpoints"] = sorted(int(p.name) for p in _checkpoints(run))
    shutil.copytree(run, folder / "moved")
    Run(run, data, steps=steps).finish()
    Run(folder / "moved", data, 1, steps=steps, **{"mesh.fsdp": 2}).finish()
    results["gone on with by two"] = {"identical": losses(run) == losses(folder / "two")}
    difference = loss_difference(folder / "moved", folder / "two")
    results["gone on with by one, data=2 x fsdp=2"] = {"difference": difference}
    return results


def mistake(folder: Path, data: Path, index: int, timeout: int) -> dict[str, Any]:
    """One process does not find its data."""
    own = [data, data]
    own[index] = folder / "missing"
    run = Run(folder / f"mistake{index}", own, flags=[f"--heartbeat_timeout={timeout}"], steps=8)
    ends = run.end()
    return {
        "codes": [code for code, _ in ends],
        "seconds between": round(ends[1 - index][1] - ends[index][1], 1),
        "last_words": [run.last_words(i) for i in range(2)],
    }


def _checkpoints(workdir: Path) -> list[Path]:
    return [p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main() -> None:
    """Measures everything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", help="keeps the runs and their logs here")
    parser.add_argument("--heartbeat_timeout", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.out or temporary)
        (folder / "joint").mkdir(parents=True)
        data = write_data(folder)

        def tell(name: str, result: Any) -> None:
            print(json.dumps({"what": name} | result), flush=True)

        tell("two against one, landmark", compare(folder, data, 40))
        for name, result in stop_and_go_on(folder, data, 40, arguments.heartbeat_timeout).items():
            tell(name, result)
        for index in range(2):
            result = mistake(folder, data, index, arguments.heartbeat_timeout)
            tell(f"a mistake in process {index}", result)
        tell("two against one, joint", compare(folder / "joint", data, 4, **JOINT))


if __name__ == "__main__":
    main()
