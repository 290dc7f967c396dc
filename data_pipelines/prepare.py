"""Prepares any folder of videos for training.

    python -m data_pipelines.prepare --source=VIDEOS --out=SHARDS --holdout=60

Finds and follows a face in every video, cuts leak-safe crops, computes log-mels and packs all of it
into ArrayRecord shards. A run that was stopped, by whatever, is started again with the same
command and goes on. Afterwards SHARDS holds

    talkjax_clips/VERSION/   the shards, a TFDS data set
    manifest.jsonl           one line per video: kept or left out, and why
    summary.json             the counts
    .cache/                  extracted clips; may be deleted when no more videos will be added

Splits: if every video lies under a folder `train`, `validation` or `test` of SOURCE, those are the
splits; else the last `--holdout` of the kept videos by name are `test`.
"""

import collections
import contextlib
import functools
import hashlib
import io
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags, logging
from tqdm import tqdm

from data_pipelines import clip_cache, records
from data_pipelines.extract import ExtractOptions
from data_pipelines.workers import cores
from talkjax.commands import run_main
from talkjax.errors import UserError
from talkjax.media import tracking

SPLITS = ("train", "validation", "test")


def prepare(
    source: str | os.PathLike,
    out: str | os.PathLike,
    options: ExtractOptions,
    *,
    workers: int,
    holdout: int | None = None,
    holdout_fraction: float = 0.1,
    timeout: float = 1800.0,
    limit: int | None = None,
    beam_options: Sequence[str] = (),
    make_work: Callable = clip_cache.make_work,
) -> dict:
    """Extracts and packs a folder; see the module's docstring for the files.

    Args:
      source: folder of videos.
      out: folder of the shards.
      options: of the extraction.
      workers: processes.
      holdout: number of videos for the test split, or None to go by `holdout_fraction`.
      holdout_fraction: share of the kept videos.
      timeout: seconds after which a video's extraction is given up.
      limit: only the first so many videos by name.
      beam_options: if there are any, Apache Beam extracts and packs with them (and `workers` and
        `timeout` are the runner's affair); see `beam_extract`.
      make_work: prepares a worker process, see `clip_cache.make_work`.

    Returns:
      The contents of `summary.json`.

    Raises:
      UserError: nothing to prepare, nothing kept, or `out` cannot be written.
    """
    started = time.monotonic()
    jobs = clip_cache.list_jobs(source, out, options)[:limit]
    out = pathlib.Path(out)
    cache = out / ".cache"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe = cache / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
        found = _extraction(jobs, cache, options, workers, timeout, beam_options, make_work)
        outcomes, timing = _collect(jobs, found)
        splits = assign_splits(outcomes, holdout, holdout_fraction)
        summary = _write_manifest(out, outcomes, splits) | timing
        summary["source"] = str(pathlib.Path(source).resolve())
        if not summary["clips"]:
            raise UserError(
                f"none of the {len(jobs)} videos in {source} can be used "
                f"({_listed(summary['left_out'])}); {out / 'manifest.jsonl'} says more"
            )
        summary["packed_again"] = pack(out, outcomes, splits, options.crop_size, beam_options)
        summary["elapsed_seconds"] = round(time.monotonic() - started, 2)
        records.write_json(out / "summary.json", summary)
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error.strerror or error}; make room there or choose "
            "another --out (what is done is kept)"
        ) from error
    return summary


def _extraction(jobs, cache, options, workers, timeout, beam_options, make_work) -> Iterator:
    if not beam_options:
        return clip_cache.extract_all(jobs, cache, options, workers, timeout, make_work)
    try:
        from data_pipelines import beam_extract
    except ImportError as error:
        raise UserError("Apache Beam is not installed; `pip install talkjax[beam]`") from error
    return beam_extract.extract_all(jobs, cache, options, beam_options, make_work)


def _collect(jobs, found: Iterator) -> tuple[list[dict], dict]:
    outcomes, frames, new, begun = {}, 0, 0, time.monotonic()
    with tqdm(total=len(jobs), desc="preparing", unit="clip", smoothing=0.05) as bar:
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
    outcomes: Sequence[dict], holdout: int | None, holdout_fraction: float
) -> dict[str, str]:
    """Gives every kept video its split, by source name (see the module's docstring).

    Raises:
      UserError: as many videos are held out as there are.
    """
    kept = [o["source"] for o in outcomes if o["parts"]]
    folders = {name: name.split("/")[0] for name in kept if "/" in name}
    if len(folders) == len(kept) and set(folders.values()) <= set(SPLITS) and holdout is None:
        return folders
    if holdout is None:
        holdout = max(1, round(len(kept) * holdout_fraction)) if holdout_fraction else 0
        holdout = min(holdout, max(0, len(kept) - 1))
    elif kept and not 0 <= holdout < len(kept):
        raise UserError(
            f"--holdout={holdout} leaves nothing to train on: {len(kept)} videos were kept; "
            "hold out fewer or add videos"
        )
    return {n: "test" if i >= len(kept) - holdout else "train" for i, n in enumerate(kept)}


def _write_manifest(out: pathlib.Path, outcomes: Sequence[dict], splits: dict[str, str]) -> dict:
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
    records.write_atomically(out / "manifest.jsonl", lambda file: file.write(text.encode()))
    return {
        "videos": len(outcomes),
        "kept": sum(total["videos"] for total in totals.values()),
        "left_out": dict(left_out.most_common()),
        "clips": sum(total["clips"] for total in totals.values()),
        "splits": {name: total for name, total in totals.items() if total["clips"]},
    }


