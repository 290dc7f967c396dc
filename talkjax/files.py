"""Paths, local or in a bucket, and files that appear complete or not at all."""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from talkjax.errors import UserError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike
LOCK = ".lock"
# Seconds that a lock is waited for: workers of a process that was killed hold it a little longer.
_PATIENCE = 5.0


class WriteError(UserError, OSError):
    """A file cannot be written: no permission, no directory, no space left."""


def as_path(path: PathLike) -> epath.Path:
    """Returns an `etils.epath.Path`, which has pathlib's interface for gs:// and s3://, too."""
    return epath.Path(path)


def is_remote(path: PathLike) -> bool:
    """Returns whether a path is in a bucket, where nothing can be appended to or memory-mapped."""
    return "://" in os.fspath(path)


def absolute(path: PathLike) -> epath.Path:
    """Returns an absolute path, as Orbax requires it; the address of a bucket stays as it is."""
    return as_path(path) if is_remote(path) else as_path(os.path.abspath(path))


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[epath.Path]:
    """Yields a temporary sibling of `path`, which takes its name when the body succeeds.

    A process that is killed at any moment leaves the old file or the new one under `path`, and
    at most a hidden `.NAME.*.tmp.SUFFIX` beside it.

    Raises:
      WriteError: the operating system refused, in the body or in the renaming.
    """
    path = as_path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, UserError):
            reason = error.strerror or error
            raise WriteError(
                f"{path}: cannot be written ({reason}); choose another place"
            ) from error
        raise


@contextlib.contextmanager
def held(folder: PathLike, remedy: str) -> Iterator[None]:
    """Keeps a folder to this process in the body, by a lock on the file `.lock` in it.

    The operating system releases the lock however the process ends. Nothing is locked in a bucket,
    on Windows, and on file systems that cannot.

    Args:
      folder: The folder, which is made if it does not exist.
      remedy: What to do about the error, for its message.

    Raises:
      UserError: Another process holds the folder.
    """
    with contextlib.ExitStack() as stack:
        if fcntl is not None and not is_remote(folder):
            with contextlib.suppress(OSError):
                os.makedirs(folder, exist_ok=True)
                file = stack.enter_context(open(as_path(folder) / LOCK, "w"))
                if not _lock(file):
                    raise UserError(f"{folder} is in use by another process; {remedy}")
        yield


def _lock(file: Any) -> bool:
    """Locks an open file; returns False if another process keeps it locked."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(0.1)


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes a file, complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: PathLike, content: str) -> None:
    """Writes a UTF-8 text file, complete or not at all.

    Names of files that are not valid Unicode are escaped.
    """
    write_bytes(path, content.encode(errors="backslashreplace"))


def json_text(value: Any, sort_keys: bool = False) -> str:
    """Indented JSON with a final newline; ValueError where a number is NaN or infinite."""
    return json.dumps(value, indent=2, sort_keys=sort_keys, allow_nan=False) + "\n"


def write_json(path: PathLike, value: Any, sort_keys: bool = False) -> None:
    """Writes indented JSON, complete or not at all.

    Raises:
      ValueError: a number is NaN or infinite, which JSON does not have.
      WriteError: the file cannot be written.
    """
    write_text(path, json_text(value, sort_keys))


def read_json_object(path: PathLike, remedy: str) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Args:
      path: the file.
      remedy: what the user should do where it cannot be read; the end of the error's line.

    Raises:
      UserError: the file is missing, or does not hold a JSON object.
    """
    try:
        value = json.loads(as_path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; {remedy}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object; {remedy}")
    return value


def one_line(error: BaseException, most: int = 200) -> str:
    """Returns an exception's message on one line of at most `most` characters."""
    return " ".join(str(error).split())[:most] or type(error).__name__
