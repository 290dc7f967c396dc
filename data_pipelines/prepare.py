"""Prepares footage for training: any folder of videos, or a data set by its name.

    python -m data_pipelines.prepare --source=VIDEOS --out=SHARDS --holdout=60
    python -m data_pipelines.prepare --dataset=hdtf --source=HDTF --out=SHARDS

Detects and tracks a face in every video, cuts leak-safe crops, computes log-mels, and packs them
into ArrayRecord shards. To resume an interrupted run, run the same command again. SHARDS then holds

    DATASET/VERSION/         the shards, a TFDS data set
    manifest.jsonl           one line per video: kept or left out, and why
    summary.json             statistics
    .cache/                  extracted clips; delete it when no more videos will be added

If every video in a folder of videos is below a folder `train`, `validation` or `test` of SOURCE,
those are the splits. Otherwise the last `--holdout` of the kept videos by name are `test`. Named
data sets have splits of their own; docs/data.md describes them and the layout of SOURCE.
"""

import os
import pathlib
import time
from collections.abc import Sequence

from talkjax import commands, files
from talkjax.errors import UserError
from talkjax.media import tracking

from . import datasets, packing, preparation
from .extract import ExtractOptions
from .flag_errors import flag_errors
from .preparation import PrepareOptions
from .workers import cores


def prepare(
    source: str | os.PathLike,
    out: str | os.PathLike,
    settings: PrepareOptions,
    dataset: str = "video_folder",
) -> dict:
    """Extracts and packs a folder; see the module's docstring for the files.

    Args:
      source: Folder of the footage.
      out: Folder of the shards, on a local or mounted disk.
      settings: See `preparation.PrepareOptions`.
      dataset: A name of `datasets.CATALOGS`.

    Returns:
      The contents of `summary.json`.

    Raises:
      UserError: There is nothing to prepare, nothing is kept, or `out` cannot be written.
    """
    started = time.monotonic()
    packing.claim(out, dataset)
    catalog = datasets.read_catalog(dataset, source, out, settings.lists_sha256)
    out = pathlib.Path(out)
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
            f"{out} cannot be written ({error.strerror or error}); make room there or choose "
            "another --out (finished work is kept)"
        ) from error
    return summary


def make_parser() -> commands.Parser:
    """Returns the parser of the command's flags."""
    parser = commands.Parser(__doc__, prog="python -m data_pipelines.prepare")
    add = parser.add_argument
    add("--source", required=True, metavar="DIR", help="folder of videos, searched recursively")
    add(
        "--out", required=True, metavar="DIR",
        help="local folder for the shards, the manifest and the cache",
    )  # fmt: skip
    names = list(datasets.CATALOGS)
    add(
        "--dataset", choices=names, default=names[0],
        help="data set that --source holds; see docs/data.md (default: %(default)s)",
    )  # fmt: skip
    add(
        "--lists_sha256", metavar="FILE",
        help="output of `sha256sum` that the data set's lists must match (default: not checked)",
    )  # fmt: skip
    add(
        "--crop_size", type=commands.bounded(int, 16), default=128, metavar="PIXELS",
        help="side of the face crops (default: %(default)s)",
    )  # fmt: skip
    add(
        "--workers", type=commands.bounded(int, 0), default=0, metavar="N",
        help="number of worker processes (default: 0, one per core)",
    )  # fmt: skip
    add(
        "--holdout", type=commands.bounded(int, 0), metavar="N",
        help="number of videos in the test split, the last ones by name (default: see "
        "--holdout_fraction)",
    )  # fmt: skip
    add(
        "--holdout_fraction", type=commands.bounded(float, 0.0, 0.9), default=0.1,
        metavar="SHARE", help="share of the videos in the test split (default: %(default)s)",
    )  # fmt: skip
    add(
        "--min_seconds", type=commands.bounded(float, 0.1), default=1.0, metavar="SECONDS",
        help="leave out shorter parts (default: %(default)s)",
    )  # fmt: skip
    add(
        "--max_seconds", type=commands.bounded(float, 0.2), default=20.0, metavar="SECONDS",
        help="split longer parts (default: %(default)s)",
    )  # fmt: skip
    add(
        "--face", default="largest", metavar="FACE",
        help="face to follow: `largest`, or a number from 0, left to right (default: %(default)s)",
    )  # fmt: skip
    add(
        "--max_faces", type=commands.bounded(int, 1), default=3, metavar="N",
        help="number of faces to detect in a frame (default: %(default)s)",
    )  # fmt: skip
    add(
        "--timeout", type=commands.bounded(float, 1.0), default=1800.0, metavar="SECONDS",
        help="give up a video after this time (default: %(default)s)",
    )  # fmt: skip
    add(
        "--beam_option", action="append", default=[], metavar="OPTION",
        help="run on Apache Beam with this pipeline option, such as "
        "--beam_option=--runner=DirectRunner; may be repeated",
    )  # fmt: skip
    add(
        "--limit", type=commands.bounded(int, 1), metavar="N",
        help="prepare only the first N videos by name (default: all)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    flags = make_parser().parse_args(argv)
    if flags.max_seconds < flags.min_seconds:
        raise UserError(
            f"--max_seconds={flags.max_seconds:g} is less than --min_seconds={flags.min_seconds:g}"
        )
    with flag_errors():
        face = tracking.parse_face(flags.face)
        extract = ExtractOptions(
            crop_size=flags.crop_size,
            min_seconds=flags.min_seconds,
            max_seconds=flags.max_seconds,
            face=str(face),
            max_faces=flags.max_faces if face == "largest" else max(flags.max_faces, int(face) + 1),
        )
        workers = flags.workers or cores()
        settings = PrepareOptions(
            extract=extract, workers=workers, timeout=flags.timeout, limit=flags.limit,
            holdout=flags.holdout, holdout_fraction=flags.holdout_fraction,
            lists_sha256=flags.lists_sha256, beam_options=flags.beam_option,
        )  # fmt: skip
        summary = prepare(flags.source, flags.out, settings, flags.dataset)
    for name, total in summary["splits"].items():
        print(f"{name}: {total['clips']} clips, {total['frames']} frames, {total['seconds']:.0f} s")
    left_out = preparation.list_counts(summary["left_out"])
    print(f"left out: {left_out}; see {flags.out}/manifest.jsonl")
    if summary["frames_per_second"]:
        where = "Apache Beam" if flags.beam_option else f"{workers} processes"
        print(
            f"{summary['frames_extracted_now']} frames extracted at "
            f"{summary['frames_per_second']} frames/s on {where}"
        )


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    commands.run(main)


if __name__ == "__main__":
    run()
