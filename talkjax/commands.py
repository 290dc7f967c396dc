"""How every command begins and ends: flags, signals, errors."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from talkjax.errors import UserError


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


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses absl's flags; a mistake there ends the program with one line and exit code 2."""
    from absl import flags

    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(2)


def exit_on_sigterm() -> None:
    """Lets SIGTERM end the program as an exception, so that child processes and files are seen to.

    The exit code is the shell's for it, 143.
    """

    def end(*unused: object) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
