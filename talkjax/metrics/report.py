"""The report: one JSON object, and the same as a table for people."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from talkjax.metrics import statistics
from talkjax.metrics.rows import METRICS, MISSING, NEEDS_PARTNER, ROWS, Numbers, expected

PROTOCOL = 1  # raise it whenever a number changes its meaning
_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "opencv-python-headless", "av", "librosa", "soxr")


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
    per_clip: Mapping[str, Mapping[str, Numbers]],
    protocol: Mapping[str, Any],
    missing: Mapping[str, str],
    failures: Sequence[Mapping[str, str]],
    seed: int = 0,
    single: bool = False,
) -> dict[str, Any]:
    """Puts a report together.

    Args:
      per_clip: {row: {clip: numbers}}.
      protocol: everything that the numbers depend on.
      missing: {metric: why it was not computed} of those that could have been.
      failures: {"clip", "row", "error"} of clips that could not be measured in a row.
      seed: of the bootstrap.
      single: there was one clip only, so no partner.

    Returns:
      {"protocol", "rows", "metrics", "failures", "per_clip"}. A row's metric is
      {"value", "low", "high", "clips"} or {"missing": why}.
    """
    missing = MISSING | dict(missing)
    rows = {}
    for row, description in ROWS.items():
        clips = per_clip.get(row, {})
        rows[row] = {"description": description, "clips": len(clips), "metrics": {}}
        for name in expected(row):
            if name in missing:
                entry = {"missing": missing[name]}
            elif row in NEEDS_PARTNER and single:
                entry = {"missing": "needs a second clip"}
            elif not clips:
                entry = {"missing": "no clip could be measured; see failures"}
            else:
                statistic = np.median if METRICS[name].median else np.mean
                values = [numbers.get(name) for numbers in clips.values()]
                entry = statistics.bootstrap(values, statistic, seed)
            rows[row]["metrics"][name] = entry
    described = {
        name: {
            "better": m.better, "description": m.description,
            "statistic": "median" if m.median else "mean",
        }
        for name, m in METRICS.items()
    }  # fmt: skip
    return {
        "protocol": dict(protocol),
        "rows": rows,
        "metrics": described,
        "failures": list(failures),
        "per_clip": {row: dict(clips) for row, clips in per_clip.items()},
    }


def table(report: Mapping[str, Any]) -> str:
    """The report as text: a row a line, values with half the width of their 95% interval."""
    rows = report["rows"]
    present = [n for n in METRICS if any("value" in r["metrics"].get(n, {}) for r in rows.values())]
    lines = [["", "clips", *(METRICS[n].title for n in present)]]
    for row, content in rows.items():
        cells = [row, str(content["clips"])]
        for name in present:
            cells.append(_cell(content["metrics"].get(name), METRICS[name].digits))
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    whys: dict[str, str] = {}
    for content in rows.values():
        for name, entry in content["metrics"].items():
            if "missing" in entry and name not in present:
                whys[METRICS[name].title] = entry["missing"]
    text.append("(value±half of the 95% bootstrap interval over clips; - where it does not apply)")
    text += [f"missing: {title}: {why}" for title, why in whys.items()]
    for failure in report["failures"]:
        text.append(f"failed: {failure['clip']} in {failure['row']}: {failure['error']}")
    return "\n".join(text)


def _cell(entry: Mapping[str, Any] | None, digits: int) -> str:
    if entry is None:
        return "-"
    if entry.get("value") is None:
        return "n/a"
    text = f"{entry['value']:.{digits}f}"
    if entry["low"] is None:
        return text
    return f"{text}±{(entry['high'] - entry['low']) / 2:.{digits}f}"
