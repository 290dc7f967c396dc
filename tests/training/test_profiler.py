import argparse
import os

import jax
import pytest

from talkjax.errors import UserError
from talkjax.training import command
from tests.training.test_loop import losses_of, train


def traces(workdir):
    return sorted((workdir / "profile").rglob("*.xplane.pb"))


def test_the_steps_asked_for_are_traced(tmp_path, capsys):
    train(tmp_path, steps=8, profile=(3, 5))
    (trace,) = traces(tmp_path)
    data = jax.profiler.ProfileData.from_file(str(trace))
    numbers = {
        value
        for plane in data.planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
        for name, value in event.stats
        if name == "step_num"
    }
    assert {int(number) for number in numbers} == {3, 4, 5}
    assert "traced steps 3 to 5" in capsys.readouterr().out


def test_a_run_that_ends_before_writes_what_it_has(tmp_path, capsys):
    stops = iter([False, False, False, True])  # asked before the first step, too
    train(tmp_path, profile=(2, 100), should_stop=lambda _: next(stops))
    assert losses_of(tmp_path)[-1][0] == 3
    assert len(traces(tmp_path)) == 1


def test_a_run_resumed_behind_the_range_goes_on_without(tmp_path, capsys):
    """The same command as before must not fail after an interruption."""
    endless = {"optimizer.schedule": "constant", "eval.every": 0}
    train(tmp_path, steps=4, **endless)
    train(tmp_path, steps=8, profile=(4, 6), **endless)
    assert "records nothing, because the run resumes at step 4" in capsys.readouterr().err
    assert losses_of(tmp_path)[-1][0] == 8
    assert not (tmp_path / "profile").exists()


def test_a_trace_that_cannot_be_written_costs_no_training(tmp_path, capsys):
    (tmp_path / "profile").write_text("in the way")
    train(tmp_path, steps=4, profile=(2, 3), **{"eval.every": 0})
    warning = capsys.readouterr().err
    assert "warning: the trace could not be written" in warning and warning.count("\n") == 1
    assert losses_of(tmp_path)[-1][0] == 4


@pytest.mark.parametrize("text", ["5:3", "0:2", "5", "5:", "a:b", "1:2:3", "-1:2", "1.5:2", ""])
def test_ranges_that_are_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="FIRST:LAST"):
        command.parse_steps(text)


def test_a_range_beyond_the_last_step(tmp_path):
    arguments = [f"--workdir={tmp_path / 'run'}", "--config=configs/demo_64.py:landmark"]
    with pytest.raises(UserError, match="ends after the last step of the run, 100"):
        command.main([*arguments, "--config.steps=100", "--profile=90:101"])
    assert not os.listdir(tmp_path)
