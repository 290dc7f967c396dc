"""Measures the speed of `data_pipelines.prepare` on this machine, in frames per second.

    python -m benchmarks.preparation --source=VIDEOS [--limit=100] [--workers=2]

Prepares into a temporary folder, start of the worker processes and packing included, and prints
one JSON line.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from talkjax import commands


def make_parser() -> commands.Parser:
    """Returns the parser of this command's flags."""
    parser = commands.Parser(__doc__, prog="python -m benchmarks.preparation")
    add = parser.add_argument
    add("--source", metavar="DIR", required=True, help="folder of videos")
    add(
        "--limit",
        type=commands.bounded(int, 1),
        default=100,
        help="number of videos, the first by name (default: %(default)s)",
    )
    add(
        "--workers",
        type=commands.bounded(int, 0),
        default=0,
        help="number of worker processes, 0 for one per core (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Prepares the videos once and prints the speed."""
    args = make_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "data_pipelines.prepare"),
            f"--source={args.source}",
            f"--out={folder}",
            f"--limit={args.limit}",
            f"--workers={args.workers}",
        ]
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(done.returncode)  # it has printed why
        summary = json.loads((Path(folder) / "summary.json").read_text())
    frames = summary["frames_extracted_now"]
    result = {
        "videos": summary["videos"],
        "kept": summary["kept"],
        "frames": frames,
        "seconds": round(seconds, 1),
        "frames_per_second": round(frames / seconds, 1),
    }
    print(json.dumps(result))


def run() -> None:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
