"""How one process of several begins and ends; no device is asked for here."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from talkjax.training import processes

TIMEOUT = 6  # seconds, of heartbeats
SCRIPT = """
import os, signal, sys, time
from talkjax.errors import UserError
from talkjax.training import processes

def main(argv):
    what = argv[1]
    print("begun", os.getpid(), flush=True)
    if "join" in argv:
        processes.join(heartbeat_timeout=TIMEOUT)
        print("joined", flush=True)
    if what == "mistake":
        raise UserError("there is no data")
    if what == "bug":
        raise KeyError("bug")
    if what == "gloo":
        try:
            raise RuntimeError(
                "UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:547] "
                "Connection closed by peer [127.0.0.1]:27059"
            )
        except RuntimeError as error:
            raise ValueError("the checkpoint could not be saved") from error
    if what == "memory":
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1024 bytes.")
    if what.isdigit():
        os.kill(os.getpid(), int(what))
    if what == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        time.sleep(600)

sys.exit(processes.run_main(main, sys.argv))
""".replace("TIMEOUT", str(TIMEOUT))


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("nothing", 0, ""),
        ("mistake", 2, "error: there is no data"),
        ("bug", 1, "KeyError: 'bug'"),
        ("memory", 1, "RuntimeError: RESOURCE_EXHAUSTED"),
        ("gloo", processes.LOST, "error: another process of the run died"),
        (str(int(signal.SIGABRT)), processes.LOST, "error: another process of the run died"),
        (str(int(signal.SIGKILL)), 137, "error: this process of the run was killed by SIGKILL"),
    ],
)
def test_how_a_process_ends(what, code, words):
    process = start(what)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert ["", *err.splitlines()][-1].startswith(words)
    assert ("Traceback" in err) == (code == 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_parent_and_child_go_together(number):
    process = start("wait")
    child = int(process.stdout.readline().split()[1])
    process.send_signal(number)
    # Its end of the pipes closes when the child has gone, whoever reaps it.
    process.communicate(timeout=30)
    assert process.returncode == (143 if number == signal.SIGTERM else -number)
    assert child != process.pid
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("how", ["mistake", "killed"])
def test_when_one_process_is_gone_the_other_ends(first, how):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    both = [
        start(
            how if how == "mistake" and index == first else "wait",
            "join",
            JAX_PLATFORMS="cpu",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]
    children = [int(process.stdout.readline().split()[1]) for process in both]
    assert [process.stdout.readline() for process in both] == ["joined\n", "joined\n"]
    if how == "killed":
        os.kill(children[first], signal.SIGKILL)
    gone, other = both[first], both[1 - first]
    _, err = gone.communicate(timeout=60)
    assert gone.returncode == (2 if how == "mistake" else 137), err
    began = time.monotonic()
    _, err = other.communicate(timeout=60)
    assert other.returncode == processes.LOST
    assert err.splitlines()[-1].startswith("error: another process of the run died")
    assert time.monotonic() - began < TIMEOUT + 15  # a busy machine is late


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "set JAX_COORDINATOR_ADDRESS=HOST:PORT"),
        ({"JAX_COORDINATOR_ADDRESS": "host"}, "'host' is not HOST:PORT"),
        (
            {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_PROCESS_ID": "first"},
            "JAX_PROCESS_ID='first' is not a number",
        ),
    ],
)
def test_who_they_are_must_be_told(monkeypatch, environment, words):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    process = start("nothing", "join", JAX_PLATFORMS="cpu", **environment)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("error: ") and words in err
