"""Every program of every config can be traced for more devices than it makes pictures."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("programs_16.py")
# demo_64 and demo_128 differ in size alone; the larger one is traced. Pods run base_256 with the
# kernel for TPUs. Attention of cuDNN cannot be traced where cuDNN is not installed.
CASES = [
    ("demo_128:autoencoder", "xla", 3),
    ("demo_128:landmark", "xla", 3),
    ("demo_128:diffusion", "xla", 3),
    ("person_128:joint", "xla", 3),
    ("base_256:joint", "pallas_tpu", 3),
    ("sync:sync", "xla", 2),  # no pictures
]


@pytest.fixture(scope="module")
def traced():
    """{config: its programs that were traced}, of one process that has 16 devices."""
    cases = [f"{name},{implementation}" for name, implementation, _ in CASES]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *cases], capture_output=True, text=True, timeout=600
    )
    assert not done.returncode, done.stderr[-2000:]
    found = {name: [] for name, _, _ in CASES}
    for line in done.stdout.splitlines():
        name, program, whether = line.split()
        assert whether == "True", line
        found[name].append(program)
    return found


@pytest.mark.parametrize(("name", "implementation", "programs"), CASES)
def test_all_programs_are_traced_on_sixteen_devices(traced, name, implementation, programs):
    assert len(set(traced[name])) == programs
