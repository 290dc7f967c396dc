"""README's commands: a corpus, a model trained on it from nothing, a face that speaks.

uv run pytest -m slow tests/test_demo_training.py
"""

import json
import os
import shlex
import subprocess
import sys

import pytest

HEADING = "## Train from scratch"


def commands(readme):
    """The commands of the section's first code block, as argument lists."""
    block = readme.split(HEADING)[1].split("```")[1]
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("uv run")]


def python_arguments(command):
    """`uv run [--extra X] -m M` or `uv run FILE`, for the interpreter that runs the tests."""
    rest = command[2:]
    if rest[0] == "--extra":
        rest = rest[2:]
    return rest


@pytest.mark.slow
def test_lips_follow_speech_after_the_commands_of_the_readme(repository, tmp_path):
    found = commands((repository / "README.md").read_text())
    assert len(found) >= 8, "README's section has lost its commands"
    report = tmp_path / "demo" / "report.json"
    for command in found:
        arguments = python_arguments(command)
        if arguments[0].endswith(".py"):
            arguments[0] = str(repository / arguments[0])
        arguments = [a.replace("=configs/", f"={repository}/configs/") for a in arguments]
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(repository), "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-2000:]}"
    rows = json.loads(report.read_text())["rows"]

    def value(row, metric):
        return rows[row][metric]["mean"]

    # Four people whom the model never saw; it gave 0.42, 0.42, 0.41, 0.10 and a copied mouth 0.00.
    assert value("model", "opening_correlation") > 0.25
    assert value("cross_driven", "opening_correlation") > 0.2
    assert value("model", "articulation") > 0.25
    assert value("silence", "silence_leak") < 0.5 * value("model", "articulation")
    copied = value("copy_mouth", "opening_correlation")
    assert value("model", "opening_correlation") > copied + 0.15
