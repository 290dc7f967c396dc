"""Compares the losses of pictures by what their gradients in the landmark network have in common.

  python -m benchmarks.gradient_agreement --checkpoint=DIR --data=SHARDS [--batches=24] \
    [--batch_size=8] [--frames=4] [--out=FILE.json]

Each loss of `joint.path` is differentiated on the same independent batches of the training split.
The cosine between the means of the even and of the odd batches is 1 for a gradient that is the same
everywhere, and about 0 for noise. The loss of landmarks is the one to compare with.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from talkjax import commands, configuration, files
from talkjax.data import loader
from talkjax.sampling import checkpoint
from talkjax.training import agreement
from talkjax.training import input as training_input

VARIANTS = {
    "diffusion": {"joint.path": "diffusion", "diffusion.last_timestep": 0.0},
    "diffusion, last timestep": {"joint.path": "diffusion", "diffusion.last_timestep": 1.0},
    "teacher": {"joint.path": "teacher"},
    "one_step": {"joint.path": "one_step"},
    "one_step, changes too": {"joint.path": "one_step", "joint.change_weight": 1.0},
    "warp": {"joint.path": "warp"},
    "warp, changes too": {"joint.path": "warp", "joint.change_weight": 1.0},
}


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = commands.Parser(__doc__, prog="python -m benchmarks.gradient_agreement")
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="DIR", help="exported checkpoint with all networks")
    add("--data", required=True, metavar="DIR", help="folder made by data_pipelines.prepare")
    add("--batches", type=commands.bounded(int, 2), default=24, metavar="N",
        help="independent batches (default: %(default)s)")  # fmt: skip
    add("--batch_size", type=commands.bounded(int, 1), default=8, metavar="N",
        help="windows in a batch (default: %(default)s)")  # fmt: skip
    add("--frames", type=commands.bounded(int, 2), default=4, metavar="N",
        help="pictures of a window (default: %(default)s)")  # fmt: skip
    add("--out", metavar="FILE", help="write the numbers as JSON")
    args = parser.parse_args(argv)
    params, saved, _ = checkpoint.load(args.checkpoint)
    known = configuration.default_config().data  # an earlier version had other fields
    config = ConfigDict(saved | {"data": {k: v for k, v in saved["data"].items() if k in known}})
    config.stage, config.data.latents = "joint", ""
    config.data.frames = args.frames
    config.joint.train_denoiser = False
    options = dataclasses.replace(
        training_input.loader_options(config, args.batch_size), drop_all=0.0, drop_reference=0.0
    )
    iterator = iter(loader.train_dataset(args.data, options, seed=1))
    with contextlib.closing(iterator):
        batches = itertools.islice(iterator, args.batches)
        found = agreement.landmark_gradients(
            config.to_dict(), params, batches, paths=list(VARIANTS.values())
        )
    named = dict(zip(VARIANTS, found["pictures"], strict=True)) | {"landmarks": found["landmark"]}
    print("| loss | norm | norm of the mean | cosine of halves | cosine with landmarks |")
    print("|---|---|---|---|---|")
    for name, one in named.items():
        numbers = (one["norm"], one["norm_of_mean"], one["cosine_of_halves"], one.get("cosine", 1))
        print(f"| {name} | " + " | ".join(f"{x:.3f}" for x in numbers) + " |")
    if args.out:
        files.write_json(Path(args.out), named)


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    commands.run(main)


if __name__ == "__main__":
    run()
