"""What every part of talkjax must agree on: landmarks, clocks, mel parameters, boxes and masks.

This module imports NumPy alone, so that data pipelines, training and sampling can share it.

Landmarks: Zhong et al. (arXiv 2408.05416, section 3.1) split a face's landmarks into *pose* (upper
oval, brows, nose and eyes, which the head moves) and *content* (jaw and lips, which speech moves).
The order used everywhere is pose (74), jaw (17), lips (40); `ALL` lists it as indices into
FaceMesh's 478 points.

Clocks: audio is 16 kHz mono, log-mel frames come at 100 Hz, and landmarks at 25 Hz. A *tick* is one
step of the landmark clock. Tick k is at k / 25 s, which is mel frame 4 k.

Boxes: a crop is the unit square, y down, whatever its size in pixels. The *region* is the part of
the crop that the image models see, the *mask* the part that they fill in.
"""

import math
from typing import NamedTuple

import numpy as np

# ---- landmarks ----------------------------------------------------------------------------------

# Every region runs along its outline, so that consecutive indices are neighbours on the face.
UPPER_OVAL = (162, 127, 234, 93, 323, 454, 356, 389)
LEFT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
RIGHT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
NOSE_BRIDGE = (168, 6, 197, 195, 5)
NOSE_LOWER = (48, 115, 220, 45, 4, 275, 440, 344, 278)
LEFT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
RIGHT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
JAW = (132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361)
# fmt: off
OUTER_LIPS = (
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291,  # upper, from the right corner of the mouth
    375, 321, 405, 314, 17, 84, 181, 91, 146,  # lower, back
)
INNER_LIPS = (
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308,
    324, 318, 402, 317, 14, 87, 178, 88, 95,
)
# fmt: on

POSE = UPPER_OVAL + LEFT_BROW + RIGHT_BROW + NOSE_BRIDGE + NOSE_LOWER + LEFT_EYE + RIGHT_EYE
LIPS = OUTER_LIPS + INNER_LIPS
CONTENT = JAW + LIPS
ALL = POSE + CONTENT

NUM_POSE, NUM_JAW, NUM_LIPS = len(POSE), len(JAW), len(LIPS)
NUM_CONTENT, NUM_LANDMARKS = len(CONTENT), len(ALL)
FACEMESH_POINTS = 478

# Where parts lie on the landmark axis of (..., 131, 2) arrays.
LEFT_EYE_SLICE = slice(NUM_POSE - 32, NUM_POSE - 16)
RIGHT_EYE_SLICE = slice(NUM_POSE - 16, NUM_POSE)
LIPS_SLICE = slice(NUM_POSE + NUM_JAW, NUM_LANDMARKS)

# The points a crop may be fitted to: they move with the skull and not with speech. They are a
# subset of POSE, so no crop, mask or normalisation can see the jaw or the lips.
RIGID = LEFT_EYE + RIGHT_EYE + LEFT_BROW + RIGHT_BROW + NOSE_BRIDGE


def positions(points: tuple[int, ...], within: tuple[int, ...] = ALL) -> np.ndarray:
    """Places of FaceMesh indices `points` in the sequence `within`, (len(points),) int64."""
    place = {index: i for i, index in enumerate(within)}
    return np.array([place[index] for index in points], np.int64)


def _mirror_order() -> np.ndarray:
    """The order of `ALL` in which a face that is mirrored has each point where it belongs."""
    upper = len(OUTER_LIPS) // 2 + 1  # both corners and what lies between them

    def lips(points: tuple[int, ...]) -> tuple[int, ...]:
        return points[:upper][::-1] + points[upper:][::-1]

    parts = (
        UPPER_OVAL[::-1], RIGHT_BROW, LEFT_BROW, NOSE_BRIDGE, NOSE_LOWER[::-1], RIGHT_EYE,
        LEFT_EYE, JAW[::-1], lips(OUTER_LIPS), lips(INNER_LIPS),
    )  # fmt: skip
    return positions(tuple(index for part in parts for index in part))


