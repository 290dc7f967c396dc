"""What a run reports: metrics.jsonl, times and progress."""

import concurrent.futures
import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from talkjax import files, pictures

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

    def write_pictures(self, step: int, image: np.ndarray, caption: str) -> None:
        """Writes a picture grid, (H, W, 3) uint8, to samples/STEP.png beside the file."""
        pictures.write_png(self._path.parent / "samples" / f"{step:08d}.png", image, caption)

    def close(self) -> None:
        """Does nothing: every line is written at once."""


class Several:
    """Writes everything with several writers; with none, it writes nothing."""

    def __init__(self, *writers: Any):
        self._writers = writers

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes a row of metrics."""
        for writer in self._writers:
            writer.write(row)

    def write_pictures(self, step: int, image: np.ndarray, caption: str) -> None:
        """Writes a picture grid."""
        for writer in self._writers:
            writer.write_pictures(step, image, caption)

    def close(self) -> None:
        """Closes the writers."""
        for writer in self._writers:
            writer.close()


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


# ---- time and progress --------------------------------------------------------------------------


class Clock:
    """Measures time per step and samples per second between two readings.

    Steps run asynchronously: while the host waits for a batch, the devices may still compute. So
    there are two times. "data_wait_s" is how long the host waited per step, which costs nothing
    while the devices have work. "data_stall" is the share of the interval in which the host waited
    and no step was running, so that the step waited for its data: 0 if the loader keeps up, near 1
    if it is much slower than the step. With several processes, both are those of this one; a step
    that waits for another process's data takes longer instead.
    """

    def __init__(self, batch_size: int, flops: float):
        self.steps = 0  # number of readings so far
        self._batch_size, self._flops = batch_size, flops
        self._last_step: int | None = None
        self._start = time.perf_counter()
        self._waited = self._stalled = 0.0
        self._watcher = concurrent.futures.ThreadPoolExecutor(1, "end of a step")
        self._ended: concurrent.futures.Future[float] | None = None

    def close(self) -> None:
        """Ends the thread that notices when steps end."""
        self._watcher.shutdown(wait=False)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the body of the `with` statement as time spent waiting for data."""
        before = time.perf_counter()
        yield
        now = time.perf_counter()
        self._waited += now - before
        if self._ended is None:
            self._stalled += now - before
        elif self._ended.done():
            self._stalled += now - max(before, self._ended.result())

    def dispatched(self, result: jax.Array) -> None:
        """Tells the clock that a step has been dispatched, and one of its results."""
        self._ended = self._watcher.submit(_time_of, result)

    def lap(self, step: int) -> dict[str, float]:
        """Reads the clock after `step`, whose results have arrived, and restarts it."""
        count = step - self._last_step if self._last_step is not None else 1
        seconds = max(time.perf_counter() - self._start, 1e-9) / max(count, 1)
        row = {
            "step_s": seconds,
            "data_wait_s": self._waited / max(count, 1),
            "data_stall": min(self._stalled / (seconds * max(count, 1)), 1.0),
            "samples_per_s": self._batch_size / seconds,
        }
        if self._flops:
            row["tflops_per_device"] = self._flops / seconds / 1e12
        self.steps += 1
        self.reset(step)
        return row

    def reset(self, step: int) -> None:
        """Restarts the clock, leaving out what happened since the last reading."""
        self._last_step, self._start = step, time.perf_counter()
        self._waited = self._stalled = 0.0


def _time_of(result: jax.Array) -> float:
    """Waits for an array and returns the time at which it was ready."""
    jax.block_until_ready(result)
    return time.perf_counter()


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
            self._bar.set_postfix(
                loss=f"{row['loss']:.4g}",
                skipped=f"{row['skipped']:.0f}",
                data_stall=f"{row['data_stall']:.0%}",
            )
            return
        left = (self._total - row["step"]) * row["step_s"]
        self._say(
            f"step {row['step']}/{self._total}: loss {row['loss']:.5g}, "
            f"gradient {row['grad_norm']:.3g}, {row['samples_per_s']:.1f} samples/s, "
            f"{row['step_s'] * 1e3:.0f} ms/step, {row['data_stall']:.0%} of it waiting for data, "
            f"{left / 60:.0f} min left"
            + (f", {row['skipped']:.0f} skipped" if row["skipped"] else "")
        )
