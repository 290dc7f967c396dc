"""The client of `script.py`."""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes  # noqa: F401  makes NumPy know bfloat16
import numpy as np
import safetensors
import safetensors.numpy

from talkjax import uv_scripts
from talkjax.errors import UserError
from talkjax.torch_files.script import REFUSED

SCRIPT = Path(__file__).with_name("script.py")
_MAX_REASON = 400  # characters
_NOTICE_AFTER = 8.0  # seconds; a built environment starts sooner
_log = logging.getLogger(__name__)


def load(path: str | os.PathLike, python: str | os.PathLike | None = None) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch file.

    Args:
      path: A local file that holds a mapping of names to tensors. Of a training checkpoint, the
        mapping under `state_dict` is read. Names of nested mappings and lists are joined by dots,
        and values that are not tensors are left out.
      python: Interpreter that has torch 2.6 or later, numpy and safetensors. None lets uv build
        an environment with PyTorch for CPUs, which downloads about 200 MB once.

    Returns:
      {name: array}, in the file's types.

    Raises:
      UserError: The file is missing, damaged, of another format, or holds more than tensors; or
        the script cannot be run.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"weights not found: {path}; check the path")
    command = [os.fspath(python)] if python else _uv_python()
    with tempfile.TemporaryDirectory(prefix="talkjax_torch_") as folder:
        out = Path(folder) / "tensors.safetensors"
        with _notice_of_installation():
            done = _run([*command, str(SCRIPT), str(path.resolve()), str(out)])
        if done.returncode == REFUSED:
            raise UserError(f"{path} {_last_line(done.stdout)}")
        if done.returncode:
            reason = _last_line(done.stderr) or "no message"
            raise UserError(
                f"cannot read {path}: {Path(command[0]).name} failed with exit code "
                f"{done.returncode} ({reason}); PyTorch must be downloaded once, so go online, or "
                "name an interpreter that has torch, numpy and safetensors with python=PATH"
            )
        try:
            return safetensors.numpy.load_file(out)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(
                f"cannot read {path}: the converter wrote no tensors ({error}); try again"
            ) from error


def _uv_python() -> list[str]:
    """The arguments that start a Python with the script's dependencies.

    `uv tool run` takes the dependencies from the script's metadata, as `uv run --script` would, but
    unlike it can choose PyTorch's CPU build; the default build on Linux downloads 3 GB for GPUs.
    """
    return [
        uv_scripts.find_uv("PyTorch to read its files"), "tool", "run", "--quiet",
        "--torch-backend=cpu", f"--with-requirements={SCRIPT}", f"--python={sys.executable}",
        "python",
    ]  # fmt: skip


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env=uv_scripts.clean_environment(), check=False,
        )  # fmt: skip
    except OSError as error:
        raise UserError(
            f"cannot start {command[0]} ({error.strerror}); give python=PATH of an interpreter "
            "that has torch, numpy and safetensors"
        ) from error


@contextlib.contextmanager
def _notice_of_installation() -> Iterator[None]:
    notice = threading.Timer(
        _NOTICE_AFTER, _log.warning, ["preparing PyTorch's environment (once, about 200 MB) ..."]
    )
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


def _last_line(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return lines[-1][:_MAX_REASON] if lines else ""
