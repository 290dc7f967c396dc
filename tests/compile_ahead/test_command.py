"""The command: its flags, its search, and what it prints."""

import importlib.util

import jax
import pytest

from talkjax import commands
from talkjax.compile_ahead import command, programs, report, search, slices

TINY = [
    "--config=configs/demo_64.py:landmark",
    "--config.landmark.features=16",
    "--config.landmark.layers=1",
    "--config.landmark.heads=2",
    "--config.batch_size=16",
]


@pytest.fixture
def fake_slice(monkeypatch):
    """Compiles for this machine's devices."""
    monkeypatch.setattr(slices.Slice, "devices", lambda self: jax.devices())


def test_the_train_step(fake_slice, capsys):
    sharded = ["--config.mesh.fsdp=4", "--config.mesh.fsdp_min_size=256"]
    command.main([*TINY, *sharded, "--slice=v5e-8"])
    printed = capsys.readouterr().out
    assert "v5e-8: chips 8, batch 16, 2 samples per chip" in printed and "all-gather" in printed
    assert printed.splitlines()[-3:-1] == report.HEADER.splitlines()
    assert printed.splitlines()[-1].startswith("| v5e-8 | 2 | 16 | ")


@pytest.mark.parametrize(("flags", "last"), [(["--quick"], []), ([], [(32, False)])])
def test_a_search_is_quick_but_for_its_last_compilation(fake_slice, monkeypatch, flags, last):
    compiled = []

    def compile_program(program, target, chips, quick):
        compiled.append((program, quick))
        used = 1e6 * program
        return report.CompileReport(target, chips, program, 1.0, used, target.chip.hbm, flops=1.0)

    def best_batch(compile_at, start):
        assert start == 2
        compile_at(start)
        return compile_at(2 * start)

    monkeypatch.setitem(programs.PROGRAMS, "train", lambda config, devices: config.batch_size)
    monkeypatch.setattr(report, "compile_program", compile_program)
    monkeypatch.setattr(search, "best_batch", best_batch)
    command.main([*TINY, "--slice=v5e-8", "--search", *flags])
    assert compiled == [(16, True), (32, True), *last]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: --config, --slice"),
        (["--slice=v5e-8"], "required: --config"),
        ([*TINY, "--slice=h100-8"], "slice=h100-8 is not a TPU slice"),
        ([*TINY, "--slice=v5e-8", "--step=dance"], "invalid choice: 'dance'"),
        ([*TINY, "--slice=v5e-8", "--serach"], "serach"),
        ([*TINY, "--slice=v5e-8", "--config.batch_size=12"], "12"),
        ([*TINY, "--slice=v5e-8", "--config.no_such_field=1"], "no_such_field"),
    ],
)
def test_mistakes_are_one_line(fake_slice, capsys, arguments, words):
    assert commands.run_main(command.main, arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `tpu`")
def test_a_real_slice(capsys):
    command.main([*TINY, "--slice=v5e-4", "--quick"])
    assert "v5e-4: chips 4, batch 16" in capsys.readouterr().out
