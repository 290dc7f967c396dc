"""What a run reports: metrics.jsonl, the cost of the compiled step, times and progress."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from talkjax import files

FILE = "metrics.jsonl"


class Writer:
    """Appends JSON lines to a file.

    Lines of later steps than the one a run resumes at are removed first, because they are going to
    be written again. A file in a bucket cannot be appended to, so it is rewritten.
    """

    def __init__(self, path: str | os.PathLike, resumed_at: int):
        self._path = files.as_path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        kept = [_line(row) for row in read(self._path) if row["step"] <= resumed_at]
        files.write_text(self._path, "".join(kept))
        self._lines = kept if files.is_remote(path) else None

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes one line and flushes it; numbers that are not finite become null."""
        if self._lines is not None:
            self._lines.append(_line(row))
            files.write_text(self._path, "".join(self._lines))
            return
        with self._path.open("a") as file:
            file.write(_line(row))


class Silent:
    """A `Writer` for processes that write nothing."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Does nothing."""


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the rows of a metrics file, without a last line that a crash cut off."""
    rows = []
    with contextlib.suppress(FileNotFoundError):
        for line in files.as_path(path).read_text().splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and "step" in row]


def evaluation_losses(path: str | os.PathLike) -> dict[int, float]:
    """Reads the losses of all evaluations so far: {step: loss}."""
    rows = {row["step"]: row.get("eval_loss") for row in read(path) if "eval_loss" in row}
    return {step: math.inf if loss is None else loss for step, loss in rows.items()}


def _line(row: Mapping[str, Any]) -> str:
    def plain(x: Any) -> Any:
        return None if isinstance(x, float) and not math.isfinite(x) else x

    return json.dumps({name: plain(x) for name, x in row.items()}) + "\n"


# ---- the compiled step --------------------------------------------------------------------------


def compiled_costs(compiled: Any) -> dict[str, float]:
    """Returns FLOPs and memory of a compiled step per device, 0 where the backend reports none."""
    costs = compiled.cost_analysis() or {}
    costs = costs[0] if isinstance(costs, list) else costs
    memory = compiled.memory_analysis()
    return {
        "flops": max(float(costs.get("flops", 0.0)), 0.0),
        "argument_bytes": getattr(memory, "argument_size_in_bytes", 0),
        "temporary_bytes": getattr(memory, "temp_size_in_bytes", 0),
    }


def describe_costs(costs: Mapping[str, float]) -> str:
    """Describes `compiled_costs` and the time of compilation in one line."""
    return (
        f"compiled in {costs['compile_s']:.1f} s; per device and step {costs['flops'] / 1e9:.2f} "
        f"GFLOP, {costs['argument_bytes'] / 2**20:.0f} MiB of state and batch, "
        f"{costs['temporary_bytes'] / 2**20:.0f} MiB of temporaries"
    )


# ---- time and progress --------------------------------------------------------------------------


class Clock:
    """Measures time per step and samples per second between two readings."""

    def __init__(self, batch_size: int, flops: float):
        self.steps = 0  # number of readings so far
        self._batch_size, self._flops = batch_size, flops
        self._last_step: int | None = None
        self._start = time.perf_counter()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the body of the `with` statement as time spent waiting for data."""
        before = time.perf_counter()
        yield
        self._waited += time.perf_counter() - before

    def lap(self, step: int) -> dict[str, float]:
        """Reads the clock after `step`, whose results have arrived, and restarts it."""
        count = step - self._last_step if self._last_step is not None else 1
        seconds = max(time.perf_counter() - self._start, 1e-9) / max(count, 1)
        row = {
            "step_s": seconds,
            "data_wait_s": self._waited / max(count, 1),
            "samples_per_s": self._batch_size / seconds,
        }
        if self._flops:
            row["tflops_per_device"] = self._flops / seconds / 1e12
        self.steps += 1
        self.reset(step)
        return row

    def reset(self, step: int) -> None:
        """Restarts the clock, leaving out what happened since the last reading."""
        self._last_step, self._start, self._waited = step, time.perf_counter(), 0.0


class Progress:
    """Shows a progress bar on a terminal (`bar`), log lines otherwise."""

    def __init__(self, start: int, total: int, say: Callable[..., None], bar: bool):
        self._bar, self._total, self._say = None, total, say
        if bar:
            with contextlib.suppress(ImportError):  # a bare accelerator image may lack tqdm
                import tqdm

                self._bar = tqdm.tqdm(total=total, initial=start, unit="step", dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, row: Mapping[str, float]) -> None:
        """Shows a row of metrics."""
        if self._bar is not None:
            self._bar.update(row["step"] - self._bar.n)
            self._bar.set_postfix(loss=f"{row['loss']:.4g}", skipped=f"{row['skipped']:.0f}")
            return
        left = (self._total - row["step"]) * row["step_s"]
        self._say(
            f"step {row['step']}/{self._total}: loss {row['loss']:.5g}, "
            f"gradient {row['grad_norm']:.3g}, {row['samples_per_s']:.1f} samples/s, "
            f"{row['step_s'] * 1e3:.0f} ms/step, {left / 60:.0f} min left"
            + (f", {row['skipped']:.0f} skipped" if row["skipped"] else "")
        )
