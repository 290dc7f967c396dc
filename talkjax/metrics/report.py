"""The report of an evaluation: one JSON object, also formatted as a Markdown table and as CSV.

It is `{"protocol": "1", "rows": {ROW: {METRIC: {"mean", "ci95": [low, high] or null, "n"}}},
"missing": {METRIC or ROW: why it was not measured}, "failures": [{"clip", "row", "error"}],
"settings": {everything the numbers depend on, and what rows and metrics mean}}`.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from talkjax.metrics import fid, statistics
from talkjax.metrics.clip_evaluator import ClipScores, Numbers
from talkjax.metrics.protocol import METRICS, PROTOCOL, SETS, expected


def replace_non_finite(value: Any) -> Any:
    """Returns JSON data in which NaN and infinities, which JSON does not have, are None."""
    if isinstance(value, Mapping):
        return {key: replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def make_report(
    scores: Mapping[str, Mapping[str, ClipScores]],
    rows: Mapping[str, str],
    missing: Mapping[str, str],
    failures: Sequence[Mapping[str, str]],
    settings: Mapping[str, Any],
    seed: int = 0,
) -> dict[str, Any]:
    """Summarises the scores of clips.

    Args:
      scores: {row: {clip name: scores}}.
      rows: {row: description} of the requested rows.
      missing: {metric or row: why it was not measured}.
      failures: {"clip", "row", "error"} of every clip that could not be measured in a row.
      settings: Everything that the numbers depend on.
      seed: Seed of the bootstrap.

    Returns:
      The report, as JSON data without NaN or infinities.
    """
    summaries: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row in missing:
            continue
        clips = scores.get(row, {})
        summaries[row] = {}
        for name in expected(row):
            if name in missing:
                continue
            if name in SETS:
                pairs = [c.features[name] for c in clips.values() if name in c.features]
                entry = fid.bootstrap_distance([a for a, _ in pairs], [b for _, b in pairs], seed)
            else:
                entry = statistics.bootstrap_mean(
                    [c.numbers.get(name) for c in clips.values()], seed
                )
            summaries[row][name] = entry
    described = {
        name: {"better": m.better, "description": m.description} for name, m in METRICS.items()
    }
    return replace_non_finite(
        {
            "protocol": PROTOCOL,
            "rows": summaries,
            "missing": dict(missing),
            "failures": list(failures),
            "settings": {**settings, "rows": dict(rows), "metrics": described},
        }
    )


def format_markdown(report: Mapping[str, Any]) -> str:
    """Formats a report as a Markdown table: one metric per line, means ± half of the interval."""
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


def format_csv(scores: Mapping[str, Mapping[str, ClipScores]]) -> str:
    """Formats scores as CSV: one line per row and clip; undefined numbers are empty."""
    names = [name for name in METRICS if name not in SETS]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "clip", *names])
    for row, clips in scores.items():
        for clip, one in clips.items():
            writer.writerow([row, clip, *(_number(one.numbers, name) for name in names)])
    return out.getvalue()


def _number(numbers: Numbers, name: str) -> str:
    value = numbers.get(name)
    return "" if value is None else f"{value:.8g}"
