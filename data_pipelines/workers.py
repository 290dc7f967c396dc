"""Worker processes that survive their jobs: a crash or a hang costs one job, never the run.

A damaged video can crash a decoder, after which `concurrent.futures` gives up on all jobs. Pebble
replaces the process instead, and ends those that take too long.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pebble
from pebble.common import ProcessExpired

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # respects the limits of containers and schedulers
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class JobError(Exception):
    """Takes the place of a failed job's result; `kind` is "crash", "timeout" or "error"."""

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


class JobPool:
    """Fresh processes that run jobs, each with single-threaded numerics.

    Threads may share a pool. If the parent is killed, a process ends when its job does.

    Args:
      make_work: Called once in each process; returns the function that does a job. It must be
        picklable by name. If it raises, so does every job, since no process could do better.
      workers: Number of processes.
      timeout: Seconds after which a job is given up.
    """

    def __init__(self, make_work: Callable[[], Callable[[Any], Any]], workers: int, timeout: float):
        self._timeout = timeout
        self._pool = pebble.ProcessPool(
            workers,
            initializer=_start,
            initargs=(make_work,),
            context=multiprocessing.get_context("spawn"),
        )
        saved = {name: os.environ.get(name) for name in _ONE_THREAD}
        # Until the pool is closed, because it starts processes at any time.
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        self._end = weakref.finalize(self, _stop, self._pool, saved)

    def schedule(self, job: Any) -> concurrent.futures.Future:
        """Hands in a job, which is plain data; `result_of` waits for its result."""
        return self._pool.schedule(_do, (job,), timeout=self._timeout)

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        self._end()


def result_of(future: concurrent.futures.Future) -> Any:
    """Waits for a job's result; a `JobError` if the job raised, crashed its process or hung.

    Raises:
      Exception: What `make_work` raised, or any OSError of a job (the disk is full, a folder is
        gone), because such errors would fail every further job as well.
    """
    try:
        ok, value = future.result()
    except ProcessExpired as error:
        return JobError("crash", f"its process died (exit code {error.exitcode})")
    except TimeoutError:
        return JobError("timeout", "it took too long")
    except concurrent.futures.process.BrokenProcessPool as error:
        raise RuntimeError("a worker process died at its start") from error
    return value if ok else JobError("error", value)


def run_jobs(
    jobs: Sequence[Any],
    make_work: Callable[[], Callable[[Any], Any]],
    workers: int,
    timeout: float,
) -> Iterator[tuple[Any, Any]]:
    """Runs jobs on the processes of a `JobPool`, which close with this iterator.

    Args:
      jobs: Plain data, handed in in order.
      make_work, workers, timeout: See `JobPool`.

    Yields:
      (job, result) in the order of completion; see `result_of`, also for what it raises.
    """
    if not jobs:
        return
    workers = min(workers, len(jobs))
    queue, running = iter(jobs), {}
    with contextlib.closing(JobPool(make_work, workers, timeout)) as pool:
        while True:
            # A few ahead, so that no process waits; not all, since there may be a million.
            for job in queue:
                running[pool.schedule(job)] = job
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            first = concurrent.futures.FIRST_COMPLETED
            for future in concurrent.futures.wait(running, return_when=first).done:
                yield running.pop(future), result_of(future)


# ---- in the worker process ----------------------------------------------------------------------

_work: Callable[[Any], Any] | None = None
_start_error: Exception | None = None


def _start(make_work: Callable[[], Callable[[Any], Any]]) -> None:
    global _work, _start_error
    try:
        _work = make_work()
    except Exception as error:  # the first job reports it: pebble would only log it
        _start_error = error


def _do(job: Any) -> tuple[bool, Any]:
    """Returns (True, result) or (False, description of the error)."""
    if _start_error is not None:
        raise _start_error
    try:
        return True, _work(job)
    except OSError:
        raise
    except Exception as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        last = traceback.extract_tb(error.__traceback__)[-1]
        return False, f"{text} at {os.path.basename(last.filename)}:{last.lineno}"


# ---- in the parent ------------------------------------------------------------------------------


def _stop(pool: pebble.ProcessPool, environment: dict[str, str | None]) -> None:
    pool.stop()
    pool.join()
    for name, value in environment.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
