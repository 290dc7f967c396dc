"""Reading a photograph."""

from __future__ import annotations

import struct

import numpy as np

from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import container as media

_MAX_BYTES = 256 << 20


def read_image(path: PathLike) -> np.ndarray:
    """Reads a PNG, JPEG, WebP or BMP picture, upright and reduced to 8-bit RGB.

    Args:
      path: A local file.

    Returns:
      (H, W, 3) uint8 RGB.

    Raises:
      UserError: The file is missing, too large, damaged, or not such a picture.
    """
    import cv2

    name = media.display_name(path)
    with open(media.check_local_file(path), "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    kind = _kind(data)
    if kind is None or len(data) > _MAX_BYTES:
        raise UserError(
            f"{name}: is not a readable picture; give a PNG, JPEG, WebP or BMP file "
            "(or video=FILE for a video)"
        )
    # This comes before decoding, because a small file can declare a picture that fills the memory.
    width, height = {"png": _png_size, "jpeg": _jpeg_size}.get(kind, _unknown_size)(data)
    if max(width, height) > media.MAX_SIDE or width * height > media.MAX_PIXELS:
        raise UserError(f"{name}: {width}x{height} pixels are too many; scale the picture down")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{name}: is truncated or damaged; give a complete picture")
    if max(image.shape) > media.MAX_SIDE or image.size > 3 * media.MAX_PIXELS:
        height, width = image.shape[:2]
        raise UserError(f"{name}: {width}x{height} pixels are too many; scale the picture down")
    return image


def _kind(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "bmp" if data.startswith(b"BM") else None


def _unknown_size(data: bytes) -> tuple[int, int]:
    del data  # the limits of the other formats are low enough
    return 0, 0


def _png_size(data: bytes) -> tuple[int, int]:
    return struct.unpack(">II", data[16:24]) if len(data) >= 24 else (0, 0)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Returns (width, height) from the first frame header, or (0, 0) if there is none."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # padding
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return 0, 0
