"""Finding a checkpoint: the bundled one, a folder, or a Hugging Face repository."""

from __future__ import annotations

import os

from etils import epath

from talkjax import files, hub, weights
from talkjax.errors import UserError
from talkjax.sampling import bundled


def find_checkpoint(
    name_or_path: files.PathLike | None = None, revision: str | None = None
) -> epath.Path:
    """Returns the folder of a checkpoint, after downloading it if necessary.

    Args:
      name_or_path: None for the bundled checkpoint, a folder of exported weights or the directory
        of a training run (local or in a bucket), or the id of a Hugging Face model repository
        ("owner/name") that holds `config.json` and `model.safetensors`. A folder of that name takes
        precedence.
      revision: Branch, tag or commit of the repository.

    Raises:
      UserError: `name_or_path` is neither a folder nor a repository id, the package that reads the
        bucket or repository is not installed, or the download fails.
    """
    if name_or_path is None:
        return files.as_path(bundled.checkpoint())
    name = os.fspath(name_or_path)
    if files.is_remote(name):
        return _find_in_bucket(name)
    if os.path.isdir(name):
        return files.as_path(name)
    if isinstance(name_or_path, os.PathLike) or not hub.REPOSITORY.fullmatch(name):
        raise UserError(
            f"{name}: is not a directory; give a folder of exported weights, the directory of a "
            "training run or the id of a Hugging Face repository (owner/name)"
        )
    return _download(name, revision)


def _find_in_bucket(name: str) -> epath.Path:
    try:
        path = files.as_path(name)
        found = path.is_dir()
    # ImportError: the package for this kind of bucket is missing. KeyError: no bucket is meant.
    except (ImportError, KeyError, OSError, ValueError) as error:
        raise UserError(
            f"{name}: cannot be opened ({files.one_line(error)}); give a local folder, or a bucket "
            "(gs://...) whose package is installed"
        ) from error
    if not found:
        raise UserError(f"{name}: is not a directory; check the path")
    return path


def _download(repository: str, revision: str | None) -> epath.Path:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            f"{repository}: is not a directory, and reading it as a Hugging Face repository needs "
            "huggingface_hub; correct the path or run `pip install talkjax[hub]`"
        ) from None
    names = [weights.CONFIG_FILE, weights.PARAMS_FILE]
    try:
        folder = huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=names
        )
    # The library passes on the errors of whichever HTTP client it uses, which share no base class.
    except Exception as error:
        raise UserError(
            f"cannot download {repository} from Hugging Face ({files.one_line(error)}); check the "
            "repository id, the revision and the network, or give a folder"
        ) from error
    missing = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        raise UserError(
            f"the Hugging Face repository {repository} lacks {' and '.join(missing)}; "
            "give a repository of exported talkjax weights"
        )
    return files.as_path(folder)