MIRROR = _mirror_order()


def select(mesh: np.ndarray, points: tuple[int, ...] = ALL) -> np.ndarray:
    """Picks the (x, y) of `points` from (..., 478, 2 or 3) FaceMesh output: (..., K, 2)."""
    return mesh[..., list(points), :2]


def interocular(landmarks: np.ndarray) -> np.ndarray:
    """Distance between the eye centres of (..., 131, 2) landmarks, in their unit: (...)."""
    left = landmarks[..., LEFT_EYE_SLICE, :].mean(-2)
    right = landmarks[..., RIGHT_EYE_SLICE, :].mean(-2)
    return np.linalg.norm(right - left, axis=-1)


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """Inner-lip gap of (..., 131, 2) landmarks over the interocular distance: (...)."""
    upper, lower = positions((13, 14))
    gap = np.linalg.norm(landmarks[..., upper, :] - landmarks[..., lower, :], axis=-1)
    return gap / interocular(landmarks)


def spread_faces(landmarks: np.ndarray, first: int, count: int) -> list[int]:
    """Chooses faces that differ as much as possible in the shape of their lips, and in pose.

    Every face after the first is the one that is farthest from those chosen before. The distance
    is the mean difference of the lips, whatever their place, plus half that of the pose.

    Args:
      landmarks: (N, 131, 2) crop coordinates.
      first: Number of the first face.
      count: Number of faces to choose; if there are fewer, some are chosen again.

    Returns:
      Numbers of the faces, the first one first.
    """
    lips, pose = landmarks[:, LIPS_SLICE], landmarks[:, :NUM_POSE]
    lips = lips - lips.mean(1, keepdims=True)
    chosen, nearest = [first], np.full(len(landmarks), np.inf)
    while len(chosen) < count:
        distance = np.abs(lips - lips[chosen[-1]]).mean((1, 2))
        distance += 0.5 * np.abs(pose - pose[chosen[-1]]).mean((1, 2))
        nearest = np.minimum(nearest, distance)
        chosen.append(int(nearest.argmax()))
    return chosen


# ---- clocks and log-mel spectrograms ------------------------------------------------------------

SAMPLE_RATE = 16_000  # Hz, of mono audio
TICKS_PER_SECOND = 25
MELS_PER_SECOND = 100
MELS_PER_TICK = MELS_PER_SECOND // TICKS_PER_SECOND
NUM_MELS = 80
MEL_WINDOW = 16  # mel frames around a tick, which the landmark network hears
MEL_MIN_HZ, MEL_MAX_HZ = 55.0, 7600.0
MEL_FLOOR = math.log(1e-5)  # silence, and everything outside of a clip


def mel_frequencies(low: float = MEL_MIN_HZ, high: float = MEL_MAX_HZ) -> np.ndarray:
    """Centre frequencies of 80 mel bins on Slaney's scale between `low` and `high`: (80,) Hz.

    The scale is linear below 1 kHz (3 mels in 200 Hz) and logarithmic above (27 mels for a factor
    of 6.4), as in `librosa.filters.mel`.
    """

    def to_mel(hertz: float) -> float:
        if hertz < 1000.0:
            return hertz * 3.0 / 200.0
        return 15.0 + math.log(hertz / 1000.0) * 27.0 / math.log(6.4)

    mels = np.linspace(to_mel(low), to_mel(high), NUM_MELS + 2)[1:-1]
    return np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * 6.4 ** ((mels - 15.0) / 27.0))


