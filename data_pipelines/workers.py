"""Processes that survive their jobs: a crash, a kill or a hang costs one job, never the run.

`concurrent.futures` gives up on everything once one process dies, and a damaged video can crash a
decoder. Here each process has a pipe of its own, so it is known which job it died of.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # what a container or a scheduler left to this process
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class JobError(Exception):
    """What a job's result is when there is none: `kind` is "crash", "timeout" or "error"."""

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


def _serve(pipe, make_work: Callable[[], Callable[[Any], Any]]) -> None:
    # ^C is for the parent, which then ends its children; and a parent that was killed closes the
    # pipe, which ends the loop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        try:
            work = make_work()
        except BaseException as error:
            # What stops a worker from starting will stop the next one as well: the run must end.
            pipe.send(("start", error if isinstance(error, Exception) else RuntimeError(error)))
            return
        pipe.send(("ready", None))
        while True:
            job = pipe.recv()
            try:
                pipe.send(("done", work(job)))
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    return
                pipe.send(("raised", error))
            except Exception as error:
                text = "".join(traceback.format_exception_only(error)).strip()
                pipe.send(("error", f"{text} at {_place(error)}"))


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{os.path.basename(last.filename)}:{last.lineno}"


@contextlib.contextmanager
def _single_threaded():
    saved = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ |= dict.fromkeys(_ONE_THREAD, "1")  # read when a child imports numpy
    try:
        yield
    finally:
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


class _Process:
    def __init__(self, make_work):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make_work), daemon=True)
        with _single_threaded():
            self.process.start()
        theirs.close()
        self.job, self.deadline, self.ready = None, None, False

    def give(self, job: Any, timeout: float) -> None:
        self.job, self.deadline = (job,), time.monotonic() + timeout
        with contextlib.suppress(OSError):  # a dead process is noticed when it is looked at
            self.pipe.send(job)

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def run_jobs(
    jobs: Sequence[Any],
    make_work: Callable[[], Callable[[Any], Any]],
    workers: int,
    timeout: float,
) -> Iterator[tuple[Any, Any]]:
    """Runs jobs on fresh processes, each with single-threaded numerics.

    Args:
      jobs: plain data, handed out in order.
      make_work: called once in each process; gives the function of a job. Both must be picklable
        by name.
      workers: number of processes.
      timeout: seconds after which a job counts as hung.

    Yields:
      (job, result) in the order of completion, results never None; a `JobError` for a job that
      raised, crashed its process or hung.

    Raises:
      Exception: what `make_work` raised, and any OSError of a job (the disk is full, the folder is
        gone): such things would fail every further job as well.
    """
    queue, pool = list(reversed(jobs)), []
    try:
        while queue or any(worker.job for worker in pool):
            # One for every job in hand or to come, so that a lost one is replaced if it is missed.
            wanted = min(workers, len(queue) + sum(worker.job is not None for worker in pool))
            pool += [_Process(make_work) for _ in range(wanted - len(pool))]
            for worker in pool:
                if worker.ready and worker.job is None and queue:
                    worker.give(queue.pop(), timeout)
            waiting = [end for w in pool for end in (w.pipe, w.process.sentinel)]
            signalled = multiprocessing.connection.wait(waiting, timeout=1.0)
            for worker in list(pool):
                result = _look_at(worker, signalled)
                if isinstance(result, JobError) and result.kind != "error":
                    worker.end()
                    pool.remove(worker)
                if result is not None and worker.job is not None:
                    (job,), worker.job = worker.job, None
                    yield job, result
    finally:
        for worker in pool:
            worker.end()


class Worker:
    """One process for one job after the other, for callers that are handed jobs singly.

    Args:
      make_work, timeout: as of `run_jobs`.
    """

    def __init__(self, make_work: Callable[[], Callable[[Any], Any]], timeout: float):
        self._make_work, self._timeout, self._process = make_work, timeout, None

    def run(self, job: Any) -> Any:
        """Does a job; its result or a `JobError`, and raises, as in `run_jobs`."""
        if self._process is None:
            self._process = _Process(self._make_work)
        process = self._process
        while True:
            if process.ready and process.job is None:
                process.give(job, self._timeout)
            ends = [process.pipe, process.process.sentinel]
            result = _look_at(process, multiprocessing.connection.wait(ends, timeout=1.0))
            if isinstance(result, JobError) and result.kind != "error":
                self.close()
            if result is not None:
                process.job = None
                return result

    def close(self) -> None:
        """Ends the process; a further job starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def __del__(self):
        if not sys.is_finalizing():  # else its end of the pipe closes by itself, and it ends
            self.close()


def _look_at(worker: _Process, signalled: list) -> Any:
    """The result of a worker's job or its failure, or None if there is no news."""
    message = None
    with contextlib.suppress(EOFError, OSError):
        if worker.pipe in signalled or worker.pipe.poll():
            message = worker.pipe.recv()
    if message is not None:
        kind, value = message
        if kind in ("start", "raised"):
            raise value
        if kind == "ready":
            worker.ready = True
            return None
        return JobError("error", value) if kind == "error" else value
    if not worker.process.is_alive():
        code = worker.process.exitcode
        if not worker.ready:
            raise RuntimeError(f"a worker process died at its start (exit code {code})")
        return JobError("crash", f"its process died (exit code {code})")
    if worker.job is not None and time.monotonic() > worker.deadline:
        return JobError("timeout", "it took too long")
    return None
