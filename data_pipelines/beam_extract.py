"""Extraction on Apache Beam, for footage that one machine is too small for (extra `beam`).

The same work as `clip_cache.extract_all`, on workers that a runner provides. All of them must see
the source and the output folder under the same paths (a network file system), have talkjax and its
dependencies installed, and be able to start the face-landmark environment. Results travel through
the cache, so a pipeline that was cancelled goes on where it stopped, on Beam or without.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from data_pipelines import clip_cache


class _Extract(beam.DoFn):
    def __init__(self, make: Callable[[], Callable]):
        self._make, self._work = make, None

    def setup(self):
        self._work = self._make()

    def process(self, job):
        yield self._work(job)["status"]

    def teardown(self):
        self._work = None  # ends its face-landmark worker


def extract_all(
    jobs: Sequence[clip_cache.Job],
    cache: pathlib.Path,
    options,
    beam_options: Sequence[str],
    make: Callable = clip_cache.make_work,
) -> Iterator[tuple[dict, bool]]:
    """Yields (outcome, whether it was found in the cache) of all jobs.

    Args:
      jobs, cache, options, make: as in `clip_cache.extract_all`.
      beam_options: pipeline options, e.g. ["--runner=DirectRunner"].
    """
    known = {job.key for job in jobs if clip_cache.read_outcome(cache, job) is not None}
    pending = [job for job in jobs if job.key not in known]
    if pending:
        work = functools.partial(make, os.fspath(cache), options)
        with beam.Pipeline(options=PipelineOptions(list(beam_options))) as pipeline:
            # Reshuffled, or a runner may put all of them through one worker.
            created = pipeline | beam.Create(pending, reshuffle=True)
            created | beam.ParDo(_Extract(work))
    for job in jobs:
        outcome = clip_cache.read_outcome(cache, job)
        if outcome is None:
            outcome = clip_cache.write_failure(cache, job, "crash", "no worker finished it", 0.0)
        yield outcome, job.key in known
