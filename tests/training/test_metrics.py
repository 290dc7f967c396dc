import json

import jax
import jax.numpy as jnp

from talkjax.training import metrics


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


def test_costs_of_a_compiled_step():
    compiled = jax.jit(lambda x: x @ x).lower(jnp.ones((64, 64))).compile()
    costs = metrics.compiled_costs(compiled)
    assert costs["flops"] >= 2 * 64**3
    assert costs["argument_bytes"] == 4 * 64 * 64
    assert "GFLOP" in metrics.describe_costs({**costs, "compile_s": 1.0})


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
