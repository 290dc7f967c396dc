"""What the compiled programs of a run cost a device: arithmetic and memory."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from talkjax.training import plan

# The batch of the next step is placed while a step runs.
_BATCHES = 2


def step_costs(planned: plan.Plan, compiled: Mapping[str, Any]) -> dict[str, float]:
    """Returns what a run costs a device.

    Args:
      planned: The run.
      compiled: Its compiled programs, {name of `plan.PROGRAMS`: program}; empty before compilation.

    Returns:
      "flops" of a training step, 0 where the backend reports none; "parameter_bytes",
      "optimizer_bytes", "average_bytes" and "batch_bytes", the largest share that a device has of
      each; "temporary_bytes", what the largest program needs besides; "memory_bytes", their sum;
      and "limit_bytes", what a program may use of the device, 0 where the backend reports none.
    """
    memory = {
        "parameter_bytes": _shard_bytes(planned.state.params),
        "optimizer_bytes": _shard_bytes(planned.state.opt_state),
        "average_bytes": _shard_bytes(planned.state.ema),
        "batch_bytes": _BATCHES * _shard_bytes(planned.batch),
        "temporary_bytes": max(map(_temporary_bytes, compiled.values()), default=0),
    }
    return {
        "flops": count_flops(compiled["train"]) if compiled else 0.0,
        **memory,
        "memory_bytes": sum(memory.values()),
        "limit_bytes": _limit_bytes(),
    }


def count_flops(program: Any) -> float:
    """Returns the FLOPs of a compiled program per device, 0 where the backend reports none."""
    analysis = program.cost_analysis() or {}
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    return max(float(analysis.get("flops", 0.0)), 0.0)


def describe(costs: Mapping[str, float]) -> str:
    """Describes `step_costs` and "compile_s", the seconds of compilation, in one line."""
    parts = ", ".join(
        f"{costs[f'{key}_bytes'] / 2**20:.0f} {name}"
        for key, name in (
            ("parameter", "parameters"),
            ("optimizer", "optimizer"),
            ("average", "averages"),
            ("batch", "batches"),
            ("temporary", "temporaries"),
        )
    )
    limit = costs["limit_bytes"]
    return (
        f"compiled in {costs['compile_s']:.1f} s; per device {costs['flops'] / 1e9:.2f} GFLOP a "
        f"step and {costs['memory_bytes'] / 2**20:.0f} MiB ({parts})"
        + (f" of {limit / 2**20:.0f} MiB" if limit else "")
    )


def find_problem(costs: Mapping[str, float]) -> str | None:
    """Returns a warning of one line if the device's memory does not suffice, or None."""
    needed, limit = costs["memory_bytes"], costs["limit_bytes"]
    if not limit or needed <= limit:
        return None
    return (
        f"a device needs {needed / 2**20:.0f} MiB and has {limit / 2**20:.0f}; lower "
        "--config.batch_size, or raise --config.mesh.fsdp or --config.optimizer.accumulation "
        "(docs/scaling.md)"
    )


def _shard_bytes(tree: Any) -> int:
    """Returns the bytes of a device's part of a tree of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _temporary_bytes(program: Any) -> int:
    """Returns what a program needs besides its arguments; results that replace them are those."""
    memory = program.memory_analysis()
    if memory is None:  # not every backend has it
        return 0
    return (
        memory.temp_size_in_bytes
        + max(memory.output_size_in_bytes - memory.alias_size_in_bytes, 0)
        + memory.generated_code_size_in_bytes
    )


def _limit_bytes() -> int:
    """Returns what the smallest device of this process has, or 0 where it is not known."""
    found = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices()]
    return min(found)
