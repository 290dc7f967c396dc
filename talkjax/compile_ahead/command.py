"""Compiles a config's program for a TPU slice that this machine does not have.

    talkjax-compile --config=configs/base_256.py --slice=v5e-256 --config.mesh.fsdp=4
    talkjax-compile --config=configs/base_256.py --slice=v5p-128 --search --quick
    talkjax-compile --config=configs/demo_128.py:joint --slice=v5e-1 --step=sample

(also `python -m talkjax.compile_ahead`). It runs on any Linux x86-64 machine with the extra `tpu`,
uses the compiler that the slice would use, and reports memory, FLOPs, HBM traffic, collectives and
a roofline estimate per chip. Nothing is trained, and no data are needed. docs/scaling.md explains
the report.
"""

from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from talkjax import commands, configuration
from talkjax.compile_ahead import programs, report, search, slices
from talkjax.errors import UserError


def compile_for_slice(
    config: ConfigDict,
    slice_name: str,
    step: str = "train",
    *,
    find_batch: bool = False,
    quick: bool = False,
    log: Callable[[str], None] = print,
) -> report.CompileReport:
    """Compiles one of a config's programs for a slice.

    Args:
      config: See `talkjax.configuration`. `data.latents` need not exist: any value means that the
        program takes cached latents, whose statistics do not matter here.
      slice_name: See `slices.parse_slice`.
      step: A key of `programs.PROGRAMS`.
      find_batch: Whether to search for the best batch size, starting from `config.batch_size`.
      quick: See `report.compile_program`. A search always compiles its candidates with less
        effort; `quick` decides how the best one is compiled in the end.
      log: Called with every line of the report.

    Returns:
      The report of the config's batch size, or of the best one found.

    Raises:
      UserError: The slice is unknown, the config, mesh and batch size do not fit together, or
        libtpu is not installed.
    """
    target = slices.parse_slice(slice_name)
    jax.config.update("jax_platforms", "cpu")  # libtpu compiles and must not look for a TPU
    devices = target.devices()
    lower = programs.PROGRAMS[step]

    def compile_batch(batch_size: int, quick: bool) -> report.CompileReport:
        resized = programs.updated(config, {"batch_size": batch_size})
        try:
            program = lower(resized, devices)
        except ValueError as error:
            raise UserError(f"the config does not fit together: {error}") from error
        compiled = report.compile_program(program, target, len(devices), quick)
        for line in compiled.lines():
            log(line)
        return compiled

    if find_batch:
        best = search.best_batch(
            lambda per_chip: compile_batch(per_chip * len(devices), quick=True),
            start=max(config.batch_size // len(devices), 1),
        )
        log(f"best batch: {best.samples}, {best.samples // best.chips} per chip")
        if best.fits and not quick:
            best = compile_batch(best.samples, quick=False)
    else:
        best = compile_batch(config.batch_size, quick)
    log(f"{report.HEADER}\n{best.row()}")
    return best


def make_parser() -> commands.Parser:
    """Returns the parser of this command's flags."""
    parser = commands.Parser(__doc__, prog="talkjax-compile")
    parser.add_argument(
        "--config",
        required=True,
        help="Configuration file, for example configs/base_256.py. Any field can be changed with "
        "--config.FIELD=VALUE.",
    )
    parser.add_argument(
        "--slice",
        required=True,
        help="Accelerator type: v4-8 to v4-8192 and v5p-8 to v5p-8192 (these count two cores per "
        "chip), v5e-1 and v6e-1 to -256; 2xv5e-256 for two slices.",
    )
    parser.add_argument(
        "--step",
        choices=programs.PROGRAMS,
        default="train",
        help="Program to compile: the train step, or the sampling of batch_size frames "
        "(default: %(default)s).",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="Search for the best batch size, starting from that of the configuration.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="Let the compiler optimize less: minutes instead of half an hour for a large network, "
        "with the same memory but too much HBM traffic.",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Compiles what `argv` asks for and prints the report."""
    args, overrides = make_parser().parse_known_args(argv)
    config = configuration.load(args.config, overrides)
    compile_for_slice(config, args.slice, args.step, find_batch=args.search, quick=args.quick)


def run() -> None:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
