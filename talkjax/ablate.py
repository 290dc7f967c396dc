r"""Trains and measures the paper's ablations, and prints one table.

    uv run -m talkjax.ablate --config=configs/demo_128.py --out=DIR --data=SHARDS \
      --autoencoder=RUN --landmark=RUN --diffusion_steps=2000 --joint_steps=300 \
      [--rows=full,no_end_to_end,...] [--clips=N] [-- --config.field=value ...]

Every row starts from the same autoencoder, the same landmark network, the same seed and the same
data, and gets the same steps: stage `diffusion` from nothing, then `joint`. Then the probe
(`talkjax/metrics/probe.py`) and the evaluator on held-out clips. What stands after `--` goes to
`train.py` in every row. Everything lies in DIR, and started again the command goes on where it was.
"""

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
from absl import app, flags

from talkjax import commands, files
from talkjax.data import loader
from talkjax.errors import UserError
from talkjax.metrics import probe, statistics
from talkjax.metrics.protocol import METRICS, SETS
from talkjax.sampling import checkpoint
from talkjax.training import agreement

ROOT = Path(__file__).resolve().parents[1]
_TALK = "--config.denoiser.talkformer"
# Row -> flags of train.py in both stages, in `joint` only.
ROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "full": ((), ()),
    "no_end_to_end": ((), ("--config.joint.end_to_end=False",)),
    "no_motion_align": ((f"{_TALK}.motion_align=False",), ()),
    "no_reference_align": ((f"{_TALK}.reference_align=False",), ()),
    "dot_product": ((f"{_TALK}.positional=dot",), ()),
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
_BATCHES, _BATCH = 8, 8  # of the probe
_GRADIENTS = 24  # training batches whose gradients are compared


@dataclasses.dataclass(frozen=True)
class Study:
    """What all rows have in common, and what is measured; the fields are the flags.

    Attributes:
      config: a config file with stages.
      out: folder of runs and reports.
      data: folder made by data_pipelines.prepare.
      autoencoder, landmark: runs or exports that all rows start from.
      latents: of the data.
      videos: originals of the split, if they have moved.
      split: that is measured on.
      diffusion_steps, joint_steps: of every row.
      clips, seconds, steps: as of evaluate.py; None for all clips.
      weights: flags of evaluate.py that name weights.
      extra: flags of train.py.
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
    extra: tuple[str, ...] = ()


def ablate(study: Study, rows: Sequence[str]) -> str:
    """Trains, probes and evaluates rows; writes table.json and table.md: the latter's text.

    Raises:
      UserError: an unknown row, or something failed.
    """
    unknown = [row for row in rows if row not in ROWS]
    if unknown or not rows:
        raise UserError(f"--rows takes {', '.join(ROWS)}, not {','.join(unknown) or 'nothing'}")
    if not (ROOT / "train.py").is_file():
        raise UserError("train.py is not beside the package; run this in a checkout of talkjax")
    reports = {}
    for row in rows:
        export = train(study, row)
        probe_row(study, export, study.out / row / "probe.json")
        reports[row] = evaluate(study, row, export)
    text = table(study.out, reports)
    files.write_text(study.out / "table.md", text + "\n")
    return text


def train(study: Study, row: str) -> Path:
    """Trains a row as far as it is not yet: its export."""
    both, joint_only = ROWS[row]
    # Rows that differ in `joint` alone share the stage before.
    shared = next(name for name, (flags_, _) in ROWS.items() if flags_ == both)
    out = study.out
    first, second, export = out / shared / "diffusion", out / row / "joint", out / row / "export"
    data = [f"--config.data.dir={study.data}", f"--config.data.latents={study.latents}"]
    run(
        f"{row}: diffusion", "train.py", f"--config={study.config}:diffusion",
        f"--workdir={first}", *data, f"--config.init_from.autoencoder={study.autoencoder}",
        f"--config.steps={study.diffusion_steps}", *both, *study.extra,
    )  # fmt: skip
    run(
        f"{row}: joint", "train.py", f"--config={study.config}:joint", f"--workdir={second}",
        *data, f"--config.init_from.diffusion={first}",
        f"--config.init_from.landmark={study.landmark}", f"--config.steps={study.joint_steps}",
        *both, *joint_only, *study.extra,
    )  # fmt: skip
    run(f"{row}: export", "train.py", f"--workdir={second}", f"--export={export}")
    return export


def probe_row(study: Study, export: Path, to: Path) -> None:
    """Writes what `talkjax.metrics.probe` finds in a row's network."""
    params, config, nets = checkpoint.load(export)
    options = loader.LoaderOptions(
        stage="diffusion", batch_size=_BATCH, frames=1, latents=study.latents,
        region=nets.region, window=config["data"]["window"],
    )  # fmt: skip
    # Windows come in the order of the clips; strides put different people into one batch.
    windows = list(loader.eval_dataset(study.data, options, study.split))[: 4 * _BATCHES]
    stacked = {k: np.concatenate([w[k] for w in windows]) for k in probe.NEEDED}
    count = len(stacked["target_latent"]) // _BATCH
    batches = [{k: v[i::count][:_BATCH] for k, v in stacked.items()} for i in range(count)]
    found = probe.probe(nets, params, batches[:_BATCHES])
    if config["joint"]["end_to_end"]:
        found["gradient"] = gradient(study, config, params)
    files.write_json(to, found)


