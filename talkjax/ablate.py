r"""Trains and measures the paper's ablations, and prints one table.

  python -m talkjax.ablate --config=configs/demo_128.py --out=DIR --data=SHARDS \
    --autoencoder=RUN --landmark=RUN --diffusion_steps=2000 --joint_steps=300 \
    [--rows=full,no_end_to_end,...] [--clips=N] [-- --config.field=value ...]

Every row starts from the same autoencoder, landmark network, seed and data, and trains for the same
number of steps: stage `diffusion` from scratch, then `joint`. Each is then probed
(talkjax/metrics/probe.py) and evaluated on held-out clips. Flags after -- are passed to train.py in
every row. Everything is stored in DIR; started again, the command continues where it stopped.
"""

import contextlib
import csv
import dataclasses
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from talkjax import commands, files
from talkjax.data import loader
from talkjax.errors import UserError
from talkjax.export import export as export_run
from talkjax.metrics import packages, probe, statistics
from talkjax.metrics.protocol import METRICS, SETS
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
EVALUATED = "model,cross_driven,wrong_audio"
TABLE = (
    ("model", "opening_correlation"), ("cross_driven", "opening_correlation"),
    ("model", "articulation"), ("model", "closures"), ("model", "lmd"), ("model", "lse_c"),
    ("model", "lse_d"), ("wrong_audio", "lse_c"), ("model", "psnr"),
    ("model", "ssim"), ("model", "lpips"), ("model", "fid"), ("model", "csim"),
    ("model", "jitter"),
)  # fmt: skip
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
      clips, seconds, steps: Flags of evaluate.py; None evaluates on all clips.
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
    clips: int | None = None
    seconds: float = 20.0
    steps: int = 10
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
    reports = {}
    for row in rows:
        export = train_row(study, row)
        probe_row(study, export, study.out / row / "probe.json")
        reports[row] = evaluate_row(study, row, export)
    text = make_table(study.out, reports)
    files.write_text(study.out / "table.md", text + "\n")
    return text


def train_row(study: Study, row: str) -> Path:
    """Trains a row, unless that is done, and returns the folder of its export."""
    both, joint_only = ROWS[row]
    # Rows that differ only in `joint` share the stage before it.
    shared = next(name for name, (flags, _) in ROWS.items() if flags == both)
    out = study.out
    first, second, export = out / shared / "diffusion", out / row / "joint", out / row / "export"
    data = [f"--config.data.dir={study.data}", f"--config.data.latents={study.latents}"]
    run_command(
        f"{row}: diffusion", *TRAIN, f"--config={study.config}:diffusion",
        f"--workdir={first}", *data, f"--config.init_from.autoencoder={study.autoencoder}",
        f"--config.steps={study.diffusion_steps}", *both, *study.overrides,
    )  # fmt: skip
    run_command(
        f"{row}: joint", *TRAIN, f"--config={study.config}:joint", f"--workdir={second}",
        *data, f"--config.init_from.diffusion={first}",
        f"--config.init_from.landmark={study.landmark}", f"--config.steps={study.joint_steps}",
        *both, *joint_only, *study.overrides,
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
    )
    iterator = iter(loader.train_dataset(study.data, options, seed=1))
    with contextlib.closing(iterator):
        batches = itertools.islice(iterator, _GRADIENT_BATCHES)
        found = agreement.landmark_gradients(config, params, batches)
        return found | {"pictures": found["pictures"][0]}


