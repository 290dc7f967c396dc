"""The preparation behind every data set: extracts the clips of a catalog and assigns splits.

`prepare` is the command that runs it, and `builder` has the TFDS builders that run it.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from talkjax import files
from talkjax.errors import UserError

from . import clip_cache
from .datasets.catalog import Catalog
from .extract import ExtractOptions
from .workers import cores

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """Settings of the preparation.

    Attributes:
      extract: Settings of the extraction.
      workers: Number of processes; 0 for one per core.
      timeout: Seconds after which the extraction of a clip is given up.
      limit: Number of clips to prepare, the first ones by name; None for all.
      holdout: Number of videos in the test split; None for `holdout_fraction`. Only for data sets
        without splits of their own.
      holdout_fraction: Share of the kept videos in the test split.
      lists_sha256: See `datasets.read_catalog`.
      beam_options: Pipeline options. If there are any, Apache Beam extracts and packs (`beam`).
      make_work: Prepares a worker process, see `clip_cache.make_work`.
    """

    extract: ExtractOptions = ExtractOptions()  # noqa: RUF009, it is frozen
    workers: int = 0
    timeout: float = 1800.0
    limit: int | None = None
    holdout: int | None = None
    holdout_fraction: float = 0.1
    lists_sha256: str | os.PathLike | None = None
    beam_options: Sequence[str] = ()
    make_work: Callable = clip_cache.make_work


@dataclasses.dataclass(frozen=True)
class Packing:
    """The contents of shards.

    Attributes:
      clips: Clips by split, in order: paths of `.npz` records, or what another `shards.Source`
        knows.
      index: `fingerprint` and `crop_size` of the index, see `talkjax.data.storage.read_index`.
    """

    clips: dict[str, list[str]]
    index: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The result of preparing a catalog.

    Attributes:
      packing: The contents of the shards, which are still to be written.
      summary: The statistics for `summary.json`.
    """

    packing: Packing
    summary: dict[str, Any]


def run(
    catalog: Catalog,
    source: str | os.PathLike,
    cache: pathlib.Path,
    settings: PrepareOptions,
    manifest: pathlib.Path,
) -> Prepared:
    """Extracts what is not in the cache yet and writes `manifest.jsonl`, even if nothing is kept.

    Args:
      catalog: See `datasets.read_catalog`.
      source: Folder of the catalog, for messages and `summary.json`.
      cache: Folder of the cache, which is created if necessary.
      settings: See `PrepareOptions`.
      manifest: File that lists the outcome of every clip, including absent ones.

    Raises:
      UserError: Nothing is kept, or `assign_splits` or Apache Beam fails.
      OSError: A folder cannot be written.
    """
    cache.mkdir(parents=True, exist_ok=True)
    probe = cache / f".probe-{os.getpid()}"
    probe.touch()
    probe.unlink()
    jobs = clip_cache.make_jobs(catalog.clips[: settings.limit], settings.extract)
    outcomes, timing = _collect(jobs, _extraction(jobs, cache, settings))
    splits = assign_splits(
        outcomes, {job.clip_id: job.clip.split for job in jobs}, settings, catalog.dataset
    )
    absent = [clip_cache.left_out(a.clip_id, a.reason, a.detail) for a in catalog.absent]
    counts = _write_manifest(manifest, outcomes + absent, splits)
    summary = {"dataset": catalog.dataset, "source": str(pathlib.Path(source).resolve())}
    summary |= counts | timing | {"lists_sha256": catalog.lists}
    if not summary["clips"]:
        raise UserError(
            f"none of the {len(jobs)} videos in {source} can be used "
            f"({list_counts(summary['left_out'])}); see {manifest} for the reasons"
        )
    packing = make_packing(outcomes, splits, cache, settings.extract.crop_size)
    return Prepared(packing, summary)


def _extraction(jobs, cache: pathlib.Path, settings: PrepareOptions) -> Iterator:
    options, timeout, make = settings.extract, settings.timeout, settings.make_work
    if not settings.beam_options:
        workers = settings.workers or cores()
        return clip_cache.extract_all(jobs, cache, options, workers, timeout, make)
    try:
        from . import beam
    except ImportError as error:
        raise UserError(
            "Apache Beam is not installed; install it with `pip install talkjax[beam]`"
        ) from error
    return beam.extract_all(jobs, cache, options, timeout, settings.beam_options, make)


