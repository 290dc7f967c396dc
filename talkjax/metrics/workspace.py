"""The work folder: slow files are made once and found again by a hash of what they depend on."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from talkjax import files
from talkjax.errors import UserError

_PARTS = (
    "media", "models", "diffusion", "sampling", "conventions.py", "head_pose.py", "networks.py",
    "weights.py",
)  # fmt: skip
_NOT_GENERATING = ("models/sync_expert.py",)  # in these folders, but not used by generation


class Workspace:
    """Files named by a kind, a readable label and a hash of their inputs.

    An interrupted evaluation finds the files that it made; one with another checkpoint or other
    settings makes its own.
    """

    def __init__(self, folder: str | os.PathLike):
        """Creates the folder if it does not exist.

        Raises:
          UserError: It cannot be created.
        """
        self.folder = Path(folder)
        self._hashes: dict[Path, str] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot create the work folder {folder} ({error.strerror}); choose another --work"
            ) from error

    def get_or_make(
        self,
        kind: str,
        label: str,
        inputs: Mapping[str, Any],
        suffix: str,
        make: Callable[[Path], None],
    ) -> Path:
        """Returns the file for these inputs, which is made if it does not exist.

        Args:
          kind: First part of the file's name.
          label: Human-readable part of the file's name.
          inputs: Everything that the file depends on, as plain data.
          suffix: Suffix of the name, with its dot.
          make: Writes the file at the path it is given; only a complete file gets its final name.
        """
        text = json.dumps([kind, inputs], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = self.folder / f"{kind}-{safe_name(label)}-{key}{suffix}"
        if path.is_file():
            return path
        with files.replacing(path) as temporary:
            make(Path(temporary))
        return path

    def hash_file(self, path: str | os.PathLike) -> str:
        """Returns `hash_file(path)`, computed once."""
        path = Path(path)
        if path not in self._hashes:
            self._hashes[path] = hash_file(path)
        return self._hashes[path]


def safe_name(label: str) -> str:
    """Turns a label into a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", label)[-60:].lstrip(".") or "clip"


def hash_file(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file's contents.

    Raises:
      UserError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path") from error


def hash_tree(root: str | os.PathLike, pattern: str = "*", without: Collection[Path] = ()) -> str:
    """Returns the SHA-256 of a file, or of the names and contents of a folder's visible files."""
    root = Path(root)
    if root.is_file():
        return hash_file(root)
    digest = hashlib.sha256()
    for path in sorted(root.rglob(pattern)):
        relative = path.relative_to(root)
        if path in without:
            continue
        if path.is_file() and not any(p.startswith((".", "__")) for p in relative.parts):
            digest.update(f"{relative.as_posix()}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


def hash_checkpoint(directory: str | os.PathLike) -> str:
    """Identifies the weights of an exported checkpoint or of a training run's newest step.

    Raises:
      UserError: The directory is neither.
    """
    directory = Path(directory)
    parts = [directory / name for name in ("model.safetensors", "config.json")]
    if not parts[0].is_file():
        steps = [p for p in (directory / "checkpoints").glob("*") if p.name.isdigit()]
        if not steps:
            raise UserError(
                f"{directory} holds no weights; give a training run or an exported checkpoint"
            )
        parts[0] = max(steps, key=lambda p: int(p.name))
    digest = hashlib.sha256("\n".join(hash_tree(p) for p in parts if p.exists()).encode())
    return digest.hexdigest()


def hash_code() -> str:
    """Identifies the code that generation depends on, so that changed code makes new files."""
    package = Path(__file__).resolve().parents[1]
    unused = [package / name for name in _NOT_GENERATING]
    return hashlib.sha256(
        "\n".join(hash_tree(package / part, "*.py", unused) for part in _PARTS).encode()
    ).hexdigest()
