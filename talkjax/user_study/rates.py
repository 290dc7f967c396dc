"""Computes preference rates from votes, with intervals and p-values.

Every question gets two shares. `share` counts a tie ("no preference") as half a vote for each
system. Its interval comes from a bootstrap that resamples raters and clips at the same time (the
"pigeonhole" bootstrap, Owen 2007), because votes of one rater, or on one clip, are not independent;
it is conservative. `decided` is the share among the votes that preferred a side, as in a sign test.
Its Wilson interval and exact two-sided binomial p-value treat votes as independent, so they are too
small where a few raters gave many votes. P-values are not corrected for the number of questions.
Attention checks do not count in any rate, and no rater is excluded.
"""

import collections
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from talkjax.user_study.answers import Vote

LEVEL = 0.95
RESAMPLES = 2000
_SCORE = {"a": 1.0, "b": 0.0, None: 0.5}


def compute_rates(votes: Sequence[Vote], key: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Computes the report of a study.

    Args:
      votes: Votes of all raters, including attention checks.
      key: Key of the study.
      seed: Seed of the bootstrap.

    Returns:
      JSON data with the entries "questions" {name: rates}, "sides", "checks" and "raters".
    """
    real = [vote for vote in votes if not vote.check]
    checks = [vote for vote in votes if vote.check]
    raters = _summarize_raters(votes, len(key["trials"]))
    return {
        "study": key["study"],
        "names": key["names"],
        "level": LEVEL,
        "seed": seed,
        "questions": {
            question: rate_question([v for v in real if v.question == question], seed)
            for question in key["questions"]
        },
        "sides": side_bias(real),
        "checks": side_bias(checks)
        | {
            "votes": len(checks),
            "failures": sum(vote.choice != "none" for vote in checks),
            "raters_failing_most": [r["rater"] for r in raters if 2 * r["failures"] > r["checks"]],
        },
        "raters": raters,
    }


def rate_question(votes: Sequence[Vote], seed: int) -> dict[str, Any]:
    """Computes the preference for system a from the votes on one question.

    Returns:
      {"votes", "raters", "clips", "a", "b", "ties", "share": {"value", "low", "high"},
      "decided": {"value", "low", "high"}, "p_value", "sides"}; undefined values are None.
    """
    counts = collections.Counter(vote.winner for vote in votes)
    a, b = counts["a"], counts["b"]
    return {
        "votes": len(votes),
        "raters": len({vote.rater for vote in votes}),
        "clips": len({vote.clip for vote in votes}),
        "a": a,
        "b": b,
        "ties": counts[None],
        "share": preference_share(votes, seed),
        **decided_share(a, b),
        "sides": side_bias(votes),
    }


def decided_share(a: int, b: int) -> dict[str, Any]:
    """Computes a / (a + b) with Wilson's interval, and its exact p-value against one half."""
    if not a + b:
        return {"decided": {"value": None, "low": None, "high": None}, "p_value": None}
    test = binomtest(a, a + b)
    interval = test.proportion_ci(LEVEL, method="wilson")
    return {
        "decided": {
            "value": a / (a + b), "low": float(interval.low), "high": float(interval.high)
        },
        "p_value": float(test.pvalue),
    }  # fmt: skip


def preference_share(votes: Sequence[Vote], seed: int) -> dict[str, float | None]:
    """Computes the share of system a, with ties as half, and its bootstrap interval.

    Returns:
      {"value", "low", "high"}. The bounds are None with fewer than two raters or clips; without
      votes, "value" is None as well.
    """
    result: dict[str, float | None] = {"value": None, "low": None, "high": None}
    if not votes:
        return result
    result["value"] = statistics.fmean(_SCORE[vote.winner] for vote in votes)
    raters = sorted({vote.rater for vote in votes})
    clips = sorted({vote.clip for vote in votes})
    if min(len(raters), len(clips)) < 2:
        return result
    row = {name: i for i, name in enumerate(raters)}
    column = {name: i for i, name in enumerate(clips)}
    count, score = np.zeros((2, len(raters), len(clips)))
    for vote in votes:
        at = row[vote.rater], column[vote.clip]
        count[at] += 1
        score[at] += _SCORE[vote.winner]
    rng = np.random.default_rng(seed)
    by_rater = rng.multinomial(len(raters), np.full(len(raters), 1 / len(raters)), RESAMPLES)
    by_clip = rng.multinomial(len(clips), np.full(len(clips), 1 / len(clips)), RESAMPLES)
    total = ((by_rater @ count) * by_clip).sum(axis=1)
    drawn = ((by_rater @ score) * by_clip).sum(axis=1)
    some = total > 0  # with few votes, a resample may be empty
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn[some] / total[some], [tail, 1 - tail])
    return result | {"low": float(low), "high": float(high)}


def side_bias(votes: Sequence[Vote]) -> dict[str, Any]:
    """Counts how often each side was chosen; without bias, the share of left is 0.5."""
    counts = collections.Counter(vote.choice for vote in votes)
    left, right = counts["left"], counts["right"]
    some = left + right > 0
    return {
        "left": left,
        "right": right,
        "none": counts["none"],
        "share_left": left / (left + right) if some else None,
        "p_value": float(binomtest(left, left + right).pvalue) if some else None,
    }


def _summarize_raters(votes: Sequence[Vote], trials: int) -> list[dict[str, Any]]:
    """Returns a summary of every rater, sorted by name."""
    own = collections.defaultdict(list)
    for vote in votes:
        own[vote.rater].append(vote)
    return [
        {
            "rater": rater,
            "answered": len(given),
            "of": trials,
            "checks": sum(vote.check for vote in given),
            "failures": sum(vote.check and vote.choice != "none" for vote in given),
            "left": sum(vote.choice == "left" for vote in given),
            "right": sum(vote.choice == "right" for vote in given),
            "none": sum(vote.choice == "none" for vote in given),
            "replays": sum(vote.replays for vote in given),
            "median_seconds": statistics.median(vote.seconds for vote in given),
        }
        for rater, given in sorted(own.items())
    ]


def format_table(report: dict[str, Any]) -> str:
    """Formats a report as a Markdown table with two lines below it."""
    a, b = report["names"]["a"], report["names"]["b"]
    lines = [
        f"| question | prefers {a}, ties as half | bootstrap | of decided | Wilson | p | "
        f"{a} / tie / {b} | raters | clips |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, q in report["questions"].items():
        cells = [
            name, _percent(q["share"]["value"]), _interval(q["share"]),
            _percent(q["decided"]["value"]), _interval(q["decided"]),
            "–" if q["p_value"] is None else f"{q['p_value']:.3g}",
            f"{q['a']} / {q['ties']} / {q['b']}", str(q["raters"]), str(q["clips"]),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    raters, sides, checks = report["raters"], report["sides"], report["checks"]
    finished = sum(rater["answered"] == rater["of"] for rater in raters)
    lines += [
        "",
        f"{len(raters)} raters, {finished} of whom answered every trial. Chosen: left "
        f"{sides['left']}, right {sides['right']}, no preference {sides['none']}.",
    ]
    if checks["votes"]:
        failing = checks["raters_failing_most"]
        lines.append(
            f"Attention checks: a side was preferred in {checks['failures']} of {checks['votes']} "
            f"(left {checks['left']}, right {checks['right']}). Raters who failed most of theirs: "
            f"{', '.join(failing) or 'none'}."
        )
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _interval(bounds: dict[str, float | None]) -> str:
    if bounds["low"] is None:
        return "–"
    return f"{100 * bounds['low']:.1f} to {100 * bounds['high']:.1f}%"
