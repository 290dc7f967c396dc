"""Trains one stage of talkjax, or resumes its training.

    train.py --config=configs/NAME.py --workdir=DIR [--config.field=value ...]

The stages are autoencoder, landmark, diffusion, joint and sync; the configuration names the stage.
A run resumes from the newest checkpoint in its workdir, bit for bit as if it had not been
interrupted. SIGTERM saves a checkpoint and ends the run with exit code 143.

Export the trained weights with `talkjax-export` (python -m talkjax.export).
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import logging
from ml_collections import FrozenConfigDict

from talkjax import commands, configuration
from talkjax.errors import UserError
from talkjax.training import processes

_SIGTERM_EXIT = 128 + 15


def parse_steps(text: str) -> tuple[int, int]:
    """A `type=` for flags that are ranges of steps: "100:105" is (100, 105), both included."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not FIRST:LAST with 1 <= FIRST <= LAST, for example 100:105"
        )
    return int(first), int(last)


def make_parser() -> commands.Parser:
    """Returns the parser of the command line, without `--config.field=value`."""
    parser = commands.Parser(
        __doc__,
        prog="train.py",
        epilog="Every field of the configuration can be changed with --config.field=value, for "
        "example --config.optimizer.learning_rate=1e-4; talkjax/configuration.py lists the fields.",
    )
    add = parser.add_argument
    add(
        "--config",
        metavar="FILE[:ARGUMENT]",
        required=True,
        help="configuration file, such as configs/demo_128.py:landmark",
    )
    add(
        "--workdir",
        metavar="DIR",
        required=True,
        help="directory of the run, local or in a bucket (gs://...)",
    )
    add(
        "--distributed",
        action="store_true",
        help="run as one of several processes. Their addresses are detected on TPU pods, Slurm and "
        "others; elsewhere set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID "
        "(docs/multi_host.md)",
    )
    add(
        "--heartbeat_timeout",
        type=commands.bounded(int, 2),
        default=processes.HEARTBEAT_TIMEOUT,
        metavar="SECONDS",
        help="with --distributed: time without a heartbeat after which a process counts as dead "
        "and all others end (default: %(default)s)",
    )
    add(
        "--profile",
        type=parse_steps,
        metavar="FIRST:LAST",
        help="record a trace of these steps, the last one included, by JAX's profiler, in "
        "WORKDIR/profile; --profile=100:105 records six steps. With several processes, process 0 "
        "records its own devices",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Trains as the command line `argv` says."""
    given, overrides = make_parser().parse_known_args(argv)
    config = configuration.load(given.config, overrides)
    if given.profile and given.profile[1] > config.steps:
        raise UserError(
            f"--profile={given.profile[0]}:{given.profile[1]} ends after the last step of the run, "
            f"{config.steps}"
        )
    logging.set_verbosity(logging.WARNING)  # Orbax describes every save in ten lines
    if given.distributed:
        processes.join(given.heartbeat_timeout)  # before anything asks for devices

    from talkjax import files, runs  # these import JAX
    from talkjax.training import input, loop, stages, tensorboard

    if config.log.tensorboard:
        tensorboard.load_package()  # fails if it is not installed
    make_data = input.make_datasets(config)
    if (files.as_path(given.workdir) / runs.CONFIG_FILE).exists():
        configuration.keep_earlier_behaviour(config, runs.read_config(given.workdir))
    config = FrozenConfigDict(input.with_latent_statistics(config, given.workdir))
    input.check_data(config)
    try:
        stage = stages.make_stage(config)
    except ValueError as error:
        raise UserError(f"the configuration is inconsistent: {error}") from error
    stopped = loop.train(
        config,
        given.workdir,
        stage,
        make_data,
        lambda: input.load_initial_networks(config),
        profile=given.profile,
    )
    if stopped:
        sys.exit(_SIGTERM_EXIT)


def run() -> NoReturn:
    """Runs the command; the entry point of `talkjax-train`."""
    commands.print_any_name()
    if "--distributed" in sys.argv[1:]:
        sys.exit(processes.run_main(main, sys.argv[1:]))
    sys.exit(commands.run_main(main, sys.argv[1:]))


if __name__ == "__main__":
    run()
