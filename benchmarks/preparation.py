<<<<<<< HEAD
"""Measures how many frames per second `data_pipelines.prepare` processes on this machine.
=======
"""Measures the speed of `data_pipelines.prepare` on this machine, in frames per second.
>>>>>>> d221cae3d76d751c004157afedc4fa3ed4b2606b

    python -m benchmarks.preparation --source=VIDEOS [--limit=100] [--workers=2]

<<<<<<< HEAD
Prepares into a temporary folder and prints one JSON line. The time includes the start of the worker
processes and packing.
=======
Prepares into a temporary folder, start of the worker processes and packing included, and prints
one JSON line.
>>>>>>> d221cae3d76d751c004157afedc4fa3ed4b2606b
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from talkjax import commands

<<<<<<< HEAD
def main() -> None:
    """Runs the command once and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, help="folder of videos")
    parser.add_argument(
        "--limit", type=int, default=100, help="number of videos (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="number of processes (default: 0, one per core)"
    )
    arguments = parser.parse_args()
=======

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
>>>>>>> d221cae3d76d751c004157afedc4fa3ed4b2606b
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
