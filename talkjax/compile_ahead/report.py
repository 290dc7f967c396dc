"""The costs of a compiled program, and what they mean on a chip."""

import dataclasses
import re
import time

import jax

from talkjax.compile_ahead import hlo
from talkjax.compile_ahead.programs import Program
from talkjax.compile_ahead.slices import Slice
from talkjax.errors import UserError

# Two forms of the compiler's error, before and after it has laid out the buffers. Both count
# everything, arguments too.
_BYTES = r"([\d.]+[KMG])"
_TOO_LARGE = re.compile(
    rf"Used {_BYTES} of {_BYTES} hbm"
    rf"|required for HLO temporaries \({_BYTES}\) exceeds available HBM \({_BYTES}\)"
)
_QUICK_OPTIONS = {"exec_time_optimization_effort": -1.0}
_UNIT = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """The costs of one compiled program.

    All but `samples` are per chip, and per step or sampled batch.

    Attributes:
      slice: The slice it was compiled for.
      chips: Number of chips.
      samples: Number of samples in the batch, on all chips together.
      compile_s: Seconds that the compiler took.
      used: Bytes of HBM that the program needs.
      available: Bytes of HBM that a program may use.
      arguments: Bytes of its arguments: parameters, optimizer state and batch. 0 if the program
        does not fit, because the compiler then reports the sum alone.
      temporaries: Bytes of everything else; likewise.
      flops: FLOPs that the chip computes, recomputation included.
      model_flops: FLOPs without recomputation.
      traffic: Bytes moved between HBM and chip.
      sent: {kind: (number, bytes)} of the collectives.
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
        """Whether the program fits into a chip's memory."""
        return self.used <= self.available

    @property
    def times(self) -> dict[str, float]:
        """Seconds that each resource alone would need at its peak (the roofline)."""
        chip = self.slice.chip
        return {
            "compute": self.flops / chip.flops,
            "HBM": self.traffic / chip.hbm_bandwidth,
            "network": hlo.bytes_sent(self.sent) / chip.ici_bandwidth,
        }

    @property
    def seconds(self) -> tuple[float, float]:
        """Bounds of the step's time: with everything overlapping, and with nothing."""
        times = self.times.values()
        return max(times), sum(times)

    @property
    def mfu(self) -> tuple[float, float]:
        """Bounds of the model FLOPs' utilization: with nothing overlapping, and with everything."""
        peak = self.model_flops / self.slice.chip.flops
        fast, slow = self.seconds
        return peak / slow, peak / fast

    def lines(self) -> list[str]:
        """Returns the report as lines of text."""
        each = self.samples / self.chips
        batch = f"batch {self.samples}, {each:g} samples per chip"
        head = f"{self.slice.name}: chips {self.chips}, {batch}"
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
            f"{self.flops / 1e12:.3f} TFLOP, {self.model_flops / 1e12:.3f} without recomputation; "
            f"{_size(self.traffic)} of HBM traffic",
            f"collectives: {sent or 'none'}",
            f"roofline: {times}; step {1e3 * fast:.1f} to {1e3 * slow:.1f} ms, "
            f"{self.samples / slow:.0f} to {self.samples / fast:.0f} samples/s, "
            f"MFU {self.mfu[0]:.0%} to {self.mfu[1]:.0%}",
        ]

    def row(self) -> str:
        """Returns the report as a row of a Markdown table with `HEADER`."""
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
    "| slice | samples per chip | batch | HBM per chip (arguments + temporaries) | TFLOP per chip "
    "(without recomputation) | HBM traffic | collectives | step, ms | MFU |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def compile_program(
    program: Program, target: Slice, chips: int, quick: bool = False
) -> CompileReport:
    """Compiles a program; one that does not fit into memory is a report, not an error.

    Args:
      program: Lowered for the slice's devices.
      target: The slice.
      chips: Number of its devices.
      quick: Lets the compiler optimize less: minutes instead of half an hour for a large network.
        Memory comes out alike. Hardly anything is kept on the chip, so the traffic is an upper
        bound.

    Raises:
      UserError: The compiler failed for another reason.
    """
    options = _QUICK_OPTIONS if quick else {}
    started = time.perf_counter()
    try:
        compiled = program.lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        sizes = too_large(str(error))
        if sizes is None:
            raise UserError(f"{target.name}: the compiler failed: {error}") from error
        used, available = sizes
        seconds = time.perf_counter() - started
        return CompileReport(target, chips, program.samples, seconds, used, available)
    if program.body is None:
        costs = _costs(compiled).times(program.repeats)
    else:
        body = program.body.compile(compiler_options=options)
        costs = _costs(compiled).plus(_costs(body).times(program.repeats - 1))
    # Not `peak_memory_in_bytes`: libtpu 0.0.42 reports 22 MiB for a program whose parts are 12 MiB.
    memory = compiled.memory_analysis()
    arguments = memory.argument_size_in_bytes
    temporaries = (
        memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return CompileReport(
        slice=target,
        chips=chips,
        samples=program.samples,
        compile_s=time.perf_counter() - started,
        used=arguments + temporaries,
        available=target.chip.hbm,
        arguments=arguments,
        temporaries=temporaries,
        flops=costs.flops,
        model_flops=program.model_flops / chips,
        traffic=costs.traffic,
        sent=costs.sent,
    )


@dataclasses.dataclass(frozen=True)
class _Costs:
    flops: float
    traffic: float
    sent: dict[str, tuple[int, int]]

    def times(self, repeats: int) -> "_Costs":
        sent = {kind: (n * repeats, size * repeats) for kind, (n, size) in self.sent.items()}
        return _Costs(self.flops * repeats, self.traffic * repeats, sent)

    def plus(self, other: "_Costs") -> "_Costs":
        sent = dict(self.sent)
        for kind, (n, size) in other.sent.items():
            before = sent.get(kind, (0, 0))
            sent[kind] = (before[0] + n, before[1] + size)
        return _Costs(self.flops + other.flops, self.traffic + other.traffic, sent)


def _costs(compiled: jax.stages.Compiled) -> _Costs:
    analysis = compiled.cost_analysis() or {}
    text = compiled.as_text()
    return _Costs(analysis.get("flops", 0.0), hlo.hbm_bytes(text), hlo.collectives(text))


def too_large(message: str) -> tuple[float, float] | None:
    """Parses the compiler's error for a program that does not fit.

    Returns:
      (bytes of HBM that it needs, bytes that are available), or None for another error.
    """
    found = _TOO_LARGE.search(message)
    if not found:
        return None
    used, available = (size for size in found.groups() if size)
    return float(used[:-1]) * _UNIT[used[-1]], float(available[:-1]) * _UNIT[available[-1]]


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"
