import math

import numpy as np
import pytest
from scipy.stats import binomtest

from talkjax.user_study import rates
from talkjax.user_study.answers import Vote

CHOICE = {"a": "left", "b": "right", None: "none"}


def vote(winner, rater="r", clip="c", choice=None, check=False, question="sync"):
    return Vote(rater, question, clip, choice or CHOICE[winner], winner, check, 1, 2.0)


def key(*questions, trials=4):
    return {
        "study": "s", "names": {"a": "ours", "b": "theirs"}, "questions": list(questions),
        "trials": {str(i): {} for i in range(trials)},
    }  # fmt: skip


def panel(probability, raters=20, clips=15, ties=0.2, seed=1):
    """Votes of people who prefer a with some probability, unless they see no difference."""
    rng = np.random.default_rng(seed)
    return [
        vote(
            None if rng.random() < ties else "a" if rng.random() < probability else "b",
            f"r{rater}", f"c{clip}",
        )
        for rater in range(raters) for clip in range(clips)
    ]  # fmt: skip


def test_counts_and_shares_by_hand():
    votes = [vote(w, f"r{i}") for i, w in enumerate(["a"] * 6 + ["b"] * 2 + [None] * 4)]
    q = rates.rate_question(votes, 0)
    assert (q["votes"], q["a"], q["b"], q["ties"], q["raters"], q["clips"]) == (12, 6, 2, 4, 12, 1)
    assert q["share"]["value"] == pytest.approx((6 + 2) / 12)
    assert q["decided"]["value"] == pytest.approx(6 / 8)
    assert q["p_value"] == pytest.approx(2 * (math.comb(8, 6) + math.comb(8, 7) + 1) / 2**8)


@pytest.mark.parametrize(("a", "b"), [(0, 5), (5, 0), (1, 1), (37, 21), (300, 290)])
def test_wilson_is_the_closed_form(a, b):
    n, z = a + b, 1.959963984540054
    p = a / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = rates.decided_share(a, b)
    assert found["decided"]["low"] == pytest.approx(middle - half, abs=1e-9)
    assert found["decided"]["high"] == pytest.approx(middle + half, abs=1e-9)
    assert found["p_value"] == pytest.approx(binomtest(a, n, 0.5).pvalue)


def test_swapping_the_systems_mirrors_everything():
    votes = panel(0.7)
    other = {"a": "b", "b": "a", None: None}
    q = rates.rate_question(votes, 3)
    m = rates.rate_question([vote(other[v.winner], v.rater, v.clip) for v in votes], 3)
    assert q["share"]["value"] == pytest.approx(1 - m["share"]["value"])
    assert q["share"]["low"] == pytest.approx(1 - m["share"]["high"])
    assert q["decided"]["low"] == pytest.approx(1 - m["decided"]["high"])
    assert q["p_value"] == pytest.approx(m["p_value"])


@pytest.mark.parametrize("truth", [0.3, 0.5, 0.8])
def test_a_planted_preference_is_found(truth):
    q = rates.rate_question(panel(truth, seed=round(10 * truth)), 0)
    share = 0.2 / 2 + 0.8 * truth
    assert q["share"]["low"] < share < q["share"]["high"]
    assert q["decided"]["low"] < truth < q["decided"]["high"]
    assert q["share"]["high"] - q["share"]["low"] < 0.25
    assert (q["p_value"] < 0.001) == (truth != 0.5)


def test_raters_of_one_mind_widen_the_bootstrap_only():
    """Each rater always says the same, so there are 10 opinions and not 200."""
    votes = [vote("ab"[r % 2], f"r{r}", f"c{c}") for r in range(10) for c in range(20)]
    q = rates.rate_question(votes, 0)
    wide, narrow = (q[k]["high"] - q[k]["low"] for k in ("share", "decided"))
    assert wide > 3 * narrow
    assert wide == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(10), rel=0.15)


def test_clips_count_as_raters_do():
    votes = [vote("ab"[c % 2], f"r{r}", f"c{c}") for r in range(20) for c in range(10)]
    q = rates.rate_question(votes, 0)
    assert q["share"]["high"] - q["share"]["low"] == pytest.approx(0.62, rel=0.15)


def test_the_seed_fixes_the_bootstrap():
    votes = panel(0.6)
    assert (
        rates.preference_share(votes, 1)
        == rates.preference_share(votes[::-1], 1)
        != rates.preference_share(votes, 2)
    )


def test_too_little_to_say():
    q = rates.rate_question([], 0)
    assert q["share"] == q["decided"] == {"value": None, "low": None, "high": None}
    assert q["p_value"] is None
    alone = rates.rate_question([vote(None), vote(None, clip="d")], 0)
    assert alone["share"] == {"value": 0.5, "low": None, "high": None}
    assert alone["decided"]["value"] is None
    report = rates.compute_rates([vote("a", check=False)], key("sync", "quality"))
    assert "| quality | – | – |" in rates.format_table(report)
    # Of sparse votes, bootstrap draws without any are passed over.
    sparse = [vote("a", "r1", "c1"), vote("a", "r2", "c2")]
    assert rates.preference_share(sparse, 0) == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_checks_are_told_and_not_counted():
    votes = [vote("a", "ann"), vote("b", "bob")]
    votes += [vote(None, "ann", choice="left", check=True) for _ in range(2)]
    votes += [vote(None, "ann", check=True), vote(None, "bob", check=True)]
    report = rates.compute_rates(votes, key("sync"))
    assert report["questions"]["sync"]["votes"] == 2
    checks = report["checks"]
    assert (checks["votes"], checks["failures"], checks["left"], checks["none"]) == (4, 2, 2, 2)
    assert checks["raters_failing_most"] == ["ann"]
    assert [r["failures"] for r in report["raters"]] == [2, 0]
    assert (
        "in 2 of 4 (left 2, right 0). Raters who failed most of theirs: ann."
        in rates.format_table(report)
    )


def test_a_rater_who_always_says_left_shows():
    votes = [vote("ab"[i % 2], clip=f"c{i}", choice="left") for i in range(12)]
    report = rates.compute_rates(votes, key("sync"))
    assert report["sides"]["share_left"] == 1.0
    assert report["sides"]["p_value"] == pytest.approx(2 / 2**12)
    assert report["questions"]["sync"]["share"]["value"] == 0.5


def test_the_table():
    report = rates.compute_rates(panel(0.8, raters=4, clips=1), key("sync", trials=1))
    rows = rates.format_table(report).splitlines()
    assert rows[0].startswith("| question | prefers ours") and rows[2].startswith("| sync | ")
    assert len({row.count("|") for row in rows[:3]}) == 1
    assert rows[4].startswith("4 raters, 4 of whom answered every trial.")
