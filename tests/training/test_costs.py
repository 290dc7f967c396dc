import jax
import numpy as np

from talkjax.training import costs, sharding
from tests.training.test_step import Run, batches


def test_memory_is_that_of_a_device():
    run = Run((2, 4))
    # Kernels of 16 x 8 and 8 x 8 divided by 4, a bias of 8 and the counters of Adam and of steps
    found = costs.step_costs(run.plan, {})
    assert found["parameter_bytes"] == 4 * (16 * 8 // 4 + 8 + 8 * 8 // 4)
    assert found["average_bytes"] == 4 * (16 * 8 // 4 + 8)
    assert found["optimizer_bytes"] >= 2 * found["average_bytes"]
    assert found["batch_bytes"] == 2 * 4 * (16 // 8) * (16 + 8)
    whole = costs.step_costs(Run((8, 1)).plan, {})
    assert whole["parameter_bytes"] == 4 * (16 * 8 + 8 + 8 * 8)

    placed = sharding.place_batch(next(batches(1)), run.plan.batch_sharding)
    on_first = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves((run.state.params, run.state.opt_state, run.state.ema))
        for shard in leaf.addressable_shards
        if shard.device == jax.devices()[0]
    )
    names = ("parameter_bytes", "optimizer_bytes", "average_bytes")
    assert sum(found[name] for name in names) == on_first
    assert found["batch_bytes"] == 2 * sum(x.nbytes // 8 for x in placed.values())


def test_programs_add_their_temporaries_and_arithmetic():
    planned = Run().plan
    compiled = {name: planned.lower(name).compile() for name in ("train", "eval")}
    before, after = costs.step_costs(planned, {}), costs.step_costs(planned, compiled)
    assert after["temporary_bytes"] > 0 and before["temporary_bytes"] == before["flops"] == 0
    assert after["memory_bytes"] == before["memory_bytes"] + after["temporary_bytes"]
    samples = 16 // 8  # of a device
    assert after["flops"] >= 2 * samples * 16 * 8
    line = costs.describe({**after, "compile_s": 1.0})
    assert "GFLOP" in line and "\n" not in line
    assert costs.find_problem(after) is None  # the CPU tells no limit


class Device:
    def __init__(self, limit):
        self.limit = limit

    def memory_stats(self):
        return self.limit and {"bytes_limit": self.limit}


def test_a_program_that_does_not_fit_is_told(monkeypatch):
    planned = Run().plan
    needed = costs.step_costs(planned, {})["memory_bytes"]
    for limits, fits in (([needed], True), ([needed, needed - 1], False), ([None], True)):
        monkeypatch.setattr(jax, "local_devices", lambda limits=limits: list(map(Device, limits)))
        found = costs.step_costs(planned, {})
        problem = costs.find_problem(found)
        assert (problem is None) == fits
        if limits[0]:
            assert found["limit_bytes"] == min(limits)
            assert f"of {min(limits) / 2**20:.0f} MiB" in costs.describe({**found, "compile_s": 0})
    assert np.isscalar(needed)
