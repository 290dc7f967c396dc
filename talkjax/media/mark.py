"""A visible mark: a short text in a corner of a frame."""

from __future__ import annotations

import math

import cv2
import numpy as np

from talkjax.errors import UserError

MOST_CHARACTERS = 60
_HEIGHT = 0.028  # of capitals, as a share of the frame's shorter side
_LEAST_PX = 9  # of capitals; smaller ones cannot be read
_WIDEST = 0.9  # of the box, as a share of the frame's width
_PADDING, _MARGIN = 0.7, 0.8  # within the box and around it, in heights of capitals
_BOX, _OPACITY = 0, 0.6  # black behind white letters, so that they are seen on any picture
_FONT, _DRAWN_PX = cv2.FONT_HERSHEY_SIMPLEX, 120


def check(text: str) -> None:
    """Checks that a text can be written.

    Raises:
      UserError: It is too long, or has characters that the font lacks.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"mark={text}: is too long; give at most {MOST_CHARACTERS} characters")
    if not (text.isascii() and text.isprintable()) or (text and not text.strip()):
        raise UserError(f"mark={text}: cannot be written; give letters, digits and signs of ASCII")


class Mark:
    """A text in the lower right corner of frames of one size.

    Its size follows from the frame's: 14 px high capitals at 512x512 px, 30 px at 1920x1080. A text
    that would be wider than the frame is written smaller.
    """

    def __init__(self, text: str, width: int, height: int) -> None:
        """Renders the text.

        Args:
          text: The text (`check`); "" draws nothing.
          width, height: Size of the frames in pixels.

        Raises:
          UserError: The frames are too small to read the text in them.
        """
        self._place: tuple[slice, slice] | None = None
        if not text:
            return
        drawn = _draw(text)  # (h, w) in [0, 1], capitals of _DRAWN_PX
        capitals = max(_HEIGHT * min(width, height), _LEAST_PX)
        room = _WIDEST * width / (drawn.shape[1] / _DRAWN_PX + 2 * _PADDING)
        capitals = min(capitals, room)
        if capitals < _LEAST_PX or 4 * capitals > height:
            raise UserError(
                f"mark={text}: cannot be read in frames of {width}x{height}; give a shorter text, "
                "or leave it out"
            )
        scale = capitals / _DRAWN_PX
        size = math.ceil(drawn.shape[1] * scale), math.ceil(drawn.shape[0] * scale)
        letters = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
        padding, margin = round(_PADDING * capitals), round(_MARGIN * capitals)
        letters = np.pad(letters, padding)[..., None]
        # A frame becomes keep * frame + add.
        self._keep = (1 - _OPACITY) * (1 - letters)
        self._add = 255 * letters + _OPACITY * _BOX * (1 - letters)
        bottom, right = height - margin, width - margin
        self._place = (
            slice(bottom - letters.shape[0], bottom), slice(right - letters.shape[1], right),
        )  # fmt: skip

    def draw(self, rgb: np.ndarray) -> np.ndarray:
        """Returns a frame with the mark; the given one is not changed.

        Args:
          rgb: (H, W, 3) uint8.

        Returns:
          (H, W, 3) uint8; the same array where there is no mark.
        """
        if self._place is None:
            return rgb
        marked = rgb.copy()
        marked[self._place] = np.rint(self._keep * rgb[self._place] + self._add)
        return marked


def _draw(text: str) -> np.ndarray:
    """Draws a text with capitals of `_DRAWN_PX`: (h, w) float32 in [0, 1], cut to its lines."""
    scale = cv2.getFontScaleFromHeight(_FONT, _DRAWN_PX, 1)
    thickness = _DRAWN_PX // 8
    (width, height), below = cv2.getTextSize(text, _FONT, scale, thickness)
    canvas = np.zeros((2 * height + 2 * below, width + 2 * _DRAWN_PX), np.uint8)
    start = _DRAWN_PX, height + below
    cv2.putText(canvas, text, start, _FONT, scale, 255, thickness, cv2.LINE_AA)
    rows, columns = (np.flatnonzero(canvas.any(axis=axis)) for axis in (1, 0))
    inside = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return inside.astype(np.float32) / 255
