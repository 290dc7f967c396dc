"""Two real processes on this machine, joined by jax.distributed."""

import os
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.training import test_loop, toy

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_two(workdir, *changes):
    """Starts both processes of a run, each with two devices."""
    shared = {"COORDINATOR": f"127.0.0.1:{free_port()}", "COUNT": "2", "DEVICES": "2"}
    return [
        subprocess.Popen(
            [sys.executable, toy.__file__, str(workdir), *changes],
            env={**os.environ, **shared, "INDEX": str(i)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for i in range(2)
    ]


def finish(processes, code=0):
    outputs = []
    try:
        for process in processes:
            outputs.append(process.communicate(timeout=180)[0])
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [code, code], "\n".join(outputs)
    return outputs


CONSTANT = ('optimizer.schedule="constant"', "mesh.fsdp=2", "noise=0.0")


def test_two_processes_resume_and_agree_with_one(tmp_path):
    finish(start_two(tmp_path / "whole", *CONSTANT))
    whole = test_loop.losses_of(tmp_path / "whole")
    assert [row[0] for row in whole] == list(range(1, 13))  # one process writes
    data = tmp_path / "whole" / "checkpoints" / "12" / "data"
    assert sorted(p.name for p in data.glob("process*")) == [
        "process_0-of-2.json",
        "process_1-of-2.json",
    ]
    assert (tmp_path / "whole" / "samples" / "00000012.png").exists()

    # Stopped after eight steps and gone on with: the same, to the last bit.
    finish(start_two(tmp_path / "parts", *CONSTANT, "steps=8"))
    shutil.copytree(tmp_path / "parts", tmp_path / "moved")
    outputs = finish(start_two(tmp_path / "parts", *CONSTANT))
    assert "resumed" in outputs[0]
    assert test_loop.losses_of(tmp_path / "parts") == whole

    # Gone on with, and done wholly, by one process with eight devices: the same but for rounding.
    changes = {"optimizer.schedule": "constant"}
    test_loop.train(tmp_path / "moved", stage=toy.stage(noise=0.0), **changes)
    test_loop.train(tmp_path / "one", stage=toy.stage(noise=0.0), **changes)
    for name in ("moved", "one"):
        rows = np.array(test_loop.losses_of(tmp_path / name))
        np.testing.assert_allclose(rows, np.array(whole), rtol=1e-4)


def test_a_signal_to_one_process_saves_in_both(tmp_path):
    slow = ("slow=0.2", "steps=1000", 'optimizer.schedule="constant"')
    processes = start_two(tmp_path / "run", *slow)
    for line in processes[0].stdout:
        if line.startswith("step 3/"):
            break
    processes[1].send_signal(signal.SIGTERM)
    outputs = finish(processes, code=143)
    assert "stopped by SIGTERM" in outputs[0]
    last = test_loop.losses_of(tmp_path / "run")[-1][0]
    saved = [int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(saved) == last < 1000
    assert len(list((tmp_path / "run/checkpoints" / str(last) / "data").glob("process_*"))) == 2
