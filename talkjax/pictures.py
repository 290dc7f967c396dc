"""Grids of images as PNG files, without an image library, which training does not install."""

import os
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from talkjax import files

_GAP = 2  # pixels of white between images


def grid(columns: Mapping[str, Any]) -> np.ndarray:
    """Arranges images in a grid with one row per example and one column per name.

    Args:
      columns: {name: (N, H, W, 3)} images, uint8 or float in [-1, 1]. Sizes may differ between
        columns.

    Returns:
      (height, width, 3) uint8.
    """
    images = [_to_uint8(np.asarray(value)) for value in columns.values()]
    rows = min(len(x) for x in images)
    height = max(x.shape[1] for x in images) + _GAP
    width = sum(x.shape[2] + _GAP for x in images)
    sheet = np.full((rows * height, width, 3), 255, np.uint8)
    left = 0
    for column in images:
        for row in range(rows):
            top = row * height
            sheet[top : top + column.shape[1], left : left + column.shape[2]] = column[row]
        left += column.shape[2] + _GAP
    return sheet[:-_GAP, :-_GAP]


def _to_uint8(images: np.ndarray) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    # NaN has no integer value; it is shown as black.
    scaled = np.nan_to_num((images.astype(np.float32) + 1) * 127.5, nan=0.0)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def encode_png(image: np.ndarray, comment: str = "") -> bytes:
    """Encodes an (H, W, 3) uint8 image as PNG.

    Args:
      image: The image.
      comment: Text of the tEXt chunk "Comment"; none if empty.
    """
    height, width = image.shape[:2]
    # Every row starts with its filter type; 0 is none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    if comment:
        png += chunk(b"tEXt", b"Comment\0" + comment.encode("latin-1", "replace"))
    return png + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)) + chunk(b"IEND", b"")


def write_png(path: str | os.PathLike, image: np.ndarray, comment: str = "") -> None:
    """Writes an (H, W, 3) uint8 image completely or not at all.

    Args:
      path: PNG file to write; its folder is created if necessary.
      image: The image.
      comment: See `encode_png`.
    """
    path = files.as_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, encode_png(image, comment))
