"""Finds usable excerpts in a table of recordings; `synthesize_speech` gives them faces.

Recordings without given phone times are aligned by worker processes. What they find is kept as
JSON lines, which can be given to another run.
"""

import collections
import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from talkjax.errors import UserError

from .synthetic.speech import alignments, recordings
from .synthetic.speech.alignments import Alignment
from .synthetic.speech.recordings import Excerpt, Recording
from .workers import JobError, run_jobs

_PER_JOB = 10
_SECONDS_PER_JOB = 1200.0


@dataclass(frozen=True)
class Found:
    """Excerpts of a table.

    Attributes:
      excerpts: (row, number within the recording, excerpt) in order.
      texts: Transcript of each row.
      recordings: Number of recordings.
      dropped: Number of recordings and parts that were left out, by reason.
      dropped_seconds: Their duration.
    """

    excerpts: list[tuple[int, int, Excerpt]]
    texts: list[str]
    recordings: int
    dropped: dict[str, int]
    dropped_seconds: float


def find_excerpts(
    table: str | os.PathLike,
    given: str | os.PathLike | None,
    cache: str | os.PathLike,
    seconds: float,
    workers: int,
) -> Found:
    """Reads a table, aligns what has no phone times, and cuts the recordings at pauses.

    Args:
      table: Table of recordings, see `recordings.read_table`.
      given: File with the phone times of the recordings whose row names none, or None.
      cache: JSON lines with the alignments that were made here, which grow.
      seconds: Approximate duration of an excerpt.
      workers: Number of processes.

    Raises:
      UserError: A file cannot be read, a package is missing, or no recording can be used.
    """
    rows = recordings.read_table(table)
    named = sorted({r.alignment for r in rows if r.alignment})
    sources = {name: alignments.read_alignments(name) for name in named}
    common = alignments.read_alignments(given) if given else None
    made = _read_made(pathlib.Path(cache))
    todo = [r for r in rows if not r.alignment and common is None and r.name not in made]
    for r in todo:
        if r.language.split("-")[0] != "en":
            raise UserError(
                f"{r.name} is in {r.language!r}, and only English is aligned here; give phone "
                "times in the column alignment or with --alignments"
            )
    made |= _align(todo, pathlib.Path(cache), workers)
    excerpts, dropped, lost = [], collections.Counter(), 0.0
    for number, r in enumerate(tqdm(rows, desc="cutting", unit="recording")):
        if r.alignment:
            alignment = _only(sources[r.alignment], r)
        else:
            alignment = made[r.name] if common is None else recordings.find_alignment(common, r)
        length = recordings.measure(r.path)
        if fault := recordings.find_fault(alignment, r, length):
            dropped[fault] += 1
            lost += length
            continue
        parts, short = recordings.cut(r, alignment, length, seconds)
        dropped["no pause or too short"] += len(short)
        lost += sum(short)
        excerpts += [(number, k, part) for k, part in enumerate(parts)]
    counts = {reason: count for reason, count in dropped.items() if count}
    if not excerpts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise UserError(f"{table}: no recording can be used ({reasons})")
    return Found(excerpts, [r.text for r in rows], len(rows), counts, lost)


def _read_made(cache: pathlib.Path) -> dict[str, Alignment]:
    """Reads earlier alignments. A process that was killed may have left half of a line."""
    made: dict[str, Alignment] = {}
    if cache.is_file():
        for line in cache.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
                made |= alignments.parse_json_lines(line)
    return made


def _only(found: dict[str, Alignment], recording: Recording) -> Alignment | None:
    """A file with one alignment is that of the row that names it, whatever its name."""
    if len(found) == 1:
        return next(iter(found.values()))
    return recordings.find_alignment(found, recording)


def _align(todo: Sequence[Recording], cache: pathlib.Path, workers: int) -> dict[str, Alignment]:
    jobs = [list(todo[i : i + _PER_JOB]) for i in range(0, len(todo), _PER_JOB)]
    made: dict[str, Alignment] = {}
    if not jobs:
        return made
    with (
        tqdm(total=len(todo), desc="aligning", unit="recording") as bar,
        cache.open("a", encoding="utf-8") as file,
        contextlib.closing(run_jobs(jobs, _make_work, workers, _SECONDS_PER_JOB)) as results,
    ):
        for job, result in results:
            if isinstance(result, JobError):
                raise UserError(f"aligning {job[0].name} to {job[-1].name} failed: {result}")
            for line in result:
                if isinstance(line, dict):
                    raise UserError(line["error"])
                file.write(f"\n{line}\n")
            file.flush()
            bar.update(len(job))
            made |= alignments.parse_json_lines("\n".join(result))
    return made


def _make_work() -> Callable[[Sequence[Recording]], list]:
    from .synthetic.speech.forced_alignment import Aligner

    return functools.partial(_align_job, Aligner())


def _align_job(aligner, job: Sequence[Recording]) -> list:
    """Returns a line of JSON per recording, or {"error"} where one cannot be read."""
    out: list = []
    for r in job:
        try:
            alignment = aligner.align(recordings.load(r.path), r.text)
        except UserError as error:
            return [*out, {"error": str(error)}]
        out.append(alignments.to_json_line(r.name, alignment or Alignment()))
    return out
