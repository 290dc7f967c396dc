"""Training survives being killed at any moment; `benchmarks/crash.py` kills it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Kills and a seed: the few hit four phases and two saves, the many nearly every phase.
FEW, MANY = (5, 8599), (10, 9)


@pytest.mark.parametrize(
    ("kills", "seed"), [FEW, pytest.param(*MANY, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_nothing_is_lost_however_often_training_is_killed(tmp_path, kills, seed):
    report = tmp_path / "report.json"
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
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(report.read_text())
    assert sum(found["phases"].values()) == sum(found["interrupted"].values()) == kills
    assert found["interrupted"]["writing"]
    assert len([phase for phase, kills in found["phases"].items() if kills]) >= 4
