"""Training survives being killed at any moment; `benchmarks/crash.py` kills it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Kills, seeds, and in how many phases they are at least. What they hit depends on the machine's
# speed, too: usually the few hit four phases and two saves, the many nearly every phase.
FEW, MANY = (5, (8599, 9), 3), (10, (9, 8599), 4)
MISSED = "no kill hit a save"


@pytest.mark.parametrize(
    ("kills", "seeds", "hit"),
    [FEW, pytest.param(*MANY, marks=pytest.mark.slow)],
    ids=["few", "many"],
)
def test_nothing_is_lost_however_often_training_is_killed(tmp_path, kills, seeds, hit):
    report = tmp_path / "report.json"
    for seed in seeds:  # a second one only if the first tested little
        done = subprocess.run(
            [
                sys.executable, "-m", "benchmarks.crash",
                f"--kills={kills}", f"--seed={seed}", f"--report={report}",
            ],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=1200,
        )  # fmt: skip
        if MISSED not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(report.read_text())
    assert sum(found["phases"].values()) == sum(found["interrupted"].values()) == kills
    assert found["interrupted"]["writing"]
    assert len([phase for phase, kills in found["phases"].items() if kills]) >= hit
