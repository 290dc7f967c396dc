"""A trace of some training steps by JAX's profiler (`train.py --profile=FIRST:LAST`)."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from talkjax import files

FOLDER = "profile"


class Recorder:
    """Records a trace from the beginning of one step to the end of another.

    Process 0 alone records, its own devices; those of other processes do the same work. The trace
    is written to the folder `profile` of the run after the last of the steps, or when the run ends
    before it. Where that fails, the run goes on with a warning.
    """

    def __init__(
        self,
        steps: tuple[int, int] | None,
        workdir: str | os.PathLike,
        resumed_at: int,
        say: Callable[..., Any],
        warn: Callable[[str], Any],
    ):
        """Creates a recorder, which does not record yet.

        Args:
          steps: The first and the last step, or None. A run that has taken the first of them
            already, as when it was stopped and started again, records nothing and warns.
          workdir: Directory of the run.
          resumed_at: The step that the run resumes at, 0 for a new run.
          say: Prints a line.
          warn: Prints a warning.
        """
        self._folder = files.as_path(workdir) / FOLDER
        self._say, self._warn = say, warn
        self._temporary: tempfile.TemporaryDirectory | None = None  # while it records
        self._steps = steps if jax.process_index() == 0 else None
        if self._steps and self._steps[0] <= resumed_at:
            warn(
                f"--profile={self._steps[0]}:{self._steps[1]} records nothing, because the run "
                f"resumes at step {resumed_at}"
            )
            self._steps = None

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._temporary:
            self._stop()

    def before(self, step: int, previous: Any) -> None:
        """Starts to record if `step` is the first; `previous` is a result of the step before."""
        if self._steps and step == self._steps[0]:
            # The host runs ahead of the devices: wait for what it dispatched before.
            jax.block_until_ready(previous)
            self._temporary = tempfile.TemporaryDirectory(prefix="talkjax-profile-")
            jax.profiler.start_trace(self._temporary.name)

    def after(self, step: int, results: Any) -> None:
        """Writes the trace if `step`, whose results are given, is the last."""
        if self._temporary and step == self._steps[1]:
            jax.block_until_ready(results)
            self._stop()

    def _stop(self) -> None:
        first, last = self._steps
        temporary, self._temporary = self._temporary, None
        try:
            with temporary:
                jax.profiler.stop_trace()  # writes to local folders only, hence the temporary one
                for path in sorted(Path(temporary.name).rglob("*")):
                    if path.is_file():
                        target = self._folder / str(path.relative_to(temporary.name))
                        target.parent.mkdir(parents=True, exist_ok=True)
                        files.write_bytes(target, path.read_bytes())
        except Exception as error:  # of many types: the operating system's, JAX's, a bucket's
            self._warn(f"the trace could not be written: {files.one_line(error)}")
            return
        self._say(f"traced steps {first} to {last}: tensorboard --logdir={self._folder}")
