"""The console command talkjax-prepare, which runs `data_pipelines.prepare`.

The pipelines are a top-level folder in a checkout and part of the package when installed.
"""

import importlib
import sys
from pathlib import Path


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    beside = Path(__file__).resolve().parents[1] / "data_pipelines" / "prepare.py"
    name = "data_pipelines.prepare" if beside.is_file() else "talkjax.data_pipelines.prepare"
    try:
        command = importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(
            f"error: preparation needs {error.name}; run `pip install 'talkjax[data]'`",
            file=sys.stderr,
        )
        sys.exit(2)
    command.run()
