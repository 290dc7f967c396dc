"""Preparation on Apache Beam, for footage that is too much for one machine (extra `beam`).

This is the work of `clip_cache.extract_all` and `shards.write` on the workers of a runner. All of
them must see the source and the output folder under the same paths (a network file system), have
talkjax and its dependencies installed, and be able to start the face-landmark environment. Results
travel through those folders, so a cancelled pipeline resumes where it stopped, with Beam or
without, and the result does not depend on the runner.
"""

import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from talkjax.errors import UserError

from . import clip_cache, shards
from .workers import JobError, JobPool, result_of

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
      jobs, cache, options, timeout, make: See `clip_cache.extract_all`.
      beam_options: Pipeline options, for example ["--runner=DirectRunner"].

    Raises:
      UserError: The pipeline failed.
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
    """Writes shards in parallel, each on one worker.

    Raises:
      UserError: The pipeline failed.
    """
    _run(plan, beam.Map(shards.write), beam_options)


def _run(elements: Sequence, transform: beam.PTransform, options: BeamOptions) -> None:
    if not isinstance(options, PipelineOptions):
        options = PipelineOptions(list(options))
    try:
        with beam.Pipeline(options=options) as pipeline:
            # Without reshuffling, a runner may send all elements through one worker.
            pipeline | beam.Create(elements, reshuffle=True) | transform
    except Exception as error:  # every runner has exceptions of its own
        logging.getLogger(__name__).debug("the pipeline failed", exc_info=True)
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UserError(
            f"the Beam pipeline failed ({last[0].strip()[:300]}); the same command resumes from "
            "what is done"
        ) from error


class _Extract(beam.DoFn):
    """Extracts clips in one process per Beam worker process, whose threads take turns."""

    def __init__(self, make: Callable[[], Callable], timeout: float, cache: str):
        self._make, self._timeout, self._cache = make, timeout, pathlib.Path(cache)
        self._shared, self._pool = Shared(), None

    def setup(self):
        self._pool = self._shared.acquire(
            functools.partial(JobPool, self._make, workers=1, timeout=self._timeout)
        )

    def process(self, job: clip_cache.Job):
        result = result_of(self._pool.schedule(job))
        if isinstance(result, JobError):
            clip_cache.write_failure(self._cache, job, result.kind, result.detail, 0.0)

    def teardown(self):
        self._pool = None  # the last reference closes the pool
