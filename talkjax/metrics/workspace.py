"""The work folder: every file that took long is made once and found again by what it depends on."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from talkjax import files
from talkjax.errors import UserError

_PARTS = ("media", "models", "diffusion", "sampling", "networks.py", "weights.py")
_JUDGES = ("models/sync_expert.py",)  # among these parts, but what generates does not use them


class Workspace:
    """Files named by a kind, a readable label and a hash of their inputs.

    An evaluation that was interrupted finds what it made; one with another checkpoint or other
    settings makes its own.
    """

    def __init__(self, folder: str | os.PathLike):
        """Makes the folder.

        Raises:
          UserError: it cannot be made.
        """
        self.folder = Path(folder)
        self._hashes: dict[Path, str] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the work folder {folder} ({error.strerror}); choose another --work"
            ) from error

    def get(
        self,
        kind: str,
        label: str,
        inputs: Mapping[str, Any],
        suffix: str,
        make: Callable[[Path], None],
    ) -> Path:
        """The file that `make` writes for these inputs, made if it is not there yet.

        Args:
          kind: first part of its name.
          label: a name for people.
          inputs: everything that it depends on, plain data.
          suffix: with its dot.
          make: writes to the path it is given; only a complete file gets the final name.
        """
        text = json.dumps([kind, inputs], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = self.folder / f"{kind}-{safe(label)}-{key}{suffix}"
        if path.is_file():
            return path
        with files.replacing(path) as temporary:
            make(Path(temporary))
        return path

    def hash(self, path: str | os.PathLike) -> str:
        """`file_hash`, remembered."""
        path = Path(path)
        if path not in self._hashes:
            self._hashes[path] = file_hash(path)
        return self._hashes[path]


def safe(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", label)[-60:].lstrip(".") or "clip"


def file_hash(path: str | os.PathLike) -> str:
    """SHA-256 of a file's contents.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path") from error


def tree_hash(root: str | os.PathLike, pattern: str = "*", without: Collection[Path] = ()) -> str:
    """SHA-256 of a file, or of a folder's files by name and content, hidden ones passed over."""
    root = Path(root)
    if root.is_file():
        return file_hash(root)
    digest = hashlib.sha256()
    for path in sorted(root.rglob(pattern)):
        relative = path.relative_to(root)
        if path in without:
            continue
        if path.is_file() and not any(p.startswith((".", "__")) for p in relative.parts):
            digest.update(f"{relative.as_posix()}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def checkpoint_hash(directory: str | os.PathLike) -> str:
    """Names the weights in a checkpoint: an export, or the newest step of a run's directory.

    Raises:
      UserError: it is neither.
    """
    directory = Path(directory)
    parts = [directory / name for name in ("model.safetensors", "config.json")]
    if not parts[0].is_file():
        steps = [p for p in (directory / "checkpoints").glob("*") if p.name.isdigit()]
        if not steps:
            raise UserError(
                f"{directory} holds no weights; give a training --workdir or an --export directory"
            )
        parts[0] = max(steps, key=lambda p: int(p.name))
    digest = hashlib.sha256("\n".join(tree_hash(p) for p in parts if p.exists()).encode())
    return digest.hexdigest()


def code_hash() -> str:
    """Names the code that decides what is generated, so that old files do not pass for new ones."""
    package = Path(__file__).resolve().parents[1]
    judges = [package / name for name in _JUDGES]
    return hashlib.sha256(
        "\n".join(tree_hash(package / part, "*.py", judges) for part in _PARTS).encode()
    ).hexdigest()
