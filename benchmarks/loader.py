"""Measures how many samples a second the loader makes, without a training step.

    python -m benchmarks.loader --data=SHARDS [--stages=landmark,diffusion] [--workers=0,2]

For each stage and number of worker processes it prints a JSON line for two states of the machine:
"hot", where the operating system keeps the shards in memory after the first reading, and "dropped",
where another thread keeps telling it to forget them. So every record comes from the disk, as in a
corpus much larger than the memory. The loader itself keeps no records in either case.

`samples_per_second` is what a training step can have. `samples_per_cpu_second` divides by the time
that this process and its workers computed, so other load on the machine changes it less; hosts are
sized by it.
"""

import contextlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from talkjax import commands
from talkjax.data import loader, records, storage, stored_clips

_FORGET_EVERY = 0.05  # seconds


def shard_files(data: str) -> list[str]:
    """Returns all files of the train split's shards, which must be local."""
    reader = stored_clips.ShardReader(data, "train")
    return [str(path) for part in records.PARTS for path in reader.paths(part)]


@contextlib.contextmanager
def forgetting(paths: Sequence[str]) -> Iterator[None]:
    """Keeps the operating system from keeping files in memory."""
    ended, opened = threading.Event(), [os.open(path, os.O_RDONLY) for path in paths]
    for number in opened:
        os.fsync(number)  # what is not written yet cannot be forgotten

    def forget() -> None:
        while not ended.wait(_FORGET_EVERY):
            for number in opened:
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for number in opened:
            os.close(number)


def cpu_seconds() -> float:
    """Returns the time that this process and its living workers have computed."""
    total, tick = 0.0, os.sysconf("SC_CLK_TCK")
    for number in [os.getpid(), *(p.pid for p in multiprocessing.active_children())]:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / tick
    return total


def measure(data: str, options: loader.LoaderOptions, seconds: float) -> dict[str, Any]:
    """Makes batches for some seconds.

    Returns:
      {"first_batch_seconds", "samples_per_second", "samples_per_cpu_second"}.
    """
    begun = time.monotonic()
    batches = iter(loader.train_dataset(data, options, seed=0))
    with contextlib.closing(batches):
        next(batches)
        first = time.monotonic() - begun
        for _ in range(2 * options.prefetch * max(1, options.num_workers)):
            next(batches)  # made while the workers started
        count, begun, computed = 0, time.monotonic(), cpu_seconds()
        while time.monotonic() < begun + seconds:
            next(batches)
            count += options.batch_size
        elapsed, computed = time.monotonic() - begun, cpu_seconds() - computed
    return {
        "first_batch_seconds": round(first, 2),
        "samples_per_second": round(count / elapsed),
        "samples_per_cpu_second": round(count / computed),
    }


def make_parser() -> commands.Parser:
    """Returns the parser of this command's flags."""
    parser = commands.Parser(__doc__, prog="python -m benchmarks.loader")
    add = parser.add_argument
    add("--data", metavar="SHARDS", required=True, help="prepared data on a local disk")
    add(
        "--stages", type=commands.comma_separated, default=["landmark", "diffusion"],
        metavar="NAMES", help="stages, separated by commas (default: landmark,diffusion)",
    )  # fmt: skip
    add(
        "--workers", type=commands.comma_separated, default=["0", "2"], metavar="NUMBERS",
        help="numbers of worker processes, separated by commas (default: 0,2)",
    )  # fmt: skip
    add(
        "--seconds", type=commands.bounded(float, 0.1), default=10.0, metavar="SECONDS",
        help="duration of a measurement (default: %(default)g)",
    )  # fmt: skip
    add(
        "--batch_size", type=commands.bounded(int, 1), default=32, metavar="N",
        help="samples in a batch (default: %(default)s)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> None:
    """Measures and prints a line for each case."""
    args = make_parser().parse_args(argv)
    flags.FLAGS.mark_as_parsed()  # grain's workers copy them
    paths = shard_files(args.data)
    pixels = storage.read_index(args.data)["crop_size"]
    for stage in args.stages:
        for workers in map(int, args.workers):
            options = loader.LoaderOptions(
                stage=stage, batch_size=args.batch_size, num_workers=workers
            )
            for state in ("hot", "dropped"):
                with forgetting(paths) if state == "dropped" else contextlib.nullcontext():
                    found = measure(args.data, options, args.seconds)
                case = {"stage": stage, "pixels": pixels, "workers": workers, "shards": state}
                print(json.dumps(case | found), flush=True)


def run() -> None:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
