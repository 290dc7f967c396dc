"""Parses `tf.train.Example`, the format of the messages in shards.

The format is small enough for a few lines, so that training needs neither TensorFlow nor TensorFlow
Datasets nor protobuf:

    Example{1: Features{1: repeated entry{1: key, 2: Feature}}}
    Feature{1: BytesList | 2: FloatList | 3: Int64List}

Each list holds its values in field 1, numbers packed. Only wire type 2 (length delimited) occurs.
https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields (field number, payload) of the length-delimited fields of one message."""
    position, end = 0, len(view)
    while position < end:
        tag = view[position]
        if tag & 7 != 2 or tag >= 0x80:
            raise ValueError(f"unexpected wire tag {tag}")
        position += 1
        size = shift = 0
        while True:
            byte = view[position]
            position += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if position + size > end:
            raise ValueError("a field is longer than its message")
        yield tag >> 3, view[position : position + size]
        position += size


def _feature_values(feature: memoryview) -> np.ndarray | tuple[bytes, ...]:
    for kind, values in _fields(feature):
        if kind == 1:
            return tuple(bytes(item) for _, item in _fields(values))
        packed = b"".join(item for _, item in _fields(values))
        if kind == 2:
            return np.frombuffer(packed, "<f4")
        flags = np.frombuffer(packed, np.uint8)
        if flags.size and flags.max() > 1:
            raise ValueError("an integer feature holds more than 0 and 1")
        return flags.astype(bool)
    return np.zeros((0,), np.float32)


def parse_example(raw: bytes, keys: Collection[str]) -> dict[str, Any]:
    """Decodes the named features of a serialised `tf.train.Example`.

    Args:
      raw: The message.
      keys: Names of features; others are skipped without being copied.

    Returns:
      Flat float32 or bool arrays and tuples of bytes, by feature name.

    Raises:
      ValueError, IndexError: The message does not have the expected form.
    """
    out = {}
    for _, features in _fields(memoryview(raw)):
        for _, entry in _fields(features):
            parts = dict(_fields(entry))
            name = bytes(parts[1]).decode()
            if name in keys:
                out[name] = _feature_values(parts[2])
    return out
