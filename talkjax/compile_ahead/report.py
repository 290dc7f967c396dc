"""What the compiler says of a program, and what that means on a chip."""

import dataclasses
import re
import time
from typing import Any

import jax

from talkjax.compile_ahead import hlo
from talkjax.compile_ahead.programs import Program
from talkjax.compile_ahead.slices import Slice
from talkjax.errors import UserError

# Two forms of the compiler's complaint, before and after it has laid out the buffers. Both count
# all there is, arguments too.
_BYTES = r"([\d.]+[KMG])"
_TOO_LARGE = re.compile(
    rf"Used {_BYTES} of {_BYTES} hbm"
    rf"|required for HLO temporaries \({_BYTES}\) exceeds available HBM \({_BYTES}\)"
)
_UNIT = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Report:
    """One compilation; all but `samples` is per chip and step (of a sampler: per batch).

    Attributes:
      samples: of the batch, on all chips together; `chips` of them.
      compile_s: seconds that the compiler took.
      arguments, temporaries: bytes: parameters, optimiser and batch; and what the step needs
        besides. 0 where it does not fit: the compiler then tells the sum alone.
      used, available: bytes of HBM.
      flops: what the chip computes, recomputation included; `model_flops` leaves it out.
      traffic: bytes moved between HBM and chip.
      sent: {kind: (how many, bytes)} of the collectives.
    """

    slice: Slice
    chips: int
    samples: int
    compile_s: float
    used: float
    available: float
    arguments: float = 0.0
    temporaries: float = 0.0
    flops: float = 0.0
    model_flops: float = 0.0
    traffic: float = 0.0
    sent: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether a chip's memory suffices."""
        return self.used <= self.available

    @property
    def times(self) -> dict[str, float]:
        """Seconds that each resource alone would take at its peak (the roofline)."""
        chip = self.slice.chip
        return {
            "compute": self.flops / chip.flops,
            "HBM": self.traffic / chip.hbm_bandwidth,
            "network": hlo.sent(self.sent) / chip.ici_bandwidth,
        }

    @property
    def seconds(self) -> tuple[float, float]:
        """Bounds of the step's time: everything overlaps, nothing does."""
        times = self.times.values()
        return max(times), sum(times)

    @property
    def mfu(self) -> tuple[float, float]:
        """Bounds of the model FLOPs' share of the peak: nothing overlaps, everything does."""
        peak = self.model_flops / self.slice.chip.flops
        fast, slow = self.seconds
        return peak / slow, peak / fast

    def lines(self) -> list[str]:
        """For a person to read."""
        each = self.samples / self.chips
        head = f"{self.slice.name}: chips {self.chips}, samples {self.samples}, {each:g} a chip"
        memory = f"memory {_size(self.used)} of {_size(self.available)} of HBM"
        if not self.fits:
            return [head, f"DOES NOT FIT: {memory}, {_size(self.used - self.available)} too much"]
        fast, slow = self.seconds
        times = ", ".join(f"{name} {1e3 * t:.1f} ms" for name, t in self.times.items())
        sent = "; ".join(f"{n} {kind} {_size(size)}" for kind, (n, size) in self.sent.items())
        return [
            f"{head}; compiled in {self.compile_s:.0f} s",
            f"fits: {memory} ({_size(self.arguments)} of arguments, "
            f"{_size(self.temporaries)} of temporaries)",
            f"{self.flops / 1e12:.3f} TFLOP, {self.model_flops / 1e12:.3f} of them the model's; "
            f"{_size(self.traffic)} to and from HBM",
            f"collectives: {sent or 'none'}",
            f"roofline: {times}; step {1e3 * fast:.1f} to {1e3 * slow:.1f} ms, "
            f"{self.samples / slow:.0f} to {self.samples / fast:.0f} samples/s, "
            f"MFU {self.mfu[0]:.0%} to {self.mfu[1]:.0%}",
        ]

    def row(self) -> str:
        """A row of a Markdown table, under `HEADER`."""
        cells = [self.slice.name, f"{self.samples / self.chips:g}", f"{self.samples}"]
        if not self.fits:
            over = _size(self.used - self.available)
            cells += [f"**{_size(self.used)}**, {over} too much"] + ["–"] * 5
        else:
            fast, slow = self.seconds
            cells += [
                f"{_size(self.used)} ({_size(self.arguments)} + {_size(self.temporaries)})",
                f"{self.flops / 1e12:.2f} ({self.model_flops / 1e12:.2f})",
                _size(self.traffic),
                ", ".join(f"{n} {kind} {_size(size)}" for kind, (n, size) in self.sent.items()),
                f"{1e3 * fast:.0f} – {1e3 * slow:.0f}",
                f"{self.mfu[0]:.0%} – {self.mfu[1]:.0%}",
            ]
        return "| " + " | ".join(cells) + " |"