def gradient(study: Study, config: dict[str, Any], params: Any) -> dict[str, Any]:
    """Whether what end-to-end training tells the landmark network is signal."""
    fields = {k: v for k, v in config["data"].items() if k != "dir"}
    options = loader.LoaderOptions(
        **fields | {"latents": study.latents}, stage="joint", region=tuple(config["region"]),
        batch_size=config["batch_size"],
    )  # fmt: skip
    batches = itertools.islice(loader.train_dataset(study.data, options, seed=1), _GRADIENTS)
    return agreement.landmark_gradients(config, params, batches)


def evaluate(study: Study, row: str, export: Path) -> dict[str, Any]:
    """Evaluates a row; the files of all rows share one work folder."""
    path = study.out / row / "report.json"
    given = {"--videos": study.videos, "--clips": study.clips}
    run(
        f"{row}: evaluation", "evaluate.py", f"--checkpoint={export}", f"--data={study.data}",
        f"--split={study.split}", f"--out={path}", f"--work={study.out / 'work'}",
        f"--steps={study.steps}", f"--seconds={study.seconds}", f"--rows={EVALUATED}",
        *(f"{k}={v}" for k, v in given.items() if v), *study.weights,
    )  # fmt: skip
    return json.loads(path.read_text(encoding="utf-8"))


def run(title: str, script: str, *arguments: str) -> None:
    """Runs one of the checkout's scripts; SIGTERM and Ctrl-C reach it, and it saves.

    Raises:
      UserError: it failed.
    """
    print(f"== {title}", flush=True)
    child = subprocess.Popen([sys.executable, str(ROOT / script), *arguments])
    try:
        code = child.wait()
    except BaseException:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    if code:
        raise UserError(f"{title} ended with exit code {code}; see above, then start this again")


