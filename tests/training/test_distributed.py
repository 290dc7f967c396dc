"""train.py itself as two processes on this machine, joined by jax.distributed."""

import json

import pytest

from benchmarks import two_processes
from talkjax.training import processes

TIMEOUT = 10  # seconds, of heartbeats
SLACK = 20  # a busy machine ends processes late


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return two_processes.write_data(tmp_path_factory.mktemp("data"))


def data_states(checkpoint):
    """What a checkpoint says of where the data are: {file name: state}."""
    return {p.name: json.loads(p.read_text()) for p in (checkpoint / "data").glob("process_*")}


def test_two_processes_agree_with_one(data, tmp_path):
    assert two_processes.compare(tmp_path, data, 4)["difference"] < 1e-5
    (alone,) = data_states(tmp_path / "one/checkpoints/4").values()
    states = data_states(tmp_path / "two/checkpoints/4")
    assert sorted(states) == ["process_0-of-2.json", "process_1-of-2.json"]
    assert all(state == alone for state in states.values())


@pytest.mark.slow
def test_microbatches_and_evaluation_agree_too(data, tmp_path):
    result = two_processes.compare(tmp_path, data, 4, **two_processes.JOINT)
    assert result["difference"] < 1e-5
    assert result["difference of eval_loss"] < 1e-5
    assert (tmp_path / "two/samples/00000004.png").exists()


@pytest.mark.slow
def test_stopped_runs_end_together_and_go_on(data, tmp_path):
    steps = 40
    two_processes.LocalRun(tmp_path / "two", data, steps=steps).finish()
    results = two_processes.stop_and_resume(tmp_path, data, steps, TIMEOUT)

    stopped = results["SIGTERM to process 1"]
    assert stopped["codes"] == [143, 143]
    assert "stopped by SIGTERM" in stopped["last_words"][0]
    assert stopped["checkpoints"][-1] == stopped["last_step"]

    for victim in range(2):
        killed = results[f"kill -9 of process {victim}"]
        other = 1 - victim
        assert killed["codes"][victim] == -9
        assert killed["codes"][other] == processes.LOST
        assert killed["last_words"][other].startswith("error: another process of the run died")
        assert killed["seconds"][other] < TIMEOUT + SLACK

    assert results["resumed by two"]["identical"]
    assert results["resumed by one, data=2 x fsdp=2"]["difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_mistake_in_one_process_ends_the_other(data, tmp_path, index):
    result = two_processes.fail_in_one_process(tmp_path, data, index, TIMEOUT)
    assert result["codes"][index] == 2
    assert "missing" in result["last_words"][index]
    assert result["codes"][1 - index] == processes.LOST
    assert result["last_words"][1 - index].startswith("error: another process of the run died")
    assert result["seconds between"] < TIMEOUT + SLACK
