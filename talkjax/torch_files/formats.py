"""The two formats of PyTorch's files, around the same pickles of descriptions and raw storages."""

import io
import math
import mmap
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from talkjax.errors import UserError
from talkjax.torch_files.machine import (
    DAMAGED,
    ONLY_WEIGHTS,
    BadFileError,
    Machine,
    Storage,
    Tensor,
)

MAX_PICKLE = 1 << 24  # bytes; a file of weights needs some 100 for each tensor
MAX_ENTRIES = 100_000  # tensors, storages, members of an archive
MAX_NESTING = 8
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# What a hostile file can raise inside of pickletools, zipfile and the machine.
_DAMAGE = (
    ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError, EOFError,
    struct.error, zipfile.BadZipFile, NotImplementedError, RuntimeError, MemoryError,
)  # fmt: skip


def load(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch file.

    Args:
      path: holds a mapping of names to tensors; of a training checkpoint, what lies under
        `state_dict`. The names of nested mappings and lists are joined by dots, and whatever is no
        tensor is passed over.

    Returns:
      Read-only arrays in the file's types, strided ones as views of their storages.

    Raises:
      UserError: the file is missing, damaged, of another format, or needs more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"weights not found: {path}; check the path")
    try:
        with open(path, "rb") as file:
            start = file.read(512)
            if start.startswith(b"PK\x03\x04"):
                tree, storages, read = _open_zip(file)
            else:
                tree, storages, read = _open_legacy(file, start)
            tensors = _named(tree)
            arrays = {key: read(storage) for key, storage in storages.items()}
        return {name: _array(tensor, arrays) for name, tensor in tensors.items()}
    except BadFileError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check the file") from error
    except _DAMAGE as error:
        first = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise UserError(f"{path} is no readable PyTorch file ({first}); {DAMAGED}") from error


# ---- the two formats ----------------------------------------------------------------------------


def _open_zip(file: io.BufferedReader) -> tuple:
    """(object, storages, function that reads one) of an archive, whose members lie uncompressed."""
    archive = zipfile.ZipFile(file)
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()) or len(members) > MAX_ENTRIES:
        raise BadFileError("its members have the same name, or are too many")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise BadFileError("its members are compressed, as PyTorch's never are")
    # Members that overlap would be more than the file holds.
    if sum(info.file_size for info in members.values()) > os.fstat(file.fileno()).st_size:
        raise BadFileError("its members are larger than the file")
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0].count("/") != 1:
        raise BadFileError(
            "it is a zip file without PyTorch's data.pkl", "give a file that torch saved"
        )
    root = roots[0]
    if f"{root}constants.pkl" in members:
        raise BadFileError("it is a TorchScript program", ONLY_WEIGHTS)
    if members[f"{root}data.pkl"].file_size > MAX_PICKLE:
        raise BadFileError("its data.pkl is too large")
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in members else b"little"
    if order not in (b"little", b"big"):
        raise BadFileError("its byte order is unknown")
    machine = Machine()
    tree = machine.run(io.BytesIO(archive.read(f"{root}data.pkl")))

    def read(storage: Storage) -> np.ndarray:
        info = members.get(f"{root}data/{storage.key}")
        if info is None or info.file_size != storage.bytes:
            raise BadFileError(
                f"storage {storage.key[:20]!r} is missing or not of the size declared"
            )
        return _typed(archive.read(info), storage.dtype, order == b"big")

    return tree, machine.storages, read


def _open_legacy(file: io.BufferedReader, start: bytes) -> tuple:
    """As `_open_zip`, of the format before PyTorch 1.6 (and of 2017)."""
    if not start.startswith(b"\x80"):
        tar = start[257:262] == b"ustar"
        kind = "a tar archive of PyTorch before 0.1.12" if tar else "no PyTorch file"
        raise BadFileError(f"it is {kind}", "give a .pth, .pt or .model file that torch saved")
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    position, machine = 0, Machine()

    def run(machine: Machine) -> Any:
        nonlocal position
        stream = io.BytesIO(content[position : position + MAX_PICKLE])
        value = machine.run(stream)
        position += stream.tell()
        return value

    if run(Machine()) != _MAGIC:
        raise BadFileError("it is a bare pickle, not a PyTorch file", ONLY_WEIGHTS)
    if run(Machine()) != _PROTOCOL:
        raise BadFileError("it is of an unknown version")
    system = run(Machine())
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BadFileError("it comes from a big-endian machine", "save it again on another")
    tree, keys = run(machine), run(Machine())
    known = machine.storages
    if not isinstance(keys, list) or len(keys) > MAX_ENTRIES:
        raise BadFileError("its list of storages is none")
    if any(not isinstance(k, str) for k in keys) or sorted(keys) != sorted(known):
        raise BadFileError("its list of storages is not that of its tensors")
    places = {}
    for key in keys:
        (length,) = struct.unpack("<q", content[position : position + 8])
        storage, position = known[key], position + 8
        if length != storage.length or storage.bytes > len(content) - position:
            raise BadFileError(f"storage {key[:20]!r} is cut short or not of the size declared")
        places[key] = position
        position += storage.bytes

    def read(storage: Storage) -> np.ndarray:
        first = places[storage.key]
        return _typed(content[first : first + storage.bytes], storage.dtype, False)

    return tree, known, read


def _typed(data: bytes, dtype: np.dtype, big_endian: bool) -> np.ndarray:
    if dtype == np.bool_:
        return np.frombuffer(data, np.uint8) != 0
    if big_endian and dtype.itemsize > 1:
        unsigned = np.dtype(f"u{dtype.itemsize}")
        return np.frombuffer(data, unsigned.newbyteorder(">")).astype(unsigned).view(dtype)
    return np.frombuffer(data, dtype)


# ---- tensors ------------------------------------------------------------------------------------


def _named(tree: Any) -> dict[str, Tensor]:
    """The tensors of nested mappings and lists by name."""
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    if not isinstance(tree, dict):
        raise BadFileError("it holds no mapping of names to tensors", ONLY_WEIGHTS)
    found: dict[str, Tensor] = {}
    todo, seen = [((), tree)], 0
    while todo:
        parents, value = todo.pop()
        seen += 1
        if seen > MAX_ENTRIES or len(parents) > MAX_NESTING:
            raise BadFileError("its contents are nested without end")
        if isinstance(value, Tensor):
            name = ".".join(parents)
            if name in found:
                raise BadFileError(f"two tensors have the name {name[:100]!r}")
            found[name] = value
        elif isinstance(value, dict):
            todo += [((*parents, str(k)), v) for k, v in reversed(value.items())]
        elif isinstance(value, list | tuple):
            todo += [((*parents, str(i)), v) for i, v in reversed(list(enumerate(value)))]
        if len(todo) > MAX_ENTRIES:
            raise BadFileError("it holds too many values")
    if not found:
        raise BadFileError("it holds no tensors")
    return found


def _array(tensor: Tensor, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """A tensor as a view of its storage, within which the machine made sure it stays."""
    flat = arrays[tensor.storage.key]
    if not math.prod(tensor.size):
        return np.zeros(tensor.size, flat.dtype)
    step = flat.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.size, [s * step for s in tensor.strides], writeable=False
    )