def mel_windows(mel: np.ndarray, ticks: int | np.ndarray) -> np.ndarray:
    """Cuts the mel window of each landmark tick.

    Tick k is at k / 25 s, which is mel frame 4k, and its window is mel[4k - 8 : 4k + 8]. Outside of
    the spectrogram there is silence, log(1e-5).

    Args:
      mel: (M, 80) float32 log-mel.
      ticks: Number of ticks T (0 ... T-1), or the (T,) tick numbers, which may be fractions or
        negative.

    Returns:
      (T, 16, 80) float32.
    """
    numbers = np.arange(ticks) if np.ndim(ticks) == 0 else np.asarray(ticks)
    middle = np.round(numbers * MELS_PER_TICK).astype(np.int64)
    index = middle[:, None] + np.arange(-(MEL_WINDOW // 2), MEL_WINDOW // 2)  # (T, 16)
    inside = (index >= 0) & (index < len(mel))
    windows = np.full((*index.shape, NUM_MELS), MEL_FLOOR, np.float32)
    windows[inside] = mel[index[inside]]
    return windows


# ---- boxes and masks ----------------------------------------------------------------------------


class Box(NamedTuple):
    """A rectangle in crop coordinates, y down."""

    y0: float
    x0: float
    y1: float
    x1: float

    def pixels(self, size: int) -> tuple[int, int, int, int]:
        """(y0, x0, y1, x1) in whole pixels of a crop of `size` px."""
        y0, x0, y1, x1 = (round(v * size) for v in self)
        return y0, x0, y1, x1

    def cut(self, crop: np.ndarray) -> np.ndarray:
        """The box's part of (..., size, size, C) crops, a view."""
        y0, x0, y1, x1 = self.pixels(crop.shape[-2])
        return crop[..., y0:y1, x0:x1, :]


FULL = Box(0.0, 0.0, 1.0, 1.0)
# From the nose's base to under the chin of an open mouth, jaw corner to jaw corner.
MASK = Box(0.4375, 0.125, 0.9375, 0.875)
# The mask and one latent cell (at f = 8 of 128 px) around it.
MOUTH_REGION = Box(0.375, 0.0625, 1.0, 0.9375)


def masked_slices(region: Box, mask: Box, size: int) -> tuple[slice, slice]:
    """Rows and columns of a region image that the mask hides.

    Args:
      region: what the image shows.
      mask: what is hidden; the part outside of the region does not count.
      size: side of the whole crop, px.
    """
    top, left, bottom, right = Box(*region).pixels(size)
    y0, x0, y1, x1 = Box(*mask).pixels(size)
    rows = slice(max(y0 - top, 0), max(min(y1, bottom) - top, 0))
    return rows, slice(max(x0 - left, 0), max(min(x1, right) - left, 0))


def masked_box(region: Box, mask: Box, size: int) -> Box:
    """What `masked_slices` cuts out, in crop coordinates; the arguments are the same."""
    rows, columns = masked_slices(region, mask, size)
    top, left, _, _ = Box(*region).pixels(size)
    y0, y1, x0, x1 = top + rows.start, top + rows.stop, left + columns.start, left + columns.stop
    return Box(y0 / size, x0 / size, y1 / size, x1 / size)


def mask_region(images: np.ndarray, region: Box, mask: Box, size: int) -> np.ndarray:
    """Copies (..., H, W, 3) region images in [-1, 1] with the mask's pixels set to 0 (mid-grey).

    Args:
      images: float; H and W are the region's size in a crop of `size` px.
      region, mask, size: see `masked_slices`.
    """
    out = images.copy()
    rows, columns = masked_slices(region, mask, size)
    out[..., rows, columns, :] = 0.0
    return out


def latent_mask(region: Box, mask: Box, size: int, factor: int) -> np.ndarray:
    """Which latent cells the mask touches: (h, w) float32, 1 or 0.

    Args:
      region, mask, size: see `masked_slices`; `factor` must divide the region's sides.
      factor: downsampling factor of the autoencoder.
    """
    top, left, bottom, right = Box(*region).pixels(size)
    hidden = np.zeros((bottom - top, right - left), np.float32)
    hidden[masked_slices(region, mask, size)] = 1.0
    h, w = hidden.shape[0] // factor, hidden.shape[1] // factor
    return hidden.reshape(h, factor, w, factor).max((1, 3))


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 images as float32 in [-1, 1]; a NumPy or JAX array, and the result is of the same."""
    return images.astype(np.float32) / 127.5 - 1.0
