import json
import statistics
import time

from talkjax.training import loop, metrics
from tests.training import toy


def test_lines_after_the_resumed_step_are_written_anew(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    writer = metrics.Writer(path, 0)
    for step in (1, 2, 3):
        writer.write({"step": step, "loss": 0.5})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # the process died here
    metrics.Writer(path, 2).write({"step": 3, "loss": 0.25})
    assert metrics.read(path) == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.5},
        {"step": 3, "loss": 0.25},
    ]


def test_every_line_is_strict_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.Writer(path, 0).write({"step": 1, "loss": float("nan"), "norm": float("inf")})
    assert json.loads(path.read_text(), parse_constant=lambda _: 1 / 0)["loss"] is None


def test_no_file_no_rows(tmp_path):
    assert metrics.read(tmp_path / "none.jsonl") == []


def test_the_clock_counts_steps_between_readings():
    clock = metrics.Clock(batch_size=10, flops=1e12)
    with clock.waiting():
        pass
    first = clock.lap(1)
    clock.lap(11)
    assert clock.steps == 2
    assert first["samples_per_s"] * first["step_s"] == 10
    assert 0 <= first["data_wait_s"] <= first["step_s"]
    assert first["tflops_per_device"] > 0
    clock.close()


class Running:
    """A result of a step that ends at a given time."""

    def __init__(self, end):
        self.end = end

    def block_until_ready(self):
        time.sleep(max(self.end - time.perf_counter(), 0.0))
        return self


def take_steps(step, loader, count=5):
    """Steps of a device as the loop takes them: the host fetches a batch while a step runs."""
    clock, in_flight, end = metrics.Clock(batch_size=1, flops=0.0), [], 0.0
    clock.lap(0)
    for _ in range(count):
        with clock.waiting():
            time.sleep(loader)
        end = max(end, time.perf_counter()) + step
        in_flight = [*in_flight[-1:], Running(end)]
        clock.dispatched(in_flight[-1])
        in_flight[0].block_until_ready()
    in_flight[-1].block_until_ready()
    row = clock.lap(count)
    clock.close()
    return row


def test_a_slow_loader_stalls_and_a_fast_one_does_not():
    assert take_steps(step=0.005, loader=0.1)["data_stall"] > 0.8
    assert take_steps(step=0.1, loader=0.005)["data_stall"] < 0.1


def test_a_wait_during_a_step_is_no_stall():
    """The host waits all the time; the device has work for most of it."""
    row = take_steps(step=0.2, loader=0.15)
    assert row["data_wait_s"] >= 0.15
    assert row["data_stall"] < 0.25  # the first batch alone, and no step before it


def test_every_line_tells_the_share_of_waiting_for_data(tmp_path, capsys):
    c = toy.config(steps=5, **{"eval.every": 0, "checkpoint.every": 100})
    loop.train(c, tmp_path, toy.stage(), toy.make_data(c, slow=0.4))
    shares = [row["data_stall"] for row in metrics.read(tmp_path / "metrics.jsonl")]
    assert len(shares) == 5 and max(shares) <= 1
    assert statistics.median(shares) > 0.7  # the loader is slow, the toy is not
    assert capsys.readouterr().out.count("% of it waiting for data") == 5
