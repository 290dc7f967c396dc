"""The console command talkjax-prepare, which runs `data_pipelines.prepare`.

The pipelines are a top-level folder in a checkout and part of the package when installed.
"""

import importlib
from pathlib import Path


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    beside = Path(__file__).resolve().parents[1] / "data_pipelines" / "prepare.py"
    name = "data_pipelines.prepare" if beside.is_file() else "talkjax.data_pipelines.prepare"
    importlib.import_module(name).run()
