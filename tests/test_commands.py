"""What all commands share: names of files, signals and exit codes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from talkjax import commands
from talkjax.errors import UserError

ROOT = Path(__file__).parents[1]
_COMMAND = """
import sys
from talkjax import commands
from talkjax.errors import UserError

def main(argv):
    print(argv[0])
    if len(argv) > 1:
        raise UserError(f"{argv[0]}: is wrong")

commands.run(main)
"""


def run(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_names_that_the_console_cannot_encode(encoding):
    done = run("\u0444\u0438\u043b\u044c\u043c.mp4", "x", PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    escaped = b"\\u0444\\u0438\\u043b\\u044c\\u043c.mp4"
    assert done.stdout.strip() == escaped
    assert done.stderr.strip() == b"error: " + escaped + b": is wrong"


def test_names_that_are_not_unicode():
    done = run(b"clip\xff.mp4", PYTHONIOENCODING="utf-8")
    assert done.returncode == 0 and done.stdout.strip() == b"clip\\udcff.mp4"
    assert run(b"clip\xff.mp4", PYTHONIOENCODING="utf-8:surrogateescape").stdout[:5] == b"clip\xff"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--video=~/clip.mp4", "--video=/ada/clip.mp4"),
        ("--config.data.dir=~/shards", "--config.data.dir=/ada/shards"),
        ("~/clip.mp4", "/ada/clip.mp4"),
        ("--video=~", "--video=/ada"),
        ("--video=clip~1.mp4", "--video=clip~1.mp4"),
        ("--video=~there.mp4", "--video=~there.mp4"),
        ("--quiet", "--quiet"),
    ],
)
def test_home(monkeypatch, tmp_path, given, expected):
    monkeypatch.setenv("HOME", "/ada")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~there.mp4").touch()
    assert commands.expand_home(given) == expected
    seen = []
    assert commands.run_main(seen.extend, [given]) == 0 and seen == [expected]


def test_exit_codes(capsys):
    def fail(argv):
        raise UserError("no such file")

    assert commands.run_main(lambda argv: None, []) == 0
    assert commands.run_main(lambda argv: 3, []) == 3
    assert commands.run_main(fail, []) == 2
    assert capsys.readouterr().err == "error: no such file\n"


def test_a_pipe_that_closes_early():
    code = """
from talkjax import commands
commands.run(lambda argv: print("x" * 1_000_000))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141 and error == b""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
@pytest.mark.parametrize("ignored", [False, True])
def test_signals(number, ignored):
    code = f"""
import os, signal, sys
from talkjax import commands
signal.signal({int(number)}, signal.SIG_IGN if {ignored} else signal.SIG_DFL)

def main(argv):
    try:
        os.kill(os.getpid(), {int(number)})
        print("goes on")
    finally:
        print("cleaned up")

commands.run(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == (0 if ignored else 128 + number)
    assert done.stdout.split(b"\n")[:-1] == [b"goes on"] * ignored + [b"cleaned up"]