def table(out: Path, reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows beside each other, and their differences from the first with paired intervals.

    The differences are of the same clips: what makes a clip hard cancels. Also writes table.json.
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
                differences = paired(values[row], values[base], video, metric)
                found = statistics.bootstrap(differences)
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
        numbers = [f"{one['x0_l1'][condition]:.4f}" for one in probes.values()]
        lines.append(["error about the mouth", condition, *numbers])
    for whose in ("own", "other"):
        for name in ("error", "kernel", "identity"):
            lines.append([f"warp, {whose} reference", name, *(
                _mean_warp(one["warp"][whose], name) for one in probes.values()
            )])  # fmt: skip
    for part in ("diffusion", "landmark"):
        for name in ("norm", "norm_of_mean", "cosine_of_halves"):
            lines.append([f"gradient of the {part} loss", name, *(
                f"{one['gradient'][part][name]:.3f}" if "gradient" in one else ""
                for one in probes.values()
            )])  # fmt: skip
    files.write_json(out / "table.json", content)
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text.append("")
    text.append(
        f"In brackets the 95% bootstrap interval of the difference from {base} over the same "
        "clips, * where it excludes 0. Errors about the mouth: one-step estimate, latent units; "
        "warp: crop units, mean over blocks; gradients: in the landmark network "
        "(`talkjax/training/agreement.py`)."
    )
    return "\n".join(text)


def _mean_warp(blocks: Mapping[str, Mapping[str, float]], name: str) -> str:
    return f"{np.mean([b[name] for b in blocks.values()]):.4f}" if blocks else ""


def read_csv(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """{(row, clip): {metric: value}} of an evaluator's CSV."""
    with open(path, encoding="utf-8", newline="") as file:
        return {
            (line.pop("row"), line.pop("clip")): {k: float(v) for k, v in line.items() if v}
            for line in csv.DictReader(file)
        }


def paired(
    values: Mapping[tuple[str, str], Mapping[str, float]],
    base: Mapping[tuple[str, str], Mapping[str, float]],
    row: str,
    metric: str,
) -> list[float]:
    """A metric's differences of the clips that both have."""
    return [
        numbers[metric] - base[key][metric]
        for key, numbers in values.items()
        if key[0] == row and metric in numbers and metric in base.get(key, {})
    ]


def define_flags() -> None:
    """The command line."""
    flags.DEFINE_string("config", None, "A config file with stages, configs/NAME.py.")
    flags.DEFINE_string("out", None, "Folder of runs and reports.")
    flags.DEFINE_string("data", None, "Folder made by data_pipelines.prepare.")
    flags.DEFINE_string("latents", None, "Cached latents; SHARDS/latents by default.")
    flags.DEFINE_string("autoencoder", None, "Run or export that all rows share.")
    flags.DEFINE_string("landmark", None, "Run or export that all rows start from.")
    flags.DEFINE_string("videos", None, "Originals of the split, if they have moved.")
    flags.DEFINE_string("split", "test", "Split to measure on.")
    flags.DEFINE_integer("diffusion_steps", 2000, "Of every row.", 1)
    flags.DEFINE_integer("joint_steps", 300, "Of every row.", 1)
    rows = ["full", "no_end_to_end", "no_motion_align", "no_reference_align"]
    flags.DEFINE_list("rows", rows, f"Of {', '.join(ROWS)}; the first is compared with.")
    flags.DEFINE_integer("clips", None, "Evaluate at most so many, evenly chosen.", 1)
    flags.DEFINE_float("seconds", 20.0, "Longer clips are cut there.", 1.0)
    flags.DEFINE_integer("steps", 10, "Sampling steps.", 1)
    for name in WEIGHTS:
        flags.DEFINE_string(name, None, "As of evaluate.py.")


def main(argv: Sequence[str]) -> None:
    """Does what the flags say."""
    values = flags.FLAGS
    stray = [word for word in argv[1:] if not word.startswith("--config.")]
    if stray:
        raise UserError(f"unexpected argument {stray[0]!r}; after -- come --config.field=value")
    for name in ("config", "out", "data", "autoencoder", "landmark"):
        if not values[name].value:
            raise UserError(f"say --{name}=...; see `python -m talkjax.ablate --help`")
    taken = {
        field.name: values[field.name].value
        for field in dataclasses.fields(Study)
        if field.name not in ("weights", "extra", "out", "latents")
    }
    study = Study(
        **taken,
        out=Path(values.out),
        latents=values.latents or str(Path(values.data) / "latents"),
        weights=tuple(f"--{name}={values[name].value}" for name in WEIGHTS if values[name].value),
        extra=tuple(argv[1:]),
    )
    print(ablate(study, values.rows))


if __name__ == "__main__":
    define_flags()
    commands.exit_on_sigterm()
    app.run(lambda argv: sys.exit(commands.run_main(main, argv)), flags_parser=commands.parse_flags)
