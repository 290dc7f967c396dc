"""The cache of extracted clips: each video's work is done once, however often a run is killed.

    SHARDS/.cache/KEY.json        what came of one video; written last, so it vouches for the rest
    SHARDS/.cache/KEY-0.npz ...   its clip records

KEY is a hash of the video's relative path, size and time of change and of all extraction settings:
a changed video or setting is extracted anew, everything else is found again.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator

from data_pipelines import records
from talkjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Job:
    """One video to extract: where it is, its id, and its key in the cache."""

    path: str
    clip_id: str
    key: str


def list_jobs(source: str | os.PathLike, out: str | os.PathLike, options) -> list[Job]:
    """All videos under `source`, sorted by relative path; `out` and hidden folders are passed over.

    Args:
      source: a folder, searched recursively.
      out: may lie inside of it.
      options: `extract.ExtractOptions`.

    Raises:
      UserError: not a folder, or no video in it.
    """
    from data_pipelines import extract

    root, out = pathlib.Path(source), pathlib.Path(out).resolve()
    if not root.is_dir():
        raise UserError(f"--source={source} is not a folder; give a folder of videos")
    settings = json.dumps([extract.VERSION, dataclasses.asdict(options)], sort_keys=True)
    jobs = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [
            d
            for d in subfolders
            if not d.startswith(".") and pathlib.Path(folder, d).resolve() != out
        ]
        for name in names:
            if not extract.is_video(name) or name.startswith("."):
                continue
            path = os.path.join(folder, name)
            clip_id = extract.safe_id(os.path.relpath(path, root))
            with contextlib.suppress(FileNotFoundError):  # a dangling link, or gone meanwhile
                stat = os.stat(path)
                identity = f"{clip_id}\0{stat.st_size}\0{stat.st_mtime_ns}\0{settings}"
                key = hashlib.sha256(identity.encode()).hexdigest()[:32]
                jobs.append(Job(path, clip_id, key))
    if not jobs:
        kinds = ", ".join(sorted(extract.VIDEO_SUFFIXES))
        raise UserError(f"no video in {source}; files must end in one of {kinds}")
    return sorted(jobs, key=lambda job: job.clip_id)


def read_outcome(cache: pathlib.Path, job: Job) -> dict | None:
    """What an earlier run found out about a video, or None if it has yet to be looked at."""
    try:
        outcome = json.loads((cache / f"{job.key}.json").read_text())
        sizes = [(cache / part["file"]).stat().st_size for part in outcome["parts"]]
    except (OSError, ValueError, KeyError):
        return None
    return outcome if sizes == [part["bytes"] for part in outcome["parts"]] else None


def write_failure(cache: pathlib.Path, job: Job, reason: str, detail: str, elapsed: float) -> dict:
    """Notes that a video gives no clip, and why."""
    outcome = {
        "source": job.clip_id, "status": "left_out", "reason": reason, "detail": detail,
        "parts": [], "frames": 0, "seconds": 0.0, "elapsed": elapsed,
    }  # fmt: skip
    records.write_json(cache / f"{job.key}.json", outcome)
    return outcome


def make_work(cache: str, options) -> Callable[[Job], dict]:
    """Prepares a process for extraction: one FaceMesh client, single-threaded OpenCV.

    Returns:
      A function that extracts one video into the cache and returns its outcome; it raises nothing
      but OSError (the cache cannot be written).
    """
    import cv2

    from talkjax.media.facemesh import FaceMesh

    cv2.setNumThreads(1)
    mesh = FaceMesh(options.max_faces)
    mesh.__enter__()  # starts its worker now: if it cannot run, no video can be prepared
    return functools.partial(extract_one, pathlib.Path(cache), options, mesh)


def extract_one(cache: pathlib.Path, options, mesh, job: Job) -> dict:
    """Extracts one video into the cache; returns its outcome. Raises OSError if it cannot write."""
    from data_pipelines import extract

    start = time.monotonic()
    try:
        extraction = extract.extract_video(job.path, job.clip_id, mesh, options)
    except extract.LeftOutError as error:
        elapsed = time.monotonic() - start
        return write_failure(cache, job, error.reason, error.detail, elapsed)
    except Exception as error:  # a bug or a strange file: this video's loss alone
        elapsed = time.monotonic() - start
        return write_failure(cache, job, "error", f"{type(error).__name__}: {error}", elapsed)
    parts = []
    for number, clip in enumerate(extraction.clips):
        path = cache / f"{job.key}-{number}.npz"
        records.save_npz(path, clip)
        parts.append(
            {
                "clip_id": clip.clip_id,
                "file": path.name,
                "bytes": path.stat().st_size,
                "frames": clip.num_frames,
                "ticks": clip.num_ticks,
                "frames_interpolated": int((~clip.face_found).sum()),
            }
        )
    outcome = {
        "source": job.clip_id,
        "status": "kept",
        "reason": "",
        "detail": "",
        "truncated": extraction.truncated,
        "parts": parts,
        "frames": extraction.frames,
        "frames_without_face": extraction.frames_without_face,
        "seconds": sum(part["ticks"] for part in parts) / records.TICKS_PER_SECOND,
        "dropped": [{"reason": r, "seconds": round(s, 3)} for r, s in extraction.dropped],
        "elapsed": time.monotonic() - start,
    }
    records.write_json(cache / f"{job.key}.json", outcome)
    return outcome


def extract_all(
    jobs: list[Job],
    cache: pathlib.Path,
    options,
    workers: int,
    timeout: float,
    make: Callable = make_work,
) -> Iterator[tuple[dict, bool]]:
    """Yields (outcome, whether it was found in the cache) of all jobs, cached ones first.

    `make` is called as `make_work` in every process; tests give one without a real face finder.
    """
    from data_pipelines.workers import JobError, run_jobs

    pending = []
    for job in jobs:
        outcome = read_outcome(cache, job)
        if outcome is None:
            pending.append(job)
        else:
            yield outcome, True
    work = functools.partial(make, os.fspath(cache), options)
    for job, result in run_jobs(pending, work, workers, timeout):
        if isinstance(result, JobError):
            result = write_failure(cache, job, result.kind, result.detail, 0.0)
        yield result, False
