"""Converts decoded pictures to RGB arrays and back: colour matrices, ranges, orientation."""

from __future__ import annotations

import struct

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

# FFmpeg's AVColorSpace numbers (ITU-T H.273 matrix coefficients).
MATRIX_RGB, MATRIX_BT709, MATRIX_UNSPECIFIED = 0, 1, 2
MATRIX_FCC, MATRIX_BT470BG, MATRIX_SMPTE170M, MATRIX_SMPTE240M, MATRIX_BT2020 = 4, 5, 6, 7, 9
_SWSCALE_MATRIX = {
    MATRIX_BT709: 1,
    MATRIX_FCC: 4,
    MATRIX_BT470BG: 5,
    MATRIX_SMPTE170M: 5,
    MATRIX_SMPTE240M: 7,
    MATRIX_BT2020: 9,
    10: 9,  # BT.2020 constant luminance, for which swscale has only the coefficients
}
# swscale's fast paths are off by a level or two. Chroma is interpolated to full width first.
_FLAGS = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_THREADS = 1  # one frame is little work, and the decoder has threads already


def effective_matrix(tag: int, width: int, height: int) -> int:
    """Returns the matrix for a picture with the tag `tag`.

    The matrix of an untagged picture follows from its size, as in common players such as mpv: high
    definition is BT.709, anything smaller is BT.601.
    """
    if tag in _SWSCALE_MATRIX:
        return tag
    return MATRIX_BT709 if width >= 1280 or height > 576 else MATRIX_SMPTE170M


def orientation(matrix: bytes | None) -> tuple[bool, bool, bool]:
    """Converts a display matrix to (transpose, flip horizontally, flip vertically), in this order.

    Args:
      matrix: FFmpeg's display matrix, nine native int32 in 16.16 format, or None.
    """
    if matrix is None or len(matrix) < 36:
        return False, False, False
    a, b, _, c, d = struct.unpack("=9i", matrix[:36])[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def orient(image: np.ndarray, how: tuple[bool, bool, bool]) -> np.ndarray:
    """Turns an (H, W, 3) image as `orientation` says; the result is contiguous."""
    transpose, horizontal, vertical = how
    if transpose:
        image = image.transpose(1, 0, 2)
    if horizontal:
        image = image[:, ::-1]
    if vertical:
        image = image[::-1]
    return np.ascontiguousarray(image)


def rotation_degrees(how: tuple[bool, bool, bool]) -> int:
    """Returns the clockwise rotation of an orientation in degrees, without its mirroring."""
    transpose, horizontal, vertical = how
    if transpose:
        return 270 if vertical and not horizontal else 90
    return 180 if horizontal and vertical else 0


def display_matrix(frame: av.VideoFrame) -> bytes | None:
    """Returns the display matrix that is attached to a decoded frame, or None."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except (KeyError, ValueError):
        return None
    return None if data is None else bytes(data)


class RgbReader:
    """Converts decoded pictures of any pixel format to upright 8-bit RGB arrays of one size."""

    def __init__(self, width: int, height: int, matrix_tag: int = MATRIX_UNSPECIFIED) -> None:
        """Creates a converter.

        Args:
          width, height: Size before rotation, in pixels.
          matrix_tag: The stream's matrix tag, which is used for untagged frames.
        """
        self._size = (width, height)
        self._tag = matrix_tag
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, how: tuple[bool, bool, bool]) -> np.ndarray:
        """Converts a frame, turned by `how` (see `orientation`), to (H, W, 3) uint8."""
        width, height = self._size
        tag = frame.colorspace if frame.colorspace != MATRIX_UNSPECIFIED else self._tag
        picture = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=_SWSCALE_MATRIX[effective_matrix(tag, width, height)],
            dst_color_range=ColorRange.JPEG,
            interpolation=_FLAGS,
            threads=_THREADS,
        )
        image = picture.to_ndarray()
        return orient(image, how) if any(how) else np.ascontiguousarray(image)


class YuvWriter:
    """Converts RGB arrays to pictures for an encoder, with a given matrix and limited range."""

    def __init__(self, pixel_format: str, matrix: int) -> None:
        """Creates a converter.

        Args:
          pixel_format: yuv420p (for even sizes), yuv444p or rgb24.
          matrix: One of the MATRIX constants.
        """
        if pixel_format not in ("yuv420p", "yuv444p", "rgb24"):
            raise ValueError(f"unknown pixel format {pixel_format}")
        self._format = pixel_format
        self._matrix = effective_matrix(matrix, 0, 0)
        self._reformatter = VideoReformatter()

    def __call__(self, rgb: np.ndarray) -> av.VideoFrame:
        """Converts an (H, W, 3) uint8 image."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        if self._format == "rgb24":
            return frame
        full = self._reformatter.reformat(
            frame,
            format="yuv444p",
            dst_colorspace=_SWSCALE_MATRIX[self._matrix],
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=_FLAGS,
            threads=_THREADS,
        )
        return full if self._format == "yuv444p" else _halve_chroma(full)


def _halve_chroma(full: av.VideoFrame) -> av.VideoFrame:
    """Converts 4:4:4 to 4:2:0 with the chroma samples where H.264 has them.

    They lie in the left column of each 2x2 block, between its rows. swscale puts them into the
    middle, which decoders show as a shift of the colours by half a pixel.
    """
    result = av.VideoFrame(full.width, full.height, "yuv420p")
    luma, *chroma = (_plane(plane) for plane in full.planes)
    _plane(result.planes[0])[:] = luma
    for plane, values in zip(result.planes[1:], chroma, strict=True):
        rows = values[::2].astype(np.uint16) + values[1::2]  # (H/2, W)
        middle = rows[:, ::2]  # (H/2, W/2)
        right = rows[:, 1::2]
        left = np.concatenate([middle[:, :1], right[:, :-1]], axis=1)
        _plane(plane)[:] = (left + 2 * middle + right + 4) >> 3
    result.colorspace, result.color_range = full.colorspace, full.color_range
    return result


def _plane(plane: av.video.plane.VideoPlane) -> np.ndarray:
    """Returns a writable (height, width) uint8 view of a plane without its padding."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
