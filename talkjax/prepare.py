"""The console command talkjax-prepare, which runs `data_pipelines.prepare`."""

import sys

from talkjax import pipelines
from talkjax.errors import UserError


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    try:
        command = pipelines.load("prepare")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    command.run()
