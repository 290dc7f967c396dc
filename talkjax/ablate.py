r"""Trains and measures the paper's ablations, and prints one table.

  python -m talkjax.ablate --config=configs/demo_128.py --out=DIR --data=SHARDS \
    --autoencoder=RUN --landmark=RUN --diffusion_steps=2000 --joint_steps=300 \
    [--rows=full,no_end_to_end,...] [--seeds=0,1,2] [--clips=N] [-- --config.field=value ...]

Every row starts from the same autoencoder, landmark network, seed and data, and trains for the same
number of steps: stage `diffusion` from scratch, then `joint`, once for each of --seeds. Each is
then probed (talkjax/metrics/probe.py) and evaluated on held-out clips. Flags after -- are passed to
train.py in every row. Everything is stored in DIR; started again, the command continues where it
stopped.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from talkjax import commands, files
from talkjax.data import loader
from talkjax.errors import UserError
from talkjax.export import export as export_run
from talkjax.metrics import ablation_table, packages, probe
from talkjax.metrics.report import replace_non_finite
from talkjax.sampling import checkpoint
from talkjax.training import agreement
from talkjax.training import input as training_input

# Commands that rows run, as arguments of the Python interpreter.
TRAIN = ("-m", "talkjax.training.command")
EVALUATE = ("-m", "talkjax.metrics.command")
_TALKFORMER = "--config.denoiser.talkformer"
# Row -> (flags of train.py in both stages, flags in `joint` only).
ROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "full": ((), ()),
    "one_step": ((), ("--config.joint.path=one_step", "--config.joint.change_weight=1.0")),
    "no_end_to_end": ((), ("--config.joint.end_to_end=False",)),
    "exposure_only": (
        (),
        ("--config.joint.end_to_end=False", "--config.joint.train_landmark=False"),
    ),
    "no_motion_align": ((f"{_TALKFORMER}.motion_align=False",), ()),
    "no_reference_align": ((f"{_TALKFORMER}.reference_align=False",), ()),
    "dot_product": ((f"{_TALKFORMER}.positional=dot",), ()),
}
WEIGHTS = ("lpips", "face_embedding", "fid", "sync_expert")
EVALUATED = ("model", "cross_driven", "wrong_audio")
_PROBE_BATCHES, _PROBE_BATCH_SIZE = 8, 8
# The loader's batches hold consecutive windows, mostly of one clip. Batches of the probe take one
# window of each of several stretches of the split instead, so that they mix different people.
_LOADED_BATCHES = 4 * _PROBE_BATCHES
_GRADIENT_BATCHES = 24  # training batches whose gradients are compared


@dataclasses.dataclass(frozen=True)
class Study:
    """What all rows have in common, as in the flags of the same names.

    Attributes:
      config: Config file with stages.
      out: Folder for runs and reports.
      data: Folder made by data_pipelines.prepare.
      autoencoder, landmark: Training runs or exports that all rows start from.
      latents: Folder of the data's cached latents.
      videos: Folder of the original videos, if they have moved.
      split: Split to measure on.
      diffusion_steps, joint_steps: Training steps of every row.
      seeds: Seeds of stage `joint`. A row's numbers are means over them.
      clips, seconds, steps: Flags of evaluate.py; None evaluates on all clips.
      evaluated: Rows of the protocol that are evaluated.
      weights: Flags of evaluate.py that name weights.
      overrides: Flags of train.py, for every row.
    """

    config: str
    out: Path
    data: str
    autoencoder: str
    landmark: str
    latents: str
    videos: str | None = None
    split: str = "test"
    diffusion_steps: int = 2000
    joint_steps: int = 300
    seeds: tuple[int, ...] = (0,)
    clips: int | None = None
    seconds: float = 20.0
    steps: int = 10
    evaluated: tuple[str, ...] = EVALUATED
    weights: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


def ablate(study: Study, rows: Sequence[str]) -> str:
    """Trains, probes and evaluates rows, and writes table.json and table.md.

    Args:
      study: What all rows have in common.
      rows: Names in `ROWS`; the others are compared with the first.

    Returns:
      The table as Markdown.

    Raises:
      UserError: A row is unknown, or a command failed.
    """
    unknown = [row for row in rows if row not in ROWS]
    if unknown or not rows:
        raise UserError(f"--rows takes {', '.join(ROWS)}, not {','.join(unknown) or 'nothing'}")
    packages.require(*packages.EVAL_MODULES)  # before hours of training
    reports: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for seed in study.seeds:
            export = train_row(study, row, seed)
            if seed == study.seeds[0]:
                probe_row(study, export, study.out / row / "probe.json")
            reports.setdefault(row, []).append(evaluate_row(study, row, seed, export))
    values = {
        row: [
            ablation_table.read_csv(seed_folder(study, row, seed) / "report.csv")
            for seed in study.seeds
        ]
        for row in reports
    }
    probes = {row: json.loads((study.out / row / "probe.json").read_text()) for row in reports}
    text, content = ablation_table.make_table(reports, values, probes)
    files.write_json(study.out / "table.json", content)
    files.write_text(study.out / "table.md", text + "\n")
    return text


def seed_folder(study: Study, row: str, seed: int) -> Path:
    """Returns the folder of a row's run with one seed."""
    return study.out / row / f"seed{seed}"


