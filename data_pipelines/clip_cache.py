"""The cache of extracted clips: each video is processed once, however often a run is killed.

    SHARDS/.cache/KEY.json        the outcome of one video, written after its records
    SHARDS/.cache/KEY-0.npz ...   its clip records

KEY is a hash of the clip's id, the sizes and modification times of its files, the piece that is cut
out of them, and all extraction settings. So only what changed is extracted again.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

from talkjax import files
from talkjax.conventions import TICKS_PER_SECOND
from talkjax.data import records

from . import extract
from .datasets.catalog import Clip
from .workers import JobError, run_jobs


@dataclasses.dataclass(frozen=True)
class Job:
    """A clip to extract, and its key in the cache."""

    clip: Clip
    key: str

    @property
    def clip_id(self) -> str:
        """Id of the clip."""
        return self.clip.clip_id


def make_jobs(clips: Sequence[Clip], options) -> list[Job]:
    """Makes the jobs of clips, in their order, and skips files that no longer exist.

    Args:
      clips: Clips of a `datasets.catalog.Catalog`.
      options: `extract.ExtractOptions`.
    """
    settings = json.dumps([extract.VERSION, dataclasses.asdict(options)], sort_keys=True)
    jobs = []
    for clip in clips:
        with contextlib.suppress(FileNotFoundError):  # a dangling link, for example
            identity = f"{clip.clip_id}\0{_stamp(clip.path)}\0{settings}"
            if clip.audio:
                identity += f"\0{_stamp(clip.audio)}"
            if clip.interval or clip.box:
                identity += f"\0{clip.interval}\0{clip.box}"
            jobs.append(Job(clip, hashlib.sha256(identity.encode()).hexdigest()[:32]))
    return jobs


def _stamp(path: str) -> str:
    stat = os.stat(path)
    return f"{stat.st_size}\0{stat.st_mtime_ns}"


def read_outcome(cache: pathlib.Path, job: Job) -> dict | None:
    """Returns the outcome of a video in an earlier run, or None if it is not in the cache."""
    try:
        outcome = json.loads((cache / f"{job.key}.json").read_text())
        sizes = [(cache / part["file"]).stat().st_size for part in outcome["parts"]]
    except (OSError, ValueError, KeyError):
        return None
    return outcome if sizes == [part["bytes"] for part in outcome["parts"]] else None


def left_out(clip_id: str, reason: str, detail: str, elapsed: float = 0.0) -> dict:
    """Returns the outcome of a clip that is left out."""
    return {
        "source": clip_id, "status": "left_out", "reason": reason, "detail": detail,
        "parts": [], "frames": 0, "seconds": 0.0, "elapsed": elapsed,
    }  # fmt: skip


def write_failure(cache: pathlib.Path, job: Job, reason: str, detail: str, elapsed: float) -> dict:
    """Records that a video yields no clip, and why."""
    outcome = left_out(job.clip_id, reason, detail, elapsed)
    files.write_json(cache / f"{job.key}.json", outcome)
    return outcome


def make_work(cache: str, options) -> Callable[[Job], dict]:
    """Prepares a process for extraction: one FaceMesh client, single-threaded OpenCV.

    Returns:
      A function that extracts one video into the cache and returns its outcome. It raises only
      OSError, if the cache cannot be written.
    """
    import cv2

    from talkjax.media.facemesh import FaceMesh
    from talkjax.media.turned_faces import TurnedFaces

    cv2.setNumThreads(1)
    mesh = TurnedFaces(FaceMesh(options.max_faces))
    mesh.__enter__()  # starts the FaceMesh worker now; without it no video can be prepared
    return functools.partial(extract_one, pathlib.Path(cache), options, mesh)


def extract_one(cache: pathlib.Path, options, mesh, job: Job) -> dict:
    """Extracts one video into the cache and returns its outcome; OSError if it cannot write."""
    clip, start = job.clip, time.monotonic()
    try:
        extraction = extract.extract_video(
            clip.path, clip.clip_id, mesh, options,
            audio_path=clip.audio, interval=clip.interval, box=clip.box,
        )  # fmt: skip
    except extract.LeftOutError as error:
        elapsed = time.monotonic() - start
        return write_failure(cache, job, error.reason, error.detail, elapsed)
    except Exception as error:  # a bug or a strange file costs this video alone
        elapsed = time.monotonic() - start
        return write_failure(cache, job, "error", f"{type(error).__name__}: {error}", elapsed)
    parts = []
    for number, record in enumerate(extraction.clips):
        path = cache / f"{job.key}-{number}.npz"
        records.save_npz(path, record)
        parts.append(
            {
                "clip_id": record.clip_id,
                "file": path.name,
                "bytes": path.stat().st_size,
                "start": extraction.starts[number],
                "frames": record.num_frames,
                "ticks": record.num_ticks,
                "frames_interpolated": int((~record.face_found).sum()),
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
        "seconds": sum(part["ticks"] for part in parts) / TICKS_PER_SECOND,
        "dropped": [{"reason": r, "seconds": round(s, 3)} for r, s in extraction.dropped],
        "elapsed": time.monotonic() - start,
    }
    files.write_json(cache / f"{job.key}.json", outcome)
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

    `make` is called like `make_work` in every process; tests use one without a real face detector.
    """
    pending = []
    for job in jobs:
        outcome = read_outcome(cache, job)
        if outcome is None:
            pending.append(job)
        else:
            yield outcome, True
    work = functools.partial(make, os.fspath(cache), options)
    with contextlib.closing(run_jobs(pending, work, workers, timeout)) as results:
        for job, result in results:
            if isinstance(result, JobError):
                result = write_failure(cache, job, result.kind, result.detail, 0.0)
            yield result, False
