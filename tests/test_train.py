"""The command line of train.py; what it starts is tested in tests/training."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "--config=configs/person_128.py"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([CONFIG, "--workdir=out/x", "--config.lerning_rate=1"], "lerning_rate"),
        ([CONFIG, "--workdir=out/x", "--config.steps=many"], "steps"),
        ([CONFIG, "--workdir=out/x", "--no_such_flag=1"], "no_such_flag"),
        ([CONFIG, "--workdir=out/x", "stray"], "stray"),
        ([CONFIG], "--workdir"),
        (["--workdir=out/x"], "--config"),
        (["--workdir=out/x", "--config=configs/none.py"], "none.py"),
        ([CONFIG, "--workdir=out/x"], "--config.data.dir"),
        ([CONFIG, "--workdir=out/x", "--config.stage=dance"], "'dance'"),
        ([CONFIG, "--workdir=out/x", "--config.data.dir=no/such"], "no/such"),
        ([CONFIG, "--workdir=out/x", "--heartbeat_timeout=1"], "at least 2"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_mistakes_end_with_one_line_and_exit_code_2(arguments, words, commands):
    done = commands.run("train.py", *arguments)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "Traceback" not in done.stderr
    assert not (ROOT / "out" / "x").exists()