def train_row(study: Study, row: str, seed: int) -> Path:
    """Trains a row, unless that is done, and returns the folder of its export."""
    both, joint_only = ROWS[row]
    # Rows that differ only in `joint` share the stage before it.
    shared = next(name for name, (flags, _) in ROWS.items() if flags == both)
    first, folder = study.out / shared / "diffusion", seed_folder(study, row, seed)
    second, export = folder / "joint", folder / "export"
    data = [f"--config.data.dir={study.data}", f"--config.data.latents={study.latents}"]
    run_command(
        f"{row}: diffusion", *TRAIN, f"--config={study.config}:diffusion",
        f"--workdir={first}", *data, f"--config.init_from.autoencoder={study.autoencoder}",
        f"--config.steps={study.diffusion_steps}", *both, *study.overrides,
    )  # fmt: skip
    run_command(
        f"{row}: joint, seed {seed}", *TRAIN, f"--config={study.config}:joint",
        f"--workdir={second}", *data, f"--config.init_from.diffusion={first}",
        f"--config.init_from.landmark={study.landmark}", f"--config.steps={study.joint_steps}",
        *both, *joint_only, *study.overrides, f"--config.seed={seed}",
    )  # fmt: skip
    export_run(export, run=second)
    return export


def probe_row(study: Study, export: Path, to: Path) -> None:
    """Probes a row's network (`talkjax.metrics.probe`) and writes the result as JSON."""
    params, config, nets = checkpoint.load(export)
    options = loader.LoaderOptions(
        stage="diffusion", batch_size=_PROBE_BATCH_SIZE, frames=1, latents=study.latents,
        region=nets.region, window=config["data"]["window"],
    )  # fmt: skip
    iterator = iter(loader.eval_dataset(study.data, options, study.split))
    with contextlib.closing(iterator):
        loaded = list(itertools.islice(iterator, _LOADED_BATCHES))
    stacked = {k: np.concatenate([batch[k] for batch in loaded]) for k in probe.BATCH_KEYS}
    count = len(stacked["target_latent"]) // _PROBE_BATCH_SIZE
    batches = [
        {k: v[i::count][:_PROBE_BATCH_SIZE] for k, v in stacked.items()} for i in range(count)
    ]
    result = probe.probe_denoiser(nets, params, batches[:_PROBE_BATCHES])
    if config["joint"]["end_to_end"]:
        result["gradient"] = compare_gradients(study, config, params)
    files.write_json(to, replace_non_finite(result))


def compare_gradients(study: Study, config: dict[str, Any], params: Any) -> dict[str, Any]:
    """Measures how much of the landmark network's end-to-end gradient is signal."""
    options = dataclasses.replace(
        training_input.loader_options(ConfigDict(config), config["batch_size"]),
        stage="joint",
        latents=study.latents,
        weights=(),  # the study's data may be a part of what the row was trained on
    )
    iterator = iter(loader.train_dataset(study.data, options, seed=1))
    with contextlib.closing(iterator):
        batches = itertools.islice(iterator, _GRADIENT_BATCHES)
        found = agreement.landmark_gradients(config, params, batches)
        return found | {"pictures": found["pictures"][0]}


def evaluate_row(study: Study, row: str, seed: int, export: Path) -> dict[str, Any]:
    """Evaluates a row's run and returns its report; all share one work folder."""
    path = seed_folder(study, row, seed) / "report.json"
    optional = {"--videos": study.videos, "--clips": study.clips}
    run_command(
        f"{row}: evaluation, seed {seed}", *EVALUATE, f"--checkpoint={export}",
        f"--data={study.data}", f"--split={study.split}", f"--out={path}",
        f"--work={study.out / 'work'}",
        f"--steps={study.steps}", f"--seconds={study.seconds}",
        f"--rows={','.join(study.evaluated)}",
        *(f"{k}={v}" for k, v in optional.items() if v), *study.weights,
    )  # fmt: skip
    return json.loads(path.read_text(encoding="utf-8"))


