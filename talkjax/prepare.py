"""The console command talkjax-prepare, which prepares footage for training.

The pipelines are a folder of the repository, `data_pipelines`. The installed package has them as
a subpackage of talkjax.
"""

import importlib
from pathlib import Path
from typing import NoReturn


def run() -> NoReturn:
    """Runs `data_pipelines.prepare`, of a checkout or of the installed package."""
    in_checkout = (Path(__file__).parents[1] / "data_pipelines" / "prepare.py").is_file()
    package = "data_pipelines" if in_checkout else "talkjax.data_pipelines"
    importlib.import_module(f"{package}.prepare").run()