HEADER = (
    "| slice | samples a chip | batch | HBM a chip (arguments + temporaries) | TFLOP a chip "
    "(the model's) | HBM traffic | collectives | step, ms | MFU |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def compile_program(program: Program, where: Slice, chips: int, quick: bool = False) -> Report:
    """Compiles and reports; a program that does not fit is a report like any other.

    Args:
      program: lowered for the slice's devices.
      where: the slice.
      chips: its devices.
      quick: lets the compiler try less hard: minutes instead of half an hour for a large network.
        Memory comes out alike; hardly anything is kept on the chip, so that the traffic to memory
        is about that of the worst case.

    Raises:
      UserError: the compiler failed for another reason.
    """
    started = time.perf_counter()
    try:
        options = {"exec_time_optimization_effort": -1.0} if quick else {}
        compiled = program.lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        sizes = too_large(str(error))
        if sizes is None:
            raise UserError(f"{where.name}: the compiler gave up: {error}") from error
        return Report(where, chips, program.samples, time.perf_counter() - started, *sizes)
    memory = compiled.memory_analysis()
    flops, traffic, sent = _costs(compiled)
    if program.body is not None:
        more = _costs(program.body.compile(compiler_options=options))
        rest = program.repeats - 1
        flops, traffic = flops + rest * more[0], traffic + rest * more[1]
        sent = {
            kind: tuple(
                a + rest * b
                for a, b in zip(sent.get(kind, (0, 0)), more[2].get(kind, (0, 0)), strict=True)
            )
            for kind in sent.keys() | more[2].keys()
        }
    elif program.repeats > 1:
        flops, traffic = flops * program.repeats, traffic * program.repeats
        sent = {kind: (n * program.repeats, size * program.repeats)
                for kind, (n, size) in sent.items()}  # fmt: skip
    fixed = memory.argument_size_in_bytes
    extra = (
        memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return Report(
        slice=where,
        chips=chips,
        samples=program.samples,
        compile_s=time.perf_counter() - started,
        used=fixed + extra,
        available=where.chip.hbm,
        arguments=fixed,
        temporaries=extra,
        flops=flops,
        model_flops=program.model_flops / chips,
        traffic=traffic,
        sent=sent,
    )


def too_large(message: str) -> tuple[float, float] | None:
    """(bytes of HBM that a program needs, that there are), if the compiler's error says so."""
    found = _TOO_LARGE.search(message)
    if not found:
        return None
    used, available = (size for size in found.groups() if size)
    return float(used[:-1]) * _UNIT[used[-1]], float(available[:-1]) * _UNIT[available[-1]]


def _costs(compiled: Any) -> tuple[float, float, dict[str, tuple[int, int]]]:
    costs = compiled.cost_analysis() or {}
    costs = costs[0] if isinstance(costs, list) else costs
    text = compiled.as_text()
    return costs.get("flops", 0.0), hlo.hbm_bytes(text), hlo.collectives(text)


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"