def run_command(title: str, *arguments: str) -> None:
    """Runs a Python command; SIGTERM and Ctrl-C are passed on to it, so that it saves.

    Raises:
      UserError: The command failed.
    """
    print(f"== {title}", flush=True)
    child = subprocess.Popen([sys.executable, *arguments])
    try:
        code = child.wait()
    except BaseException:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    if code:
        raise UserError(
            f"{title} ended with exit code {code}; fix the error above, then start this again"
        )


def _seeds(text: str) -> tuple[int, ...]:
    seeds = tuple(commands.bounded(int, 0)(part) for part in commands.comma_separated(text))
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"the seeds in {text!r} must differ")
    return seeds


def make_parser() -> commands.Parser:
    """Creates the command line."""
    parser = commands.Parser(__doc__, prog="python -m talkjax.ablate")
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="config file with stages, configs/NAME.py")
    add("--out", required=True, metavar="DIR", help="folder for runs and reports")
    add("--data", required=True, metavar="DIR", help="folder made by data_pipelines.prepare")
    add("--latents", metavar="DIR", help="cached latents (default: DATA/latents)")
    add("--autoencoder", required=True, metavar="DIR",
        help="training run or export whose autoencoder all rows share")  # fmt: skip
    add("--landmark", required=True, metavar="DIR",
        help="training run or export whose landmark network all rows start from")  # fmt: skip
    add("--videos", metavar="DIR", help="original videos of the split, if they have moved")
    add("--split", default="test", help="split to measure on (default: %(default)s)")
    add("--diffusion_steps", type=commands.bounded(int, 1), default=2000, metavar="N",
        help="training steps of stage diffusion (default: %(default)s)")  # fmt: skip
    add("--joint_steps", type=commands.bounded(int, 1), default=300, metavar="N",
        help="training steps of stage joint (default: %(default)s)")  # fmt: skip
    rows = ["full", "no_end_to_end", "no_motion_align", "no_reference_align"]
    add("--rows", type=commands.comma_separated, default=rows, metavar="ROW,...",
        help=f"rows, of {', '.join(ROWS)}; the others are compared with the first "
        f"(default: {','.join(rows)})")  # fmt: skip
    add("--seeds", type=_seeds, default=(0,), metavar="N,...",
        help="seeds of stage joint; numbers are means over them (default: 0)")  # fmt: skip
    add("--clips", type=commands.bounded(int, 1), metavar="N",
        help="evaluate on at most N clips, evenly spread (default: all)")  # fmt: skip
    add("--seconds", type=commands.bounded(float, 1), default=20.0, metavar="X",
        help="cut longer clips after X seconds (default: %(default)s)")  # fmt: skip
    add("--steps", type=commands.bounded(int, 1), default=10, metavar="N",
        help="denoising steps (default: %(default)s)")  # fmt: skip
    add("--evaluated", type=commands.comma_separated, default=list(EVALUATED), metavar="ROW,...",
        help=f"rows of evaluate.py that are measured (default: {','.join(EVALUATED)})")  # fmt: skip
    for name in WEIGHTS:
        add(f"--{name}", metavar="FILE", help=f"--{name} of evaluate.py")
    add("overrides", nargs="*", metavar="-- --config.FIELD=VALUE",
        help="flags for train.py in every row")  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = make_parser().parse_args(argv)
    for word in args.overrides:
        if not word.startswith("--config."):
            raise UserError(f"unexpected argument {word!r}; only --config.FIELD=VALUE follows --")
    weights = {name: getattr(args, name) for name in WEIGHTS}
    study = Study(
        config=args.config, out=Path(args.out), data=args.data, autoencoder=args.autoencoder,
        landmark=args.landmark, latents=args.latents or str(Path(args.data) / "latents"),
        videos=args.videos, split=args.split, diffusion_steps=args.diffusion_steps,
        joint_steps=args.joint_steps,
        seeds=args.seeds, clips=args.clips, seconds=args.seconds, steps=args.steps,
        evaluated=tuple(args.evaluated),
        weights=tuple(f"--{name}={value}" for name, value in weights.items() if value),
        overrides=tuple(args.overrides),
    )  # fmt: skip
    print(ablate(study, args.rows))


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    commands.run(main)


if __name__ == "__main__":
    run()
