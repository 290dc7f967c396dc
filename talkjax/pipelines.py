"""Access to the data pipelines: a top-level folder in a checkout, part of an installed package."""

import importlib
from pathlib import Path
from typing import Any

from talkjax.errors import UserError


def load(name: str) -> Any:
    """Imports a module of the pipelines, such as "prepare" or "synthetic.speech.espeak".

    Raises:
      UserError: A package of the extra `data` is not installed.
    """
    path = f"{name.replace('.', '/')}.py"
    beside = Path(__file__).resolve().parents[1] / "data_pipelines" / path
    whole = f"data_pipelines.{name}" if beside.is_file() else f"talkjax.data_pipelines.{name}"
    try:
        return importlib.import_module(whole)
    except ModuleNotFoundError as error:
        raise UserError(
            f"preparation needs {error.name}; run `pip install 'talkjax[data]'`"
        ) from error
