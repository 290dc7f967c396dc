"""Random access to ArrayRecord files, as bytes. Nothing of them but their index is kept in memory.

A reader keeps each of its files open, and takes eight bytes of memory for each record.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from talkjax import files
from talkjax.data import remote
from talkjax.errors import UserError

# Groups of one record, so that random access reads one record only; not compressed, because JPEGs
# cannot be, and floats take longer to expand than to read.
WRITER_OPTIONS = "group_size:1,uncompressed"
# A process keeps all files of its parts open, and 1,024 is a usual limit.
MOST_FILES = 200


class RecordFiles:
    """The records of several files, one after another.

    Args:
      paths: The files in order, local or in a bucket.
      lengths: The number of records that each of them has.
      remedy: What the user should do about a damaged file; the end of an error's line.

    Raises:
      UserError: A file is missing or damaged.
    """

    def __init__(self, paths: Sequence[epath.Path], lengths: Sequence[int], remedy: str):
        self.paths, self._ends = list(paths), np.cumsum(lengths)
        copies = remote.local_copies(self.paths)
        try:
            self._source = _open(copies, remedy)
        except UserError:
            for path in copies:  # name the one that is damaged
                _open([path], remedy)
            raise

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, place: int) -> bytes:
        """Reads a record; a damaged one is a RuntimeError of the reader in C++."""
        return self._source[place]

    def close(self) -> None:
        """Closes the files. A later read opens them again."""
        self._source.__exit__(None, None, None)

    def name_of(self, place: int) -> str:
        """Returns the name of a record for messages: its file, and its place there."""
        number = int(np.searchsorted(self._ends, place, "right"))
        row = place - (self._ends[number - 1] if number else 0)
        return f"record {row} of {self.paths[number]}"


def _open(paths: list[epath.Path], remedy: str) -> Any:
    import grain  # slow to import, and not needed by preparation

    try:
        return grain.sources.ArrayRecordDataSource([os.fspath(path) for path in paths])
    except Exception as error:  # the C++ reader raises bare RuntimeErrors and more
        raise UserError(
            f"the shard {paths[0]} cannot be read ({files.one_line(error, 300)}); {remedy}"
        ) from error
