"""Converts decoded pictures to RGB arrays and back: colours, pixel shape, alpha, orientation."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from talkjax.media.tone_map import ToneMap

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
_SCALE_FLAGS = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_THREADS = 1  # one frame is little work, and the decoder has threads already
# Pixels this close to square stay as they are, because nobody sees the difference; a ratio beyond
# the largest one is no picture's.
_SQUARE = 0.01
_MAX_ASPECT = 4


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


def square_size(width: int, height: int, aspect: Fraction, limit: int = 1 << 30) -> tuple[int, int]:
    """Returns the size in square pixels at which players show a picture: (width, height).

    The shorter direction of the pixels is resampled to more of them, so that no detail is lost,
    unless a side would exceed the limit.

    Args:
      width, height: Size in stored pixels.
      aspect: Width of a stored pixel over its height.
      limit: Largest side.
    """
    if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT or abs(aspect - 1) <= _SQUARE:
        return width, height
    wider = max(2, 2 * round(width * aspect / 2))
    higher = max(2, 2 * round(height / aspect / 2))
    if aspect > 1:
        return (wider, height) if wider <= limit else (width, higher)
    return (width, higher) if higher <= limit else (wider, height)


def has_alpha(frame: av.VideoFrame) -> bool:
    """Returns whether a picture's format can hold transparent pixels."""
    kind = frame.format
    return kind.has_palette or any(component.is_alpha for component in kind.components)


def flatten(rgba: np.ndarray, background: int) -> np.ndarray:
    """Shows a picture on a grey level: (H, W, 4) uint8, not premultiplied -> (H, W, 3) uint8."""
    alpha = rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[..., :3])
    alpha = alpha.astype(np.uint16)
    mixed = rgba[..., :3] * alpha + background * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


class RgbReader:
    """Converts decoded pictures of any pixel format to upright 8-bit RGB arrays of one size.

    The arrays are what a player shows: with square pixels, HDR as SDR (`ToneMap`), and transparent
    pixels on a background.
    """

    def __init__(
        self,
        width: int,
        height: int,
        matrix_tag: int = MATRIX_UNSPECIFIED,
        *,
        shown: tuple[int, int] | None = None,
        tone_map: ToneMap | None = None,
        background: int = 0,
    ) -> None:
        """Creates a converter.

        Args:
          width, height: Size of the stored pictures in pixels.
          matrix_tag: The stream's matrix tag, which is used for untagged frames.
          shown: Size of the arrays before rotation (`square_size`), or None for the stored size.
          tone_map: For HDR pictures.
          background: Grey level behind transparent pixels.
        """
        self._size = (width, height)
        self._shown = shown or self._size
        self._flags = _FLAGS if self._shown == self._size else _SCALE_FLAGS
        self._tag = matrix_tag
        self._tone_map = tone_map
        self._background = background
        self._reformatter = VideoReformatter()
        self._to_rgb = VideoReformatter()

    def __call__(
        self, frame: av.VideoFrame, how: tuple[bool, bool, bool] = (False, False, False)
    ) -> np.ndarray:
        """Converts a frame, turned by `how` (see `orientation`), to (H, W, 3) uint8."""
        if self._tone_map is not None:
            picture = self._tone_map(self._scaled(frame, ToneMap.FORMAT))
            image = self._to_rgb.reformat(picture, format="rgb24", threads=_THREADS).to_ndarray()
        elif has_alpha(frame):
            image = flatten(self._scaled(frame, "rgba").to_ndarray(), self._background)
        else:
            image = self._scaled(frame, "rgb24").to_ndarray()
        return orient(image, how) if any(how) else np.ascontiguousarray(image)

    def is_transparent(self, frame: av.VideoFrame) -> bool:
        """Returns whether a frame has transparent pixels."""
        if not has_alpha(frame):
            return False
        return bool(self._scaled(frame, "rgba").to_ndarray()[..., 3].min() < 255)

    def _scaled(self, frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
        tag = frame.colorspace if frame.colorspace != MATRIX_UNSPECIFIED else self._tag
        return self._reformatter.reformat(
            frame,
            width=self._shown[0],
            height=self._shown[1],
            format=pixel_format,
            src_colorspace=_SWSCALE_MATRIX[effective_matrix(tag, *self._size)],
            dst_color_range=ColorRange.JPEG,
            interpolation=self._flags,
            threads=_THREADS,
        )


class YuvWriter:
    """Converts RGB arrays to pictures for an encoder, with a given matrix and limited range."""

    def __init__(self, pixel_format: str, matrix: int) -> None:
        """Creates a converter.

        Args:
          pixel_format: yuv420p, in which the last column or row of an odd size is repeated,
            because there are no odd sizes; yuv444p or rgb24.
          matrix: One of the MATRIX constants.
        """
        if pixel_format not in ("yuv420p", "yuv444p", "rgb24"):
            raise ValueError(f"unknown pixel format {pixel_format}")
        self._format = pixel_format
        self._matrix = effective_matrix(matrix, 0, 0)
        self._reformatter = VideoReformatter()

    def __call__(self, rgb: np.ndarray) -> av.VideoFrame:
        """Converts an (H, W, 3) uint8 image."""
        odd_height, odd_width = (side % 2 for side in rgb.shape[:2])
        if self._format == "yuv420p" and (odd_height or odd_width):
            rgb = cv2.copyMakeBorder(rgb, 0, odd_height, 0, odd_width, cv2.BORDER_REPLICATE)
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
