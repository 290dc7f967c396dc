"""Reading a photograph."""

from __future__ import annotations

import itertools
import struct
from typing import NamedTuple

import numpy as np

from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import container as media

_MAX_BYTES = 256 << 20
_BACKGROUND = 255  # transparent pixels are shown on white, as most viewers do
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


class Photograph(NamedTuple):
    """A picture as a viewer shows it.

    Attributes:
      rgb: (H, W, 3) uint8.
      transparent: Whether some of its pixels are transparent, which are on white.
    """

    rgb: np.ndarray
    transparent: bool


def is_photograph(path: PathLike) -> bool:
    """Returns whether a file is a still picture, by its content.

    Raises:
      UserError: The file is missing or cannot be read.
    """
    with open(media.check_local_file(path), "rb") as file:
        data = file.read(4096)
    kind = _kind(data)
    moving = (kind == "png" and b"acTL" in data) or (kind == "webp" and _is_animated_webp(data))
    return kind is not None and not moving


def read_image(path: PathLike) -> np.ndarray:
    """Returns the (H, W, 3) uint8 RGB picture of `read_photograph`."""
    return read_photograph(path).rgb


def read_photograph(path: PathLike) -> Photograph:
    """Reads a PNG, JPEG, WebP, AVIF or BMP picture, upright and reduced to 8-bit RGB.

    Args:
      path: A local file.

    Raises:
      UserError: The file is missing, too large, damaged, or not such a picture.
    """
    import cv2

    name = media.display_name(path)
    with open(media.check_local_file(path), "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    kind = _kind(data)
    if kind == "heif":
        raise UserError(
            f"{name}: HEIC pictures cannot be read; convert it to JPEG (iPhones export one when "
            "sharing; Preview, Photos and most editors do too)"
        )
    if kind is None or len(data) > _MAX_BYTES:
        raise UserError(
            f"{name}: is not a readable picture; give a PNG, JPEG, WebP, AVIF or BMP file "
            "(or video=FILE for a video)"
        )
    # This comes before decoding, because a small file can declare a picture that fills the memory.
    sizes = {"png": _png_size, "jpeg": _jpeg_size, "avif": _avif_size}
    width, height = sizes.get(kind, _unknown_size)(data)
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
    return _flatten(image, np.frombuffer(data, np.uint8))


def _flatten(image: np.ndarray, data: np.ndarray) -> Photograph:
    """Shows the transparent pixels of a picture, which was decoded without alpha, on white."""
    import cv2

    from talkjax.media import pixels

    full = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)  # as stored: not upright
    if full is None or full.ndim < 3 or full.shape[2] != 4:
        return Photograph(image, False)
    alpha = (full[..., 3] >> 8).astype(np.uint8) if full.dtype == np.uint16 else full[..., 3]
    if alpha.dtype != np.uint8 or alpha.min() == 255:
        return Photograph(image, False)
    stored = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    flat = pixels.flatten(np.dstack([stored, alpha]), _BACKGROUND)
    for how in itertools.product((False, True), repeat=3):
        if np.array_equal(pixels.orient(stored, how), image):
            return Photograph(pixels.orient(flat, how), True)
    return Photograph(flat, True)


def _kind(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        return "avif" if brand in (b"avif", b"avis") else "heif" if brand in _HEIF else None
    return "bmp" if data.startswith(b"BM") else None


def _is_animated_webp(data: bytes) -> bool:
    return data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & 2)


def _avif_size(data: bytes) -> tuple[int, int]:
    """Returns the largest (width, height) of the picture and its parts, or (0, 0)."""
    width, height, at = 0, 0, data.find(b"ispe")
    while 0 <= at <= len(data) - 16:
        w, h = struct.unpack(">II", data[at + 8 : at + 16])
        width, height = max(width, w), max(height, h)
        at = data.find(b"ispe", at + 4)
    return width, height


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
