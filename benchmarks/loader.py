"""Measures how many samples a second the loader makes, without a training step.

    python -m benchmarks.loader --data=SHARDS [--latents=DIR] [--workers=0,1,2,4]

The kinds of samples are `landmark` (25 ticks), `pixels` and `latents`: five frames of stage
diffusion, four of a window and the reference. For each kind and number of worker processes it
prints a JSON line for two states of the machine: "hot", where the operating system keeps the shards
in memory after the first reading, and "dropped", where another thread keeps telling it to forget
them. So every record comes from the disk, as in a corpus much larger than the memory. The loader
itself keeps no records in either case.

`samples_per_second` is what a training step can have. `samples_per_cpu_second` divides by the time
that this process and its workers computed, so other load on the machine changes it less; hosts are
sized by it.
"""

import contextlib
import dataclasses
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
from talkjax.data import latents, loader, records, storage, stored_clips
from talkjax.errors import UserError

_FORGET_EVERY = 0.05  # seconds


def shard_files(data: str, latents_dir: str | None) -> list[str]:
    """Returns all files of the train split's shards and latents, which must be local."""
    reader = stored_clips.ShardReader(data, "train")
    found = [str(path) for part in records.PARTS for path in reader.paths(part)]
    if latents_dir:
        entry = latents.read_index(latents_dir)["splits"]["train"]
        found += [os.path.join(latents_dir, name) for name, _ in entry["files"]]
    return found


def kinds_of_samples(latents_dir: str | None, batch_size: int) -> dict[str, loader.LoaderOptions]:
    """Returns the loader's options by kind of samples; `latents` if there is a folder of them."""
    pixels = loader.LoaderOptions(stage="diffusion", batch_size=batch_size)
    kinds = {"landmark": dataclasses.replace(pixels, stage="landmark"), "pixels": pixels}
    if latents_dir:
        region = tuple(latents.read_index(latents_dir)["region"])
        kinds["latents"] = dataclasses.replace(pixels, latents=latents_dir, region=region)
    return kinds


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
        "--latents", metavar="DIR",
        help="local folder of cached latents of these data (default: latents are not measured)",
    )  # fmt: skip
    add(
        "--kinds", type=commands.comma_separated, default=[], metavar="NAMES",
        help="kinds of samples, separated by commas (default: all)",
    )  # fmt: skip
    add(
        "--workers", type=commands.comma_separated, default=["0", "1", "2", "4"],
        metavar="NUMBERS",
        help="numbers of worker processes, separated by commas (default: 0,1,2,4)",
    )  # fmt: skip
    add(
        "--states", type=commands.comma_separated, default=["hot", "dropped"], metavar="NAMES",
        help="states of the machine, separated by commas (default: hot,dropped)",
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
    paths = shard_files(args.data, args.latents)
    pixels = storage.read_index(args.data)["crop_size"]
    kinds = kinds_of_samples(args.latents, args.batch_size)
    for name in args.kinds or kinds:
        if name not in kinds:
            raise UserError(f"no kind {name!r} of samples; use some of {', '.join(kinds)}")
        for workers in map(int, args.workers):
            options = dataclasses.replace(kinds[name], num_workers=workers)
            for state in args.states:
                with forgetting(paths) if state == "dropped" else contextlib.nullcontext():
                    found = measure(args.data, options, args.seconds)
                case = {"samples": name, "crop": pixels, "workers": workers, "shards": state}
                print(json.dumps(case | found), flush=True)


def run() -> None:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
