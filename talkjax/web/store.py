"""The files of visitors, all in one temporary folder: uploads, and what was made of them.

An upload is named by its content, so that several visitors may have the same one. It is removed
when the last of them lets it go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from talkjax.errors import UserError

_PREFIX = "talkjax-web-"
_UNFINISHED_S = 120.0  # an upload that gets nothing for so long has been given up
GONE = "the files of this page were removed, because they were not used for a while; load it again"


@dataclasses.dataclass
class _Visitor:
    """What a visitor has.

    Attributes:
      folder: What was made for them.
      uploads: Uploads, by the role that they have.
      seen: When they did something last.
      busy: Number of works in progress, during which nothing is removed.
      left: Whether they have closed the page.
    """

    folder: Path
    uploads: dict[str, Path] = dataclasses.field(default_factory=dict)
    seen: float = dataclasses.field(default_factory=time.monotonic)
    busy: int = 0
    left: bool = False


class Store:
    """Files of visitors.

    Attributes:
      root: Folder of all files.
      uploads: Folder inside for files as they come in.
      made: Folder inside for what was made.
    """

    def __init__(self, keep_seconds: float, parent: str | None = None) -> None:
        """Creates the folder, and removes those of servers that were killed.

        Args:
          keep_seconds: How long the files of somebody who does nothing are kept.
          parent: Where the folder is made; the system's folder for temporary files by default.
        """
        self._keep = keep_seconds
        _remove_abandoned(Path(parent or tempfile.gettempdir()))
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)).resolve()
        self._lock_file = open(self.root / "lock", "w")  # noqa: SIM115 (held open)
        fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.uploads, self.made = self.root / "uploads", self.root / "made"
        for folder in (self.uploads, self.made):
            folder.mkdir()
        self._visitors: dict[str, _Visitor] = {}
        self._lock = threading.RLock()

    def folder(self, visitor: str) -> Path:
        """Returns the folder of what is made for a visitor."""
        with self._lock:
            return self._see(visitor).folder

    def take(self, visitor: str, role: str, path: str | os.PathLike) -> str:
        """Gives an upload to a visitor in a role, instead of the one that had this role.

        Returns:
          The path.

        Raises:
          UserError: The file is not one of the store, or was removed.
        """
        with self._lock:
            resolved = Path(path).resolve()
            if not resolved.is_relative_to(self.root):
                raise UserError(f"{resolved.name}: was not uploaded to this page; upload it")
            if not resolved.is_file():
                raise UserError(f"{resolved.name}: was removed after use; upload it again")
            mine = self._see(visitor)
            before = mine.uploads.get(role)
            mine.uploads[role] = resolved
            if before is not None and before != resolved:
                self._remove_unowned(before)
            return str(resolved)

    def get(self, visitor: str, role: str) -> str | None:
        """Returns the path of a visitor's upload in a role."""
        with self._lock:
            found = self._see(visitor).uploads.get(role)
            return None if found is None else str(found)

    def drop(self, visitor: str, role: str) -> bool:
        """Removes the upload that a visitor has in a role; returns whether there was one."""
        with self._lock:
            mine = self._visitors.get(visitor)
            path = None if mine is None else mine.uploads.pop(role, None)
            if path is not None:
                self._remove_unowned(path)
            return path is not None

    @contextlib.contextmanager
    def busy(self, visitor: str) -> Iterator[None]:
        """Keeps a visitor's files while work is done with them, also if the visitor leaves."""
        with self._lock:
            mine = self._see(visitor)
            mine.busy += 1
        try:
            yield
        finally:
            with self._lock:
                mine.busy -= 1
                mine.seen = time.monotonic()
                if mine.left and not mine.busy:
                    self._forget(visitor)

    def leave(self, visitor: str) -> None:
        """Removes the files of a visitor, once no work needs them."""
        with self._lock:
            mine = self._visitors.get(visitor)
            if mine is not None:
                mine.left = True
                if not mine.busy:
                    self._forget(visitor)

    def sweep(self) -> None:
        """Removes files of visitors who did nothing for long, and uploads that nobody took.

        What is left of an upload that broke off goes after two minutes.
        """
        with self._lock:
            now = time.monotonic()
            for name, mine in list(self._visitors.items()):
                if not mine.busy and now - mine.seen > self._keep:
                    self._forget(name)
            owned = {path for mine in self._visitors.values() for path in mine.uploads.values()}
            for path in [each for each in self.uploads.rglob("*") if each.is_file()]:
                # Uploads lie in folders of their own once they are complete.
                keep = _UNFINISHED_S if path.parent == self.uploads else self._keep
                with contextlib.suppress(OSError):
                    if path not in owned and time.time() - path.stat().st_mtime > keep:
                        _remove_file(path, self.root)

    def used_bytes(self) -> int:
        """Returns how large all files are together."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.stat(os.path.join(folder, name)).st_size
        return total

    def close(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.root, ignore_errors=True)
        self._lock_file.close()

    def _see(self, visitor: str) -> _Visitor:
        if visitor not in self._visitors:
            folder = self.made / secrets.token_urlsafe(16)
            folder.mkdir()
            self._visitors[visitor] = _Visitor(folder)
        mine = self._visitors[visitor]
        mine.seen = time.monotonic()
        return mine

    def _forget(self, visitor: str) -> None:
        mine = self._visitors.pop(visitor)
        shutil.rmtree(mine.folder, ignore_errors=True)
        for path in mine.uploads.values():
            self._remove_unowned(path)

    def _remove_unowned(self, path: Path) -> None:
        if not any(path in mine.uploads.values() for mine in self._visitors.values()):
            _remove_file(path, self.root)


def _remove_file(path: Path, root: Path) -> None:
    """Removes a file, and the folder of its own in which uploads lie."""
    with contextlib.suppress(OSError):
        path.unlink()
        if path.parent not in (root, root / "uploads") and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _remove_abandoned(parent: Path) -> None:
    """Removes folders of servers that were killed: those whose lock nobody holds."""
    for lock in parent.glob(f"{_PREFIX}*/lock"):
        with contextlib.suppress(OSError), open(lock, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
