"""Every program of every config can be traced for more devices than it makes pictures."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("programs_16.py")
# Attention of cuDNN cannot be traced where cuDNN is not installed.
IMPLEMENTATIONS = ("xla", "pallas_tpu")
# demo_64 and demo_128 differ in size alone; the larger one is traced.
CASES = [
    ("demo_128:autoencoder", ("xla",), 3),
    ("demo_128:landmark", ("xla",), 3),
    ("demo_128:diffusion", ("xla",), 3),
    ("person_128:joint", ("pallas_tpu",), 3),
    ("base_256:joint", IMPLEMENTATIONS, 3),
    ("sync:sync", ("xla",), 2),  # no pictures
]


@pytest.mark.parametrize(("name", "implementations", "programs"), CASES)
def test_all_programs_are_traced_on_sixteen_devices(name, implementations, programs):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), name, ",".join(implementations)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert not done.returncode, done.stderr[-2000:]
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == programs * len(implementations)
    assert all(line.endswith("True") for line in lines)
