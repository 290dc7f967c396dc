"""Prepares footage for training: any folder of videos, or a data set by its name.

    python -m data_pipelines.prepare --source=VIDEOS --out=SHARDS --holdout=60
    python -m data_pipelines.prepare --dataset=hdtf --source=HDTF --out=SHARDS

Finds and follows a face in every video, cuts leak-safe crops, computes log-mels and packs all of it
into ArrayRecord shards. A run that was stopped, by whatever, is started again with the same
command and goes on. Afterwards SHARDS holds

    DATASET/VERSION/         the shards, a TFDS data set
    manifest.jsonl           one line per video: kept or left out, and why
    summary.json             the counts
    .cache/                  extracted clips; may be deleted when no more videos will be added

Splits of a folder: if every video lies under a folder `train`, `validation` or `test` of SOURCE,
those are the splits; else the last `--holdout` of the kept videos by name are `test`. Named data
sets have splits of their own; docs/data.md has them, and how SOURCE is to look.
"""

import functools
import os
import pathlib
import time
from collections.abc import Sequence

from absl import app, flags

from data_pipelines import datasets, packing, preparation
from data_pipelines.extract import ExtractOptions
from data_pipelines.preparation import Settings
from data_pipelines.workers import cores
from talkjax import files
from talkjax.commands import run_main
from talkjax.errors import UserError
from talkjax.media import tracking


def prepare(
    source: str | os.PathLike,
    out: str | os.PathLike,
    settings: Settings,
    dataset: str = "video_folder",
) -> dict:
    """Extracts and packs a folder; see the module's docstring for the files.

    Args:
      source: folder of the footage.
      out: folder of the shards.
      settings: see `preparation.Settings`.
      dataset: one of `datasets.CATALOGS`.

    Returns:
      The contents of `summary.json`.

    Raises:
      UserError: nothing to prepare, nothing kept, or `out` cannot be written.
    """
    started = time.monotonic()
    catalog = datasets.read_catalog(dataset, source, out, settings.lists_sha256)
    out = pathlib.Path(out)
    packing.claim(out, dataset)
    try:
        manifest = out / "manifest.jsonl"
        done = preparation.run(catalog, source, out / ".cache", settings, manifest)
        summary = done.summary
        summary["packed_again"] = packing.pack(
            out, done.packing, dataset, catalog.lists, settings.beam_options
        )
        summary["elapsed_seconds"] = round(time.monotonic() - started, 2)
        files.write_json(out / "summary.json", summary)
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error.strerror or error}; make room there or choose "
            "another --out (what is done is kept)"
        ) from error
    return summary


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
    settings = Settings(
        extract=options, workers=workers, timeout=values.timeout, limit=values.limit,
        holdout=values.holdout, holdout_fraction=values.holdout_fraction,
        lists_sha256=values.lists_sha256, beam_options=values.beam_option,
    )  # fmt: skip
    summary = prepare(values.source, values.out, settings, values.dataset)
    for name, total in summary["splits"].items():
        print(f"{name}: {total['clips']} clips, {total['frames']} frames, {total['seconds']:.0f} s")
    left_out = preparation.list_counts(summary["left_out"])
    print(f"left out: {left_out}; see {values.out}/manifest.jsonl")
    if summary["frames_per_second"]:
        where = "Apache Beam" if values.beam_option else f"{workers} processes"
        print(
            f"{summary['frames_extracted_now']} frames extracted at "
            f"{summary['frames_per_second']} frames/s on {where}"
        )


def define_flags() -> flags.FlagValues:
    """The command's flags, which exist only when it runs: other commands have some alike."""
    names = list(datasets.CATALOGS)
    flags.DEFINE_enum("dataset", names[0], names, "What SOURCE holds; see docs/data.md.")
    flags.DEFINE_string("lists_sha256", None, "A file of `sha256sum` to check the lists with.")
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
