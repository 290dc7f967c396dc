"""Measures how many frames per second `data_pipelines.prepare` processes on this machine.

    uv run benchmarks/preparation.py --source=VIDEOS [--limit=100] [--workers=2]

Prepares into a temporary folder and prints one JSON line. The time includes the start of the worker
processes and packing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


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
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "data_pipelines.prepare"),
            f"--source={arguments.source}",
            f"--out={folder}",
            f"--limit={arguments.limit}",
            f"--workers={arguments.workers}",
        ]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        summary = json.loads((Path(folder) / "summary.json").read_text())
    frames = summary["frames_extracted_now"]
    print(
        json.dumps(
            {
                "videos": summary["videos"],
                "kept": summary["kept"],
                "frames": frames,
                "seconds": round(seconds, 1),
                "frames_per_second": round(frames / seconds, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