def evaluate_row(study: Study, row: str, export: Path) -> dict[str, Any]:
    """Evaluates a row and returns its report; all rows share one work folder."""
    path = study.out / row / "report.json"
    optional = {"--videos": study.videos, "--clips": study.clips}
    run_command(
        f"{row}: evaluation", *EVALUATE, f"--checkpoint={export}", f"--data={study.data}",
        f"--split={study.split}", f"--out={path}", f"--work={study.out / 'work'}",
        f"--steps={study.steps}", f"--seconds={study.seconds}", f"--rows={EVALUATED}",
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


def make_table(out: Path, reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Compares the rows with the first one in a Markdown table, and writes table.json.

    Intervals are those of differences on the same clips, so the clips' difficulty cancels.
    """
    values = {row: read_csv(out / row / "report.csv") for row in reports}
    base = next(iter(reports))
    content: dict[str, Any] = {"reports": {}, "differences": {}, "probe": {}}
    lines = [["row", "metric", *reports], ["---"] * (2 + len(reports))]
    for video, metric in TABLE:
        entries = {row: found["rows"].get(video, {}).get(metric) for row, found in reports.items()}
        if not any(entry and entry["mean"] is not None for entry in entries.values()):
            continue
        digits = METRICS[metric].digits
        cells = []
        for row, entry in entries.items():
            cell = "" if not entry or entry["mean"] is None else f"{entry['mean']:.{digits}f}"
            if row != base and metric not in SETS:
                name = f"{video} {metric}"
                differences = paired_differences(values[row], values[base], video, metric)
                found = statistics.bootstrap_mean(differences)
                content["differences"].setdefault(row, {})[name] = found
                if found["ci95"]:
                    low, high = found["ci95"]
                    sign = "*" if low > 0 or high < 0 else ""
                    cell += f" ({low:+.{digits}f} to {high:+.{digits}f}){sign}"
            cells.append(cell)
        lines.append([video, metric, *cells])
    probes = {row: json.loads((out / row / "probe.json").read_text()) for row in reports}
    content["probe"], content["reports"] = probes, {r: dict(x["rows"]) for r, x in reports.items()}
    for condition in next(iter(probes.values()))["x0_l1"]:
        numbers = [_format(one["x0_l1"][condition], 4) for one in probes.values()]
        lines.append(["error around the mouth", condition, *numbers])
    for whose in ("own", "other"):
        for name in ("error", "kernel", "identity"):
            lines.append([f"warp, {whose} reference", name, *(
                _mean_warp(one["warp"][whose], name) for one in probes.values()
            )])  # fmt: skip
    for part in ("pictures", "landmark"):
        for name in ("norm", "norm_of_mean", "cosine_of_halves"):
            lines.append([f"gradient of the loss, {part}", name, *(
                _format(one["gradient"][part][name], 3) if "gradient" in one else ""
                for one in probes.values()
            )])  # fmt: skip
    files.write_json(out / "table.json", content)
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text.append("")
    text.append(
        f"In brackets: 95% bootstrap interval of the difference from {base} on the same clips, "
        "with * where it excludes 0. Errors around the mouth are those of one-step estimates in "
        "latent units, warps are in crop units (mean over blocks), and gradients are those of the "
        "landmark network (`talkjax/training/agreement.py`)."
    )
    return "\n".join(text)


def _mean_warp(blocks: Mapping[str, Mapping[str, float]], name: str) -> str:
    known = [block[name] for block in blocks.values() if block[name] is not None]
    return _format(np.mean(known) if known else None, 4)


def _format(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def read_csv(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Reads an evaluation's CSV: {(row, clip): {metric: value}}."""
    with open(path, encoding="utf-8", newline="") as file:
        return {
            (line.pop("row"), line.pop("clip")): {k: float(v) for k, v in line.items() if v}
            for line in csv.DictReader(file)
        }


def paired_differences(
    values: Mapping[tuple[str, str], Mapping[str, float]],
    base: Mapping[tuple[str, str], Mapping[str, float]],
    row: str,
    metric: str,
) -> list[float]:
    """Returns the differences in a metric on the clips that both have."""
    return [
        numbers[metric] - base[key][metric]
        for key, numbers in values.items()
        if key[0] == row and metric in numbers and metric in base.get(key, {})
    ]


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
    add("--clips", type=commands.bounded(int, 1), metavar="N",
        help="evaluate on at most N clips, evenly spread (default: all)")  # fmt: skip
    add("--seconds", type=commands.bounded(float, 1), default=20.0, metavar="X",
        help="cut longer clips after X seconds (default: %(default)s)")  # fmt: skip
    add("--steps", type=commands.bounded(int, 1), default=10, metavar="N",
        help="denoising steps (default: %(default)s)")  # fmt: skip
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
        joint_steps=args.joint_steps, clips=args.clips, seconds=args.seconds, steps=args.steps,
        weights=tuple(f"--{name}={value}" for name, value in weights.items() if value),
        overrides=tuple(args.overrides),
    )  # fmt: skip
    print(ablate(study, args.rows))


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    commands.run(main)


if __name__ == "__main__":
    run()
