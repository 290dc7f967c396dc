"""Prepares footage for training: any folder of videos, or a data set by its name.

    python -m data_pipelines.prepare --source=VIDEOS --out=SHARDS --holdout=60
    python -m data_pipelines.prepare --dataset=hdtf --source=HDTF --out=SHARDS

The command finds and tracks a face in every video, cuts leak-safe crops, computes log-mel
spectrograms and packs everything into ArrayRecord shards. A run that was interrupted resumes when
the same command is started again. Afterwards SHARDS holds

    DATASET/VERSION/         the shards, a TFDS data set
    manifest.jsonl           one line per video: whether it was kept, or why it was left out
    summary.json             the counts
    .cache/                  extracted clips; may be deleted when no more videos will be added

If every video lies under a folder `train`, `validation` or `test` of the source, those are the
splits; otherwise the last `--holdout` of the kept videos by name are the split `test`. Named data
sets have their own splits; docs/data.md lists them and the layout of their folders.
"""

import os
import pathlib
import time
from collections.abc import Sequence
from typing import NoReturn

from talkjax import commands, files
from talkjax.errors import UserError
from talkjax.media import tracking

from . import datasets, packing, preparation
from .extract import ExtractOptions
from .preparation import Settings
from .workers import cores


def prepare(
    source: str | os.PathLike,
    out: str | os.PathLike,
    settings: Settings,
    dataset: str = "video_folder",
) -> dict:
    """Extracts and packs a folder; the module's docstring lists the files.

    Args:
      source: Folder of the footage.
      out: Folder of the shards.
      settings: See `preparation.Settings`.
      dataset: A key of `datasets.CATALOGS`.

    Returns:
      The contents of `summary.json`.

    Raises:
      UserError: There is nothing to prepare, nothing was kept, or `out` cannot be written.
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
            "another --out (finished work is kept)"
        ) from error
    return summary


def make_parser() -> commands.Parser:
    """Returns the parser of the command line."""
    parser = commands.Parser(__doc__, prog="python -m data_pipelines.prepare")
    add, names = parser.add_argument, list(datasets.CATALOGS)
    add("--source", required=True, metavar="DIR", help="folder of videos, searched recursively")
    add("--out", required=True, metavar="DIR", help="folder for shards, manifest and cache")
    add(
        "--dataset",
        choices=names,
        default=names[0],
        help="layout of the source folder, see docs/data.md (default: %(default)s)",
    )
    add("--lists_sha256", metavar="FILE", help="`sha256sum` file to verify a data set's lists with")
    add(
        "--crop_size",
        type=commands.bounded(int, 16),
        default=128,
        metavar="PX",
        help="side of the face crops in pixels (default: %(default)s)",
    )
    add(
        "--workers",
        type=commands.bounded(int, 0),
        default=0,
        metavar="N",
        help="number of processes; 0 uses all cores (default: %(default)s)",
    )
    add(
        "--holdout",
        type=commands.bounded(int, 0),
        metavar="N",
        help="number of videos for the test split, the last ones by name",
    )
    add(
        "--holdout_fraction",
        type=commands.bounded(float, 0.0, 0.9),
        default=0.1,
        metavar="X",
        help="share of the videos for the test split if --holdout is not given (default: "
        "%(default)s)",
    )
    add(
        "--min_seconds",
        type=commands.bounded(float, 0.1),
        default=1.0,
        metavar="S",
        help="shorter parts are left out (default: %(default)s)",
    )
    add(
        "--max_seconds",
        type=commands.bounded(float, 0.2),
        default=20.0,
        metavar="S",
        help="longer parts are split (default: %(default)s)",
    )
    add(
        "--face",
        default="largest",
        metavar="WHICH",
        help="`largest`, or the index of the face from left to right, from 0 (default: "
        "%(default)s)",
    )
    add(
        "--max_faces",
        type=commands.bounded(int, 1),
        default=3,
        metavar="N",
        help="how many faces are detected in a frame (default: %(default)s)",
    )
    add(
        "--timeout",
        type=commands.bounded(float, 1.0),
        default=1800.0,
        metavar="S",
        help="seconds after which a video is given up (default: %(default)s)",
    )
    add(
        "--beam_option",
        action="append",
        default=[],
        metavar="OPTION",
        help="use Apache Beam with this pipeline option, for example "
        "--beam_option=--runner=DirectRunner; may be repeated",
    )
    add(
        "--limit",
        type=commands.bounded(int, 1),
        metavar="N",
        help="prepare only the first N videos by name",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command line `argv`, without the program's name."""
    given = make_parser().parse_args(argv)
    for name in ("source", "out"):
        if files.is_remote(path := getattr(given, name)):
            raise UserError(f"--{name}={path} is in a bucket; use a local folder and copy it")
    face = tracking.parse_face(given.face)
    max_faces = given.max_faces if face == "largest" else max(given.max_faces, int(face) + 1)
    options = ExtractOptions(
        crop_size=given.crop_size,
        min_seconds=given.min_seconds,
        max_seconds=given.max_seconds,
        face=str(face),
        max_faces=max_faces,
    )
    if options.max_seconds < options.min_seconds:
        raise UserError("--max_seconds must not be less than --min_seconds")
    workers = given.workers or cores()
    settings = Settings(
        extract=options, workers=workers, timeout=given.timeout, limit=given.limit,
        holdout=given.holdout, holdout_fraction=given.holdout_fraction,
        lists_sha256=given.lists_sha256, beam_options=given.beam_option,
    )  # fmt: skip
    summary = prepare(given.source, given.out, settings, given.dataset)
    for name, total in summary["splits"].items():
        print(f"{name}: {total['clips']} clips, {total['frames']} frames, {total['seconds']:.0f} s")
    left_out = preparation.list_counts(summary["left_out"])
    print(f"left out: {left_out}; see {given.out}/manifest.jsonl")
    if summary["frames_per_second"]:
        where = "Apache Beam" if given.beam_option else f"{workers} processes"
        print(
            f"{summary['frames_extracted_now']} frames extracted at "
            f"{summary['frames_per_second']} frames/s with {where}"
        )


def run() -> NoReturn:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
