"""The report: one JSON object, and the same as a Markdown table and as CSV.

`{"protocol": "1", "rows": {ROW: {METRIC: {"mean", "ci95": [low, high] or null, "n"}}},
"missing": {METRIC or ROW: why it was not measured}, "failures": [{"clip", "row", "error"}],
"settings": {all that the numbers depend on, and what rows and metrics mean}}`
"""

import csv
import importlib.metadata
import io
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from talkjax.metrics import fid, statistics
from talkjax.metrics.judge import Judged, Numbers
from talkjax.metrics.protocol import METRICS, PROTOCOL, SETS, expected

_PACKAGES = (
    "jax", "jaxlib", "flax", "numpy", "scipy", "opencv-python-headless", "av", "librosa", "soxr"
)  # fmt: skip


def versions(detector: Mapping[str, str]) -> dict[str, str]:
    """What the numbers depend on, by name."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found | {f"facemesh worker: {k}": str(v) for k, v in detector.items()}


def build(
    judged: Mapping[str, Mapping[str, Judged]],
    rows: Mapping[str, str],
    missing: Mapping[str, str],
    failures: Sequence[Mapping[str, str]],
    settings: Mapping[str, Any],
    seed: int = 0,
) -> dict[str, Any]:
    """Puts a report together.

    Args:
      judged: {row: {clip: what was measured}}.
      rows: {row: description} of those that were asked for.
      missing: {metric or row: why it was not measured}.
      failures: {"clip", "row", "error"} of clips that could not be measured in a row.
      settings: everything that the numbers depend on.
      seed: of the bootstrap.
    """
    built: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row in missing:
            continue
        clips = judged.get(row, {})
        built[row] = {}
        for name in expected(row):
            if name in missing:
                continue
            if name in SETS:
                pairs = [c.features[name] for c in clips.values() if name in c.features]
                entry = fid.bootstrap([a for a, _ in pairs], [b for _, b in pairs], seed)
            else:
                entry = statistics.bootstrap([c.numbers.get(name) for c in clips.values()], seed)
            built[row][name] = entry
    described = {
        name: {"better": m.better, "description": m.description} for name, m in METRICS.items()
    }
    return {
        "protocol": PROTOCOL,
        "rows": built,
        "missing": dict(missing),
        "failures": list(failures),
        "settings": {**settings, "rows": dict(rows), "metrics": described},
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table, a metric a line; means and half their 95% intervals."""
    rows = report["rows"]
    present = [name for name in METRICS if any(name in row for row in rows.values())]
    lines = [["", "best", *rows]]
    for name in present:
        cells = [_cell(row.get(name), METRICS[name].digits) for row in rows.values()]
        lines.append([name, METRICS[name].better, *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    counts = sorted({entry["n"] for row in rows.values() for entry in row.values()})
    text += ["", f"Protocol {report['protocol']}; means over clips (n up to {(counts or [0])[-1]}) "
             "± half of the 95% bootstrap interval."]  # fmt: skip
    for name, weights in report["settings"].get("weights", {}).items():
        if weights:
            text.append(f"{name}: {weights['name']} (SHA-256 {weights['sha256'][:12]}).")
    text += [f"Missing: {name}: {why}." for name, why in report["missing"].items()]
    text += [f"Failed: {f['clip']} in {f['row']}: {f['error']}" for f in report["failures"]]
    return "\n".join(text)


def _cell(entry: Mapping[str, Any] | None, digits: int) -> str:
    if entry is None:
        return ""
    if entry["mean"] is None:
        return "n/a"
    text = f"{entry['mean']:.{digits}f}"
    if entry["ci95"] is None:
        return text
    return f"{text} ± {np.ptp(entry['ci95']) / 2:.{digits}f}"


def per_clip(judged: Mapping[str, Mapping[str, Judged]]) -> str:
    """CSV: a line for every row and clip; empty where a number is undefined."""
    names = [name for name in METRICS if name not in SETS]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "clip", *names])
    for row, clips in judged.items():
        for clip, one in clips.items():
            writer.writerow([row, clip, *(_number(one.numbers, name) for name in names)])
    return out.getvalue()


def _number(numbers: Numbers, name: str) -> str:
    value = numbers.get(name)
    return "" if value is None else f"{value:.8g}"
