"""Scripts that need an environment of their own, which uv builds on first use.

Some packages cannot share talkjax's environment: MediaPipe's pins conflict with JAX's, and PyTorch
is large and rarely needed. Code that uses them is a script with inline metadata (PEP 723), run
by uv (which comes with the extra `video`) in a separate process.
"""

import os
import shutil
import sys
from collections.abc import Mapping

from talkjax.errors import UserError

# Of uv's own variables, only those that describe the machine reach the script's uv: the places of
# its cache and interpreters, and how to reach the network. The others (UV_PROJECT_ENVIRONMENT,
# UV_CONSTRAINT, UV_PYTHON, UV_FROZEN, ...) describe the caller's project and would change the
# script's environment.
_UV_KEPT = (
    "UV_CACHE_DIR", "UV_NO_CACHE", "UV_LINK_MODE", "UV_OFFLINE", "UV_NO_PROGRESS",
    "UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_KEYRING_PROVIDER",
    "UV_HTTP", "UV_REQUEST_TIMEOUT", "UV_INSECURE_HOST", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS",
    "UV_CONCURRENT", "UV_PYTHON_INSTALL", "UV_PYTHON_DOWNLOADS", "UV_PYTHON_PREFERENCE",
    "UV_PYTHON_CACHE_DIR", "UV_PYTHON_CPYTHON_BUILD", "UV_CREDENTIALS_DIR", "UV_LOCK_TIMEOUT",
)  # fmt: skip
_DROPPED = ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "__PYVENV_LAUNCHER__")


def find_uv(purpose: str) -> str:
    """Returns the path of the uv executable.

    Args:
      purpose: What uv runs, for the error message ("the face landmarks").

    Raises:
      UserError: uv is not installed.
    """
    try:
        import uv

        executable = uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        executable = shutil.which("uv")
    if not executable:
        raise UserError(f"cannot find uv, which runs {purpose}; `pip install uv`")
    return executable


def clean_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns environment variables without those that would disturb the script.

    Args:
      base: Variables to start from; None takes those of this process.
    """
    kept = {}
    for name, value in (os.environ if base is None else base).items():
        if name.startswith("UV_") and not name.startswith(_UV_KEPT):
            continue
        if name.startswith("PYTHON") or name in _DROPPED:
            continue
        kept[name] = value
    # The running Python's folder comes last: a Python that is not on PATH still beats a download.
    home = os.path.dirname(getattr(sys, "_base_executable", None) or sys.executable)
    kept["PATH"] = os.pathsep.join(filter(None, (kept.get("PATH"), home)))
    kept["PYTHONUNBUFFERED"] = "1"
    return kept
