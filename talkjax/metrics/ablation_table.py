"""The table that compares the ablations of `talkjax.ablate`."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talkjax.metrics import statistics
from talkjax.metrics.protocol import METRICS, SETS

Values = dict[tuple[str, str], dict[str, float]]  # {(row of the protocol, clip): {metric: value}}
TABLE = (
    ("model", "opening_correlation"), ("cross_driven", "opening_correlation"),
    ("model", "articulation"), ("model", "closures"), ("model", "lmd"), ("model", "lse_c"),
    ("model", "lse_d"), ("wrong_audio", "lse_c"), ("model", "psnr"),
    ("model", "ssim"), ("model", "lpips"), ("model", "fid"), ("model", "csim"),
    ("model", "jitter"),
)  # fmt: skip
_LEGEND = """\
In brackets: 95% bootstrap interval of the difference from {base} on the same clips, with * where it
excludes 0; in square brackets, the means of single seeds. Errors around the mouth are those of
one-step estimates in latent units, warps are in crop units (mean over blocks), and gradients are
those of the landmark network (`talkjax/training/agreement.py`)."""


def make_table(
    reports: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Sequence[Values]],
    probes: Mapping[str, Mapping[str, Any]],
) -> tuple[str, dict[str, Any]]:
    """Compares the rows with the first one.

    Intervals are those of differences on the same clips, so the clips' difficulty cancels.

    Args:
      reports: {row: the JSON report of evaluate.py for each seed}.
      values: {row: `read_csv` of the same reports}.
      probes: {row: what `talkjax.ablate.probe_row` found}.

    Returns:
      The table as Markdown, and everything that it was made of, for a JSON file.
    """
    per_clip = {row: mean_over_seeds(tables) for row, tables in values.items()}
    base = next(iter(reports))
    content: dict[str, Any] = {"reports": {}, "seeds": {}, "differences": {}, "probe": {}}
    lines = [["row", "metric", *reports], ["---"] * (2 + len(reports))]
    for video, metric in TABLE:
        name, digits = f"{video} {metric}", METRICS[metric].digits
        means = {row: _means(found, video, metric) for row, found in reports.items()}
        if not any(means.values()):
            continue
        cells = []
        for row, found in means.items():
            content["seeds"].setdefault(row, {})[name] = found
            cell = _format(np.mean(found) if found else None, digits)
            if len(found) > 1:
                cell += f" [{', '.join(_format(mean, digits) for mean in found)}]"
            if row != base and metric not in SETS:
                differences = paired_differences(per_clip[row], per_clip[base], video, metric)
                interval = statistics.bootstrap_mean(differences)
                content["differences"].setdefault(row, {})[name] = interval
                if interval["ci95"]:
                    low, high = interval["ci95"]
                    sign = "*" if low > 0 or high < 0 else ""
                    cell += f" ({low:+.{digits}f} to {high:+.{digits}f}){sign}"
            cells.append(cell)
        lines.append([video, metric, *cells])
    content["probe"] = dict(probes)
    content["reports"] = {row: [one["rows"] for one in found] for row, found in reports.items()}
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
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text += ["", _LEGEND.format(base=base)]
    return "\n".join(text), content


def _means(reports: Sequence[Mapping[str, Any]], video: str, metric: str) -> list[float]:
    """Returns a metric's mean in each report, or nothing if one lacks it."""
    entries = [report["rows"].get(video, {}).get(metric) for report in reports]
    means = [entry["mean"] for entry in entries if entry and entry["mean"] is not None]
    return means if len(means) == len(entries) else []


def _mean_warp(blocks: Mapping[str, Mapping[str, float]], name: str) -> str:
    known = [block[name] for block in blocks.values() if block[name] is not None]
    return _format(np.mean(known) if known else None, 4)


def _format(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def read_csv(path: Path) -> Values:
    """Reads an evaluation's CSV: {(row, clip): {metric: value}}."""
    with open(path, encoding="utf-8", newline="") as file:
        return {
            (line.pop("row"), line.pop("clip")): {k: float(v) for k, v in line.items() if v}
            for line in csv.DictReader(file)
        }


def mean_over_seeds(tables: Sequence[Values]) -> Values:
    """Averages the values that every seed has for a clip: see `read_csv`."""
    first, *others = tables
    result = {}
    for key, numbers in first.items():
        rest = [table.get(key, {}) for table in others]
        result[key] = {
            name: float(np.mean([value, *(other[name] for other in rest)]))
            for name, value in numbers.items()
            if all(name in other for other in rest)
        }
    return result


def paired_differences(
    values: Values,
    base: Values,
    row: str,
    metric: str,
) -> list[float]:
    """Returns the differences in a metric on the clips that both have."""
    return [
        numbers[metric] - base[key][metric]
        for key, numbers in values.items()
        if key[0] == row and metric in numbers and metric in base.get(key, {})
    ]
