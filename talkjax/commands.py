"""What all commands share: their command line, signals, errors and exit codes.

A command is a module with three functions:

    make_parser() -> Parser                the flags
    main(argv: Sequence[str]) -> None      parses `argv` (without the program's name) and works
    run() -> NoReturn                      `commands.run(main)`, for scripts and entry points
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from talkjax.errors import UserError


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose mistakes end the program with one line and exit code 2."""

    def __init__(self, description: str, prog: str | None = None, **kwargs: Any) -> None:
        """Creates a parser without abbreviated flags.

        Args:
          description: usually the module's docstring; `--help` shows it as it is.
          prog: name of the program; None takes the script's.
          **kwargs: passed on to `argparse.ArgumentParser`.
        """
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,
        )

    def error(self, message: str) -> NoReturn:
        """Raises the mistake as a `UserError`."""
        raise UserError(f"{message}; see {self.prog} --help")


def bounded(
    kind: Callable[[str], Any], low: float | None = None, high: float | None = None
) -> Callable[[str], Any]:
    """A `type=` for flags that are numbers: `bounded(int, 1)` is an integer of at least 1.

    Args:
      kind: int or float.
      low, high: inclusive bounds, or None.
    """

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            what = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            limits = [] if low is None else [f"at least {low:g}"]
            limits += [] if high is None else [f"at most {high:g}"]
            raise argparse.ArgumentTypeError(f"{text} must be {' and '.join(limits)}")
        return value

    return convert


def comma_separated(text: str) -> list[str]:
    """A `type=` for flags that are lists: "a,b" is ["a", "b"], and "" is []."""
    return [part.strip() for part in text.split(",")] if text else []


def run(main: Callable[[Sequence[str]], Any]) -> NoReturn:
    """Runs a command on the program's arguments and exits with its code."""
    exit_on_sigterm()
    sys.exit(run_main(main, sys.argv[1:]))


def run_main(main: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> int:
    """Runs `main(argv)`; a `UserError` becomes one line on stderr and exit code 2."""
    try:
        main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def exit_on_sigterm() -> None:
    """Makes SIGTERM end the program as an exception, so that files and child processes are closed.

    The exit code is 143, as the shell reports for this signal.
    """

    def end(*unused: object) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
