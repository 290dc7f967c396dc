"""The command line of train.py; what it starts is tested in tests/training."""

from pathlib import Path

import pytest

import train as train_script
from configs import demo_128
from talkjax.data import loader, records

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "--config=configs/person_128.py"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([CONFIG, "--workdir=out/x", "--config.lerning_rate=1"], "lerning_rate"),
        ([CONFIG, "--workdir=out/x", "--config.optimizer.learning_rat=1"], "learning_rat"),
        ([CONFIG, "--workdir=out/x", "--config.steps=many"], "steps"),
        ([CONFIG, "--workdir=out/x", "--no_such_flag=1"], "no_such_flag"),
        ([CONFIG, "--workdir=out/x", "stray"], "stray"),
        ([CONFIG], "--workdir"),
        ([CONFIG, "--workdir=gs://bucket/run"], "gs://bucket/run is no path"),
        (["--workdir=out/x"], "--config"),
        (["--workdir=out/x", "--config=configs/none.py"], "none.py"),
        ([CONFIG, "--workdir=out/x"], "--config.data.dir"),
        ([CONFIG, "--workdir=out/x", "--config.stage=dance"], "'dance'"),
        ([CONFIG, "--workdir=out/x", "--config.data.dir=no/such"], "no/such"),
        (["--workdir=no/such", "--export=out/y"], "no/such"),
        (["--workdir=no/such", "--export=out/y", "--export_dtype=int8"], "export_dtype"),
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


@pytest.mark.parametrize(
    ("splits", "elsewhere", "expected"),
    [
        (["train", "test"], "", ("A", "test")),
        (["train", "validation", "test"], "", ("A", "validation")),
        (["validation"], "B", ("B", "validation")),
    ],
)
def test_where_a_run_looks_how_it_does_on_held_out_data(monkeypatch, splits, elsewhere, expected):
    asked = []
    monkeypatch.setattr(records, "list_splits", lambda folder: dict.fromkeys(splits, 9))
    monkeypatch.setattr(loader, "train_dataset", lambda folder, *_, **k: asked.append(folder))
    monkeypatch.setattr(
        loader, "eval_dataset", lambda folder, options, split, **k: asked.append((folder, split))
    )
    config = demo_128.get_config("landmark")
    config.data.dir, config.eval.dir = "A", elsewhere
    make = train_script.make_data(config)
    make("train")
    make("validation")
    assert asked == ["A", expected]