def _collect(jobs, found: Iterator) -> tuple[list[dict], dict]:
    outcomes, frames, new, begun = {}, 0, 0, time.monotonic()
    # On an error the worker processes behind `found` must end, too.
    bar = tqdm(total=len(jobs), desc="preparing", unit="clip", smoothing=0.05)
    with contextlib.closing(found), bar:
        for outcome, cached in found:
            outcomes[outcome["source"]] = outcome
            if not cached:
                new, frames = new + 1, frames + outcome["frames"]
                rate = frames / (time.monotonic() - begun)
                bar.set_postfix_str(f"{rate:.0f} frames/s", refresh=False)
            bar.update()
    seconds = time.monotonic() - begun
    timing = {
        "videos_extracted_now": new,
        "frames_extracted_now": frames,
        "frames_per_second": round(frames / seconds, 1) if frames else None,
    }
    return [outcomes[job.clip_id] for job in jobs], timing


def assign_splits(
    outcomes: Sequence[dict],
    own: dict[str, str | None],
    settings: PrepareOptions,
    dataset: str = "video_folder",
) -> dict[str, str]:
    """Returns the split of every kept clip, by id.

    The data set's own split counts. If it has none and every video is in a folder `train`,
    `validation` or `test`, that folder does. Otherwise the last videos by name are `test`.

    Args:
      outcomes: Outcomes of the extraction.
      own: The data set's split or None, by id.
      settings: `holdout` and `holdout_fraction` are read.
      dataset: Name of the data set, for messages.

    Raises:
      UserError: All videos would be held out, or `holdout` is set for a data set with splits.
    """
    kept = [o["source"] for o in outcomes if o["parts"]]
    holdout = settings.holdout
    if any(own.get(name) for name in kept):
        if holdout is not None:
            raise UserError(f"holdout={holdout}: {dataset} has splits of its own; leave it out")
        return {name: own[name] for name in kept}
    folders = {name: name.split("/")[0] for name in kept if "/" in name}
    if len(folders) == len(kept) and set(folders.values()) <= set(SPLITS) and holdout is None:
        return folders
    if holdout is None:
        share = settings.holdout_fraction
        holdout = max(1, round(len(kept) * share)) if share else 0
        holdout = min(holdout, max(0, len(kept) - 1))
    elif kept and not 0 <= holdout < len(kept):
        raise UserError(
            f"holdout={holdout} leaves nothing to train on, since {len(kept)} videos were kept; "
            "hold out fewer or add videos"
        )
    return {n: "test" if i >= len(kept) - holdout else "train" for i, n in enumerate(kept)}


def _write_manifest(
    path: pathlib.Path, outcomes: Sequence[dict], splits: dict[str, str]
) -> dict[str, Any]:
    lines, left_out = [], collections.Counter()
    totals = {split: {"videos": 0, "clips": 0, "frames": 0, "seconds": 0.0} for split in SPLITS}
    for outcome in outcomes:
        line = outcome | {"split": splits.get(outcome["source"])}
        lines.append(json.dumps(line, allow_nan=False))
        if not outcome["parts"]:
            left_out[outcome["reason"]] += 1
            continue
        total = totals[line["split"]]
        total["videos"] += 1
        total["clips"] += len(outcome["parts"])
        total["frames"] += sum(part["frames"] for part in outcome["parts"])
        total["seconds"] = round(total["seconds"] + outcome["seconds"], 3)
    text = "\n".join(lines) + "\n"
    files.write_text(path, text)
    return {
        "videos": len(outcomes),
        "kept": sum(total["videos"] for total in totals.values()),
        "left_out": dict(left_out.most_common()),
        "clips": sum(total["clips"] for total in totals.values()),
        "splits": {name: total for name, total in totals.items() if total["clips"]},
    }


def make_packing(
    outcomes: Sequence[dict], splits: dict[str, str], cache: pathlib.Path, crop_size: int
) -> Packing:
    """Collects the contents of shards.

    Args:
      outcomes: Outcomes of the extraction, of which "source" and "parts" are read.
      splits: Split by source.
      cache: Folder of the parts' files.
      crop_size: Side of the crops in pixels; 0 if there are no pictures.
    """
    paths: dict[str, list[str]] = {}
    digest = hashlib.sha256()
    for outcome in outcomes:
        for part in outcome["parts"]:
            split = splits[outcome["source"]]
            paths.setdefault(split, []).append(os.fspath(cache / part["file"]))
            digest.update(f"{split}\0{part['clip_id']}\0{part['file']}\n".encode())
    return Packing(paths, {"fingerprint": digest.hexdigest(), "crop_size": crop_size})


def list_counts(counts: dict[str, int]) -> str:
    """Formats counts: {"no_face": 2} becomes "2 no_face"."""
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "none"
