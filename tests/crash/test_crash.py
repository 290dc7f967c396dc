"""Training survives being killed at any moment; `benchmarks/crash.py` kills it."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KILLS = 10
SEED = 9  # its kills hit nearly every phase, and saves above all


def test_nothing_is_lost_however_often_training_is_killed(tmp_path):
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.crash",
            f"--kills={KILLS}", f"--seed={SEED}", f"--report={report}",
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(report.read_text())
    assert sum(found["phases"].values()) == sum(found["interrupted"].values()) == KILLS
    assert found["interrupted"]["writing"]
    assert len([phase for phase, kills in found["phases"].items() if kills]) >= 4
