"""Things before a person's mouth: hands, microphones, cups, paper.

The model of an unoccluded face is the range of colours that every place of its crop has taken,
including its neighbours' within `_REACH`, in the frames from which references are chosen. Talking,
blinking and nodding stay within that range; most things that come before a face do not. Frames in
which something is before the face are recognised by their distance from the median face and are
left out of the range, so an occluder must be absent from most of these frames.

A hand has skin's colours, but it hides the lips: where the mouth is never as even as it is now, it
is covered. Hands beside the lips, and hands before lips of skin's colour, are not noticed: the
model misses occluders rather than finding any where there are none. Images are thumbnails of
the crop (`appearance.THUMBNAIL`) in the reference's light.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from talkjax.conventions import MASK, Box

_REACH = 2  # pixels of the thumbnail by which parts of a face move between frames
# Distances are in levels of luma, R - luma and B - luma; areas are shares of the mask. Unoccluded
# footage beyond the frames of the model reaches 0.021 at distance 15; a microphone as wide as the
# mouth covers 0.12, a sheet of paper 0.6.
_FAR, _NEAR = 20.0, 10.0  # an occluder is found by the first and reaches as far as the second
_LEAST = 0.04  # of the mask, in one piece
_LEAST_AGAIN = 0.02  # right after a frame with an occluder
_FOREIGN, _LEAST_FOREIGN = 40.0, 0.05  # frames that differ so from the median face are left out
_GAIN, _LEAST_GAIN, _ROUNDS = 25.0, 0.02, 2  # and let in again if they fit the range of the others
_MARGIN = 4  # frames around those that are left out
_MIN_FRAMES = 5
_MAX_FRAMES = 250
# Lips are redder than the skin around them: the largest R - G of the mouth beyond its median. A
# hand before them leaves 0.4 to 2.2 levels, bare lips between 4 and 40. Lips of which most frames
# show less than the first are not looked for; others are gone below a share of their least.
_LIPS = Box(0.56, 0.34, 0.82, 0.66)
_REDNESS, _LIPS_GONE, _LIPS_RARE = 6.0, 0.45, 0.15
_MOUTH = Box(0.58, 0.36, 0.78, 0.64)
_LOWER_FACE = Box(0.4375, 0.3, 0.78, 0.7)
_FADE = 0.6  # weight that is left in the next frame, where an occluder goes away
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_KERNEL = np.ones((2 * _REACH + 1, 2 * _REACH + 1), np.uint8)

_Range = tuple[np.ndarray, np.ndarray]


class OcclusionModel:
    """Finds what is before one person's face, frame by frame, in the order of the output."""

    def __init__(self, thumbnails: Sequence[np.ndarray]) -> None:
        """Learns the unoccluded face.

        Args:
          thumbnails: (size, size, 3) images of the face; nothing is ever found if they are few.
        """
        self._range: _Range | None = None
        self._last: np.ndarray | None = None
        self._redness = 0.0  # below which the lips are hidden
        if len(thumbnails) >= _MIN_FRAMES:
            shown = np.stack(thumbnails[:: -(-len(thumbnails) // _MAX_FRAMES)])
            images = _opponent(shown)
            clean = _unoccluded(images)
            red = np.array([_redness(image) for image in shown[clean]])
            least = np.quantile(red[red >= _LIPS_RARE * np.median(red)], 0.05)
            if least >= _REDNESS:
                self._redness = _LIPS_GONE * float(least)
            self._range = _range(images[clean])

    def cover(self, thumbnail: np.ndarray) -> np.ndarray | None:
        """Finds what is before the face in the next frame.

        Args:
          thumbnail: (size, size, 3).

        Returns:
          (size, size) float32 weight of the frame's own pixels, from 0 to 1, or None if it is 0
          everywhere.
        """
        if self._range is None:
            return None
        distance = _distance(_opponent(thumbnail), self._range)
        found = _grow(distance, _LEAST if self._last is None else _LEAST_AGAIN)
        if _redness(thumbnail) < self._redness:
            found = np.ones(distance.shape, np.float32)
        if found is None and self._last is None:
            return None
        cover = np.zeros(distance.shape, np.float32) if found is None else found
        if self._last is not None:
            cover = np.maximum(cover, _FADE * self._last)
        self._last = cover if cover.max() > 0.05 else None
        return self._last


def hides_mouth(cover: np.ndarray | None) -> bool:
    """Returns whether most of the mouth is hidden, so that a new one would hardly be seen."""
    return cover is not None and float(_MOUTH.cut(cover[..., None]).mean()) > 0.5


def touches_face(cover: np.ndarray | None) -> bool:
    """Returns whether a part of the lower face is covered, and not only its surroundings."""
    return cover is not None and float(_LOWER_FACE.cut(cover[..., None]).mean()) > 0.03


def unoccluded(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """Returns which of N thumbnails in the same light show nothing before the face: (N,) bool."""
    return _unoccluded(_opponent(np.stack(thumbnails)))


def _unoccluded(images: np.ndarray) -> np.ndarray:
    middle = np.median(images, axis=0)
    around = cv2.erode(middle, _KERNEL), cv2.dilate(middle, _KERNEL)
    good = np.array([_largest(_distance(i, around) > _FOREIGN) < _LEAST_FOREIGN for i in images])
    if not good.any():
        return np.ones(len(images), bool)
    for _ in range(_ROUNDS):
        if good.all():
            break
        known = _range(images[good])
        good |= [_largest(_distance(i, known) > _GAIN) < _LEAST_GAIN for i in images]
    # Things come and go through the mask's border, so the frames next to them are not clean either.
    clean = good.copy()
    for by in range(1, _MARGIN + 1):
        clean[by:] &= good[:-by]
        clean[:-by] &= good[by:]
    return clean if clean.any() else good


def _redness(image: np.ndarray) -> float:
    """Returns how much redder the reddest part of the mouth is than most of it, in levels."""
    part = _LIPS.cut(image).astype(np.float32)
    smooth = cv2.GaussianBlur(part[..., 0] - part[..., 1], (0, 0), 1.0)
    return float(np.percentile(smooth, 95) - np.median(smooth))


def _opponent(images: np.ndarray) -> np.ndarray:
    """Converts (..., 3) RGB to luma, R - luma and B - luma, float32."""
    images = images.astype(np.float32)
    luma = images @ _LUMA
    return np.stack([luma, images[..., 0] - luma, images[..., 2] - luma], -1)


def _range(images: np.ndarray) -> _Range:
    """Returns the lowest and highest values around every pixel, without the rarest."""
    low, high = np.quantile(images, [0.02, 0.98], axis=0).astype(np.float32)
    return cv2.erode(low, _KERNEL), cv2.dilate(high, _KERNEL)


def _distance(image: np.ndarray, known: _Range) -> np.ndarray:
    """Returns how far the pixels of the mask are from their range; 0 outside of the mask."""
    y0, x0, y1, x1 = MASK.pixels(len(image))
    part = np.s_[y0:y1, x0:x1]
    beyond = np.maximum(np.maximum(known[0][part] - image[part], image[part] - known[1][part]), 0)
    out = np.zeros(image.shape[:2], np.float32)
    out[part] = np.sqrt(np.square(beyond).sum(-1))
    return out


def _largest(found: np.ndarray) -> float:
    """Returns the area of the largest piece as a share of the mask."""
    count, _, statistics, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8))
    return statistics[1:, cv2.CC_STAT_AREA].max() / _mask_area(len(found)) if count > 1 else 0.0


def _grow(distance: np.ndarray, least: float) -> np.ndarray | None:
    """Returns the weight of the pieces that are large enough, with soft edges."""
    far = (distance > _FAR).astype(np.uint8)
    if far.sum() < least * _mask_area(len(far)):
        return None
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(far)
    large = statistics[:, cv2.CC_STAT_AREA] >= least * _mask_area(len(far))
    large[0] = False
    if not large.any():
        return None
    seeds = large[labels]
    _, pieces = cv2.connectedComponents((distance > _NEAR).astype(np.uint8))
    kept = np.zeros(pieces.max() + 1, bool)
    kept[pieces[seeds]] = True
    found = kept[pieces].astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    return cv2.blur(cv2.dilate(found, np.ones((3, 3), np.uint8)).astype(np.float32), (3, 3))


def _mask_area(size: int) -> int:
    y0, x0, y1, x1 = MASK.pixels(size)
    return (y1 - y0) * (x1 - x0)