def pack(
    out: pathlib.Path,
    outcomes: Sequence[dict],
    splits: dict[str, str],
    crop_size: int,
    beam_options: Sequence[str] = (),
) -> bool:
    """Writes the shards unless they hold just these clips already; returns whether it did."""
    cache, names, ticks, paths = out / ".cache", {}, {}, {}
    digest = hashlib.sha256()
    for outcome in outcomes:
        for part in outcome["parts"]:
            split = splits[outcome["source"]]
            names.setdefault(split, []).append(part["clip_id"])
            ticks.setdefault(split, []).append(part["ticks"])
            paths.setdefault(split, []).append(os.fspath(cache / part["file"]))
            digest.update(f"{split}\0{part['clip_id']}\0{part['file']}\n".encode())
    final = out / records.DATASET_NAME
    index = {"fingerprint": digest.hexdigest(), "crop_size": crop_size}
    try:
        found = json.loads((records.find_dataset(out) / "index.json").read_text())
        if found["fingerprint"] == index["fingerprint"]:
            return False
    except (UserError, OSError, ValueError, KeyError):
        pass
    # Built beside, then swapped in: whoever reads `out` finds the old shards or the new ones.
    staging, old = out / ".packing", out / ".packed_before"
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    _build(staging, paths, beam_options)
    if beam_options:  # which has put them into an order of its own
        for split in names:
            reader = records.ShardReader(staging, split)
            found = [(c.clip_id, c.num_ticks) for c in reader.scan()]
            names[split], ticks[split] = map(list, zip(*found, strict=True))
    index |= {"clips": names, "ticks": ticks}
    records.write_json(records.find_dataset(staging) / "index.json", index)
    if final.exists():
        os.rename(final, old)
    os.rename(staging / records.DATASET_NAME, final)
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    return True


def _build(
    data_dir: pathlib.Path, paths: dict[str, list[str]], beam_options: Sequence[str]
) -> None:
    import tensorflow_datasets as tfds

    from data_pipelines.builder import TalkjaxClips

    config = tfds.download.DownloadConfig()
    if beam_options:
        from apache_beam.options.pipeline_options import PipelineOptions

        config.beam_options = PipelineOptions(list(beam_options))
    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        # It prints that it downloads, which it does not.
        with contextlib.redirect_stdout(io.StringIO()):
            builder = TalkjaxClips(
                data_dir=os.fspath(data_dir), clips=paths, beam=bool(beam_options)
            )
            builder.download_and_prepare(download_config=config)
    finally:
        logging.set_verbosity(verbosity)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "none"


def main(argv: Sequence[str], values: flags.FlagValues) -> None:
    """The command; `values` are the flags of `define_flags`."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; options are written --name=value")
    if not values.source or not values.out:
        raise UserError("say what to prepare and where to: --source=VIDEOS --out=SHARDS")
    face = tracking.parse_face(values.face)
    if face != "largest":
        values.max_faces = max(values.max_faces, int(face) + 1)
    options = ExtractOptions(
        crop_size=values.crop_size,
        min_seconds=values.min_seconds,
        max_seconds=values.max_seconds,
        face=str(face),
        max_faces=values.max_faces,
    )
    if options.max_seconds < options.min_seconds:
        raise UserError("--max_seconds is less than --min_seconds; give a larger one")
    workers = values.workers or cores()
    summary = prepare(
        values.source, values.out, options, workers=workers, holdout=values.holdout,
        holdout_fraction=values.holdout_fraction, timeout=values.timeout, limit=values.limit,
        beam_options=values.beam_option,
    )  # fmt: skip
    for name, total in summary["splits"].items():
        print(f"{name}: {total['clips']} clips, {total['frames']} frames, {total['seconds']:.0f} s")
    print(f"left out: {_listed(summary['left_out'])}; see {values.out}/manifest.jsonl")
    if summary["frames_per_second"]:
        print(
            f"{summary['frames_extracted_now']} frames extracted at "
            f"{summary['frames_per_second']} frames/s on {workers} processes"
        )


def define_flags() -> flags.FlagValues:
    """The command's flags, which exist only when it runs: other commands have some alike."""
    flags.DEFINE_string("source", None, "Folder of videos, searched recursively.")
    flags.DEFINE_string("out", None, "Folder for the shards, the manifest and the cache.")
    flags.DEFINE_integer("crop_size", 128, "Side of the face crops, px.", lower_bound=16)
    flags.DEFINE_integer("workers", 0, "Processes; 0 for one per core.", lower_bound=0)
    flags.DEFINE_integer("holdout", None, "Videos for the test split, the last ones by name.")
    flags.DEFINE_float("holdout_fraction", 0.1, "Their share, if --holdout is not given.", 0.0, 0.9)
    flags.DEFINE_float("min_seconds", 1.0, "Shorter parts are left out.", lower_bound=0.1)
    flags.DEFINE_float("max_seconds", 20.0, "Longer parts are split.", lower_bound=0.2)
    flags.DEFINE_string("face", "largest", "`largest`, or a number from 0, left to right.")
    flags.DEFINE_integer("max_faces", 3, "Faces looked for in a frame.", lower_bound=1)
    flags.DEFINE_float("timeout", 1800.0, "Seconds after which a video is given up.", 1.0)
    flags.DEFINE_multi_string(
        "beam_option", [], "Use Apache Beam, with this pipeline option: --beam_option=--runner=..."
    )
    flags.DEFINE_integer("limit", None, "Only the first so many videos by name.", lower_bound=1)
    return flags.FLAGS


if __name__ == "__main__":
    flag_values = define_flags()
    app.run(functools.partial(run_main, functools.partial(main, values=flag_values)))
