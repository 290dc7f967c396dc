"""The optional packages that evaluation needs: what is missing, and which versions are there."""

import importlib.metadata
import importlib.util
import platform
from collections.abc import Mapping

from talkjax.errors import UserError

# What `import` calls the packages of the extra `eval`, and of `video`, which it includes.
EVAL_MODULES = ("av", "cv2", "librosa", "matplotlib", "python_speech_features", "scipy", "skimage",
                "tqdm")  # fmt: skip
# Packages whose versions are reported with every evaluation, since numbers depend on them.
_REPORTED = (
    "jax", "jaxlib", "flax", "numpy", "scipy", "scikit-image", "opencv-python-headless", "av",
    "librosa", "soxr",
)  # fmt: skip


def is_installed(module: str) -> bool:
    """Returns whether a top-level module can be imported."""
    return importlib.util.find_spec(module) is not None


def require(*modules: str) -> None:
    """Checks that optional packages are installed.

    Args:
      *modules: Names of top-level modules of the extra `eval`.

    Raises:
      UserError: A module is missing; the message names it and the extra to install.
    """
    missing = [name for name in modules if not is_installed(name)]
    if missing:
        raise UserError(
            f"{', '.join(missing)} cannot be imported; install what evaluation needs with "
            "`pip install 'talkjax[eval]'`"
        )


def reported_versions(detector: Mapping[str, str]) -> dict[str, str]:
    """Returns the versions that an evaluation's numbers depend on.

    Args:
      detector: {package: version} of the face detector's own environment.
    """
    versions = {"python": platform.python_version()}
    for name in _REPORTED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions | {f"facemesh worker: {name}": str(v) for name, v in detector.items()}
