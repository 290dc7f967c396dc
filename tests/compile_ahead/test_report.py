"""What is read from the TPU compiler's answers."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from talkjax.compile_ahead import report, slices
from talkjax.compile_ahead.programs import Program
from talkjax.errors import UserError

GIB = 1 << 30
EARLY = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
    "(33.54G) exceeds available HBM (15.75G)."
)
LATE = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 63.80G of 30.75G hbm. Exceeded hbm capacity by 33.05G.\n\nTotal hbm usage >= 65.05G:\n"
    "    reserved          1.25G"
)


def test_report_arithmetic():
    one = report.CompileReport(
        slices.parse_slice("v5e-4"), 4, 8, 60.0, 8 << 30, 16 << 30,
        flops=2 * 197e9, model_flops=197e9, traffic=819e6, sent={"all-reduce": (3, 50_000_000)},
    )  # fmt: skip
    times = {"compute": 2e-3, "HBM": 1e-3, "network": 0.5e-3}  # the sum goes round twice
    assert one.times == pytest.approx(times)
    assert one.seconds == pytest.approx((2e-3, 3.5e-3))
    assert one.mfu == pytest.approx((1 / 3.5, 0.5))
    text = "\n".join(one.lines())
    assert "fits: memory 8.00 GiB of 16.00 GiB" in text and "3 all-reduce" in text
    assert one.row().count("|") == report.HEADER.splitlines()[0].count("|")
    full = report.CompileReport(slices.parse_slice("v5e-4"), 4, 8, 60.0, 20 << 30, 16 << 30)
    assert "DOES NOT FIT" in full.lines()[1] and "4.00 GiB too much" in full.lines()[1]
    assert full.row().count("|") == one.row().count("|")


@pytest.mark.parametrize(
    ("message", "sizes"),
    [
        (EARLY, (33.54 * GIB, 15.75 * GIB)),
        (LATE, (63.8 * GIB, 30.75 * GIB)),
        (EARLY.replace("15.75G", "900.5M"), (33.54 * GIB, 900.5 * GIB / 1024)),
        ("INTERNAL: Mosaic failed to compile", None),
    ],
)
def test_how_much_too_large_a_program_is(message, sizes):
    assert report.too_large(message) == (sizes and pytest.approx(sizes))


class Failing:
    """A program that the compiler refuses."""

    def __init__(self, message):
        self.message = message

    def compile(self, compiler_options):
        raise jax.errors.JaxRuntimeError(self.message)


def test_a_program_that_does_not_fit_is_a_report_and_says_by_how_much():
    where = slices.parse_slice("v5e-4")
    found = report.compile_program(Program(Failing(EARLY), 64, 1.0), where, 4)
    assert not found.fits
    assert found.lines() == [
        "v5e-4: chips 4, batch 64, 16 samples per chip",
        "DOES NOT FIT: memory 33.54 GiB of 15.75 GiB of HBM, 17.79 GiB too much",
    ]
    assert "**33.54 GiB**, 17.79 GiB too much" in found.row()


def test_other_failures_are_errors():
    with pytest.raises(UserError, match=r"v5e-4: the compiler failed: INTERNAL"):
        report.compile_program(
            Program(Failing("INTERNAL: no"), 4, 1.0), slices.parse_slice("v5e-4"), 4
        )


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `tpu`")
@pytest.mark.parametrize("name", ["v4-8", "v5e-1", "v5p-8", "v6e-1"])
def test_the_real_compiler_says_so_too(name):
    where = slices.parse_slice(name)
    on_chip = SingleDeviceSharding(where.devices()[0])

    def compiled(gibs):
        pieces = [jax.ShapeDtypeStruct((GIB // 4,), jnp.float32, sharding=on_chip)] * gibs
        lowered = jax.jit(lambda *arrays: sum(x.sum() for x in arrays)).lower(*pieces)
        return report.compile_program(Program(lowered, 1, 1.0), where, 1, quick=True)

    available = where.chip.hbm
    most = int(available / GIB)
    fits, not_so = compiled(most), compiled(most + 1)
    assert fits.fits and fits.arguments == most * GIB and fits.available == available
    assert not not_so.fits and not_so.available == pytest.approx(available)
    assert not_so.used == pytest.approx((most + 1) * GIB, rel=1e-3)
