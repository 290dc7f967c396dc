"""Preparation on Apache Beam, for footage that one machine is too small for (extra `beam`).

The same work as `clip_cache.extract_all` and `shards.write_all` do on one machine, on the workers
of a runner. All of them must see the source and the output folder under the same paths (a network
file system), have talkjax and its dependencies installed, and be able to start the face-landmark
environment. Results travel through those folders: a pipeline that was cancelled goes on where it
stopped, on Beam or without, and what comes out does not depend on the runner.
"""

import functools
import logging
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from data_pipelines import clip_cache, shards
from data_pipelines.workers import JobError, Worker
from talkjax.errors import UserError

BeamOptions = Sequence[str] | PipelineOptions


def extract_all(
    jobs: Sequence[clip_cache.Job],
    cache: pathlib.Path,
    options,
    timeout: float,
    beam_options: BeamOptions,
    make: Callable = clip_cache.make_work,
) -> Iterator[tuple[dict, bool]]:
    """Yields (outcome, whether it was found in the cache) of all jobs, in their order.

    Args:
      jobs, cache, options, timeout, make: as in `clip_cache.extract_all`.
      beam_options: pipeline options, e.g. ["--runner=DirectRunner"].

    Raises:
      UserError: the pipeline failed.
    """
    known = {job.key for job in jobs if clip_cache.read_outcome(cache, job) is not None}
    pending = [job for job in jobs if job.key not in known]
    if pending:
        work = functools.partial(make, os.fspath(cache), options)
        _run(pending, beam.ParDo(_Extract(work, timeout, os.fspath(cache))), beam_options)
    for job in jobs:
        outcome = clip_cache.read_outcome(cache, job)
        if outcome is None:
            outcome = clip_cache.write_failure(cache, job, "crash", "no worker finished it", 0.0)
        yield outcome, job.key in known


def write_shards(plan: Sequence[shards.Shard], beam_options: BeamOptions) -> None:
    """Writes shards side by side; each is written by one worker.

    Raises:
      UserError: the pipeline failed.
    """
    _run(plan, beam.Map(shards.write), beam_options)


def _run(elements: Sequence, transform: beam.PTransform, options: BeamOptions) -> None:
    if not isinstance(options, PipelineOptions):
        options = PipelineOptions(list(options))
    try:
        with beam.Pipeline(options=options) as pipeline:
            # Reshuffled, or a runner may put all of them through one worker.
            pipeline | beam.Create(elements, reshuffle=True) | transform
    except Exception as error:  # every runner has exceptions of its own
        logging.getLogger(__name__).debug("the pipeline failed", exc_info=True)
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UserError(
            f"the Beam pipeline failed ({last[0].strip()[:300]}); the same command goes on from "
            "what is done"
        ) from error


class _Extract(beam.DoFn):
    """Extracts with one FaceMesh worker a Beam worker process, whose threads take turns."""

    def __init__(self, make: Callable[[], Callable], timeout: float, cache: str):
        self._make, self._timeout, self._cache = make, timeout, pathlib.Path(cache)
        self._shared, self._turns = Shared(), None

    def setup(self):
        self._turns = self._shared.acquire(functools.partial(_Turns, self._make, self._timeout))

    def process(self, job: clip_cache.Job):
        result = self._turns.run(job)
        if isinstance(result, JobError):
            clip_cache.write_failure(self._cache, job, result.kind, result.detail, 0.0)

    def teardown(self):
        self._turns = None  # the last one ends the process


class _Turns:
    def __init__(self, make: Callable[[], Callable], timeout: float):
        self._worker, self._lock = Worker(make, timeout), threading.Lock()

    def run(self, job: clip_cache.Job):
        with self._lock:
            return self._worker.run(job)
