"""WAV files that were glued together, headers and all, read as one.

Speech services send a WAV file for each sentence, and users write them into one file. Decoders stop
at the end of the first, or play the headers as noise where the sizes in them are not known, as in
files that were written while they were recorded.
"""

from __future__ import annotations

import bisect
import functools
import io
import itertools
import os
import struct
from typing import BinaryIO, NamedTuple

_HEADER = 12  # bytes of "RIFF", a size and "WAVE"
_PIECE = 1 << 20  # bytes searched at a time
_MAX_PARTS = 10_000


class _Part(NamedTuple):
    """One of the files.

    Attributes:
      format: Contents of its chunk "fmt ".
      start, end: Bytes of its samples in the whole file.
      following: Where the next part may begin, or None if it must be searched for.
    """

    format: bytes
    start: int
    end: int
    following: int | None


class Glued(NamedTuple):
    """The parts of a file that are read as one.

    Attributes:
      format: Contents of their chunk "fmt ".
      ranges: (start, end) in bytes of their samples.
      left_out: Number of parts after them, the first of which has another format.
    """

    format: bytes
    ranges: tuple[tuple[int, int], ...]
    left_out: int


def find(path: str) -> Glued | None:
    """Returns the parts of a WAV file, or None if it is one file or none."""
    try:
        status = os.stat(path)
        return _find(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=16)
def _find(path: str, length: int, unused_time: int) -> Glued | None:
    parts: list[_Part] = []
    with open(path, "rb") as file:
        place: int | None = 0
        while place is not None and len(parts) < _MAX_PARTS:
            part = _read_part(file, place, length)
            if part is None:
                break
            place = part.following
            if place is None:
                place = _search(file, part.start)
                part = part._replace(end=length if place is None else place)
            parts.append(part)
    if len(parts) < 2:
        return None
    first = parts[0].format
    alike = next((i for i, p in enumerate(parts) if p.format[:16] != first[:16]), len(parts))
    align = max(1, *struct.unpack_from("<H", first, 12))
    ranges = ((p.start, p.end - (p.end - p.start) % align) for p in parts[:alike])
    return Glued(first, tuple(ranges), len(parts) - alike)


def _read_part(file: BinaryIO, place: int, length: int) -> _Part | None:
    """Reads the chunks of the part that begins at `place`; None if there is none."""
    head = _read(file, place, _HEADER)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    place += _HEADER
    form = b""
    while (chunk := _read_chunk(file, place)) is not None:
        name, size = chunk
        place += 8
        if name == b"data":
            if len(form) < 16:
                return None
            end = place + size
            # Where the size is not known yet, 0 or the highest possible values are written.
            if size == 0 or size & 0x7FFFFF00 == 0x7FFFFF00 or end > length:
                return _Part(form, place, length, None)
            return _Part(form, place, end, _skip_chunks(file, end, size % 2))
        if name == b"fmt ":
            form = _read(file, place, min(size, 64))
        place += size + size % 2
    return None


def _skip_chunks(file: BinaryIO, place: int, padding: int) -> int:
    """Returns where something else than a chunk of the same part begins."""
    if _read(file, place, 4) != b"RIFF":
        place += padding
    while (chunk := _read_chunk(file, place)) is not None and chunk[0] != b"RIFF":
        place += 8 + chunk[1] + chunk[1] % 2
    return place


def _search(file: BinaryIO, place: int) -> int | None:
    """Returns where the next header begins."""
    while True:
        piece = _read(file, place, _PIECE + _HEADER - 1)
        at = piece.find(b"RIFF")
        while at >= 0:
            if piece[at + 8 : at + _HEADER] == b"WAVE":
                return place + at
            at = piece.find(b"RIFF", at + 1)
        if len(piece) < _HEADER:
            return None
        place += _PIECE


def _read_chunk(file: BinaryIO, place: int) -> tuple[bytes, int] | None:
    head = _read(file, place, 8)
    return (head[:4], int.from_bytes(head[4:], "little")) if len(head) == 8 else None


def _read(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


class GluedReader(io.RawIOBase):
    """A WAV file with the samples of all parts."""

    def __init__(self, path: str, glued: Glued) -> None:
        super().__init__()
        self.name = path
        lengths = [end - start for start, end in glued.ranges]
        count = min(sum(lengths), 0xFFFFFFFF)
        form = glued.format + b"\0" * (len(glued.format) % 2)
        form = b"WAVEfmt " + struct.pack("<I", len(glued.format)) + form
        riff = struct.pack("<I", min(count + len(form) + 8, 0xFFFFFFFF))
        self._head = b"RIFF" + riff + form + b"data" + struct.pack("<I", count)
        self._starts = [start for start, _ in glued.ranges]
        # Where each part begins in what is read, and the end.
        self._bounds = list(itertools.accumulate(lengths, initial=len(self._head)))
        self._length = self._bounds[-1]
        self._place = 0
        self._file = open(path, "rb")  # noqa: SIM115

    def close(self) -> None:  # noqa: D102
        if not self.closed:
            self._file.close()
        super().close()

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:  # noqa: D102
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._length}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:  # noqa: D102
        return self._place

    def read(self, size: int = -1) -> bytes:  # noqa: D102
        stop = self._length if size < 0 else min(self._place + size, self._length)
        out = self._head[self._place : stop]
        self._place += len(out)
        while self._place < stop:
            part = bisect.bisect_right(self._bounds, self._place) - 1
            count = min(stop, self._bounds[part + 1]) - self._place
            at = self._starts[part] + self._place - self._bounds[part]
            data = _read(self._file, at, count)
            if not data:  # the file was cut meanwhile
                break
            out += data
            self._place += len(data)
        return out
