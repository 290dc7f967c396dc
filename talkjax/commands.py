"""What all commands share: their command line, signals, errors and exit codes.

A command is a module with three functions:

    make_parser() -> Parser                the flags
    main(argv: Sequence[str])              parses `argv` (without the program's name) and works;
                                           may return an exit code
    run() -> NoReturn                      `commands.run(main)`, for scripts and entry points
"""

import argparse
import codecs
import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def expand_home(argument: str) -> str:
    """Replaces the `~` of a path by the home directory, also in `--flag=~/path`.

    Shells expand `~` at the start of a word only.
    """
    flag, sign, value = argument.partition("=") if argument[:2] == "--" else ("", "", argument)
    if value.startswith("~") and not os.path.lexists(value):
        value = os.path.expanduser(value)
    return flag + sign + value


@contextlib.contextmanager
def flags_in_errors(names: Iterable[str]) -> Iterator[None]:
    """Writes the parameters that a library error names as flags: `steps=0` becomes `--steps=0`."""
    try:
        yield
    except UserError as error:
        parameter = re.compile(rf"(?<![^\s(])({'|'.join(names)})=")
        raise UserError(parameter.sub(r"--\1=", str(error))) from error


def run(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Runs a command on the program's arguments and exits with its code."""
    exit_on_signals()
    print_any_name()
    sys.exit(run_main(main, sys.argv[1:]))


def run_main(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    """Runs `main(argv)` and returns the exit code.

    It is what `main` returns (None is 0). A `UserError` becomes one line on stderr and 2, ^C 130,
    and a pipe that is closed at its other end 141, as shells report it.
    """
    try:
        code = main([expand_home(argument) for argument in argv]) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes stdout once more at its end. A replaced stdout may have no file.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def exit_on_signals() -> None:
    """Makes SIGTERM and SIGHUP end the program as an exception, which closes files and processes.

    The exit code is 143 or 129, as shells report it. A signal that is ignored, as under nohup,
    stays ignored.
    """
    chosen = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

    def end(number: int, *unused: object) -> NoReturn:
        for each in chosen:  # a second signal must not interrupt the cleaning up
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for each in chosen:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, end)


def print_any_name() -> None:
    """Escapes what the console cannot encode, such as a file's name, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            unicode = codecs.lookup(stream.encoding).name.startswith("utf")
            if not (unicode and stream.errors == "surrogateescape"):
                stream.reconfigure(errors="backslashreplace")
