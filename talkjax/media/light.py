"""How a frame's light and colours differ from those of the reference, and undoing it.

Editors fade to black or white with one gain and one offset, and lamps and cameras change the gain
of each channel. Both are measured on the upper face, which lies outside of the mask, and nothing
here depends on the lips. Images are crops of the whole face (`talkjax.media.crop`) with values from
0 to 255.

A model that is shown a dark frame beside a bright reference paints something in between. It
therefore sees the frame in the reference's light (`Light.remove`), and its output is brought back
to the light of the frame (`Light.apply`).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from talkjax.conventions import Box

UPPER_FACE = Box(0.08, 0.28, 0.42, 0.72)  # brows, eyes, the nose and some of the cheeks

# Smaller changes are left to the network and to `composite.match_colour`. Measured on 34 clips of
# ordinary footage, faces differ from another frame's by at most 0.086, 0.027 and 0.144.
_USUAL_LEVEL = 0.1  # all as natural logarithms of a ratio
_USUAL_CAST = 0.05
_USUAL_CONTRAST = 0.2
_DIM_LEVEL = 95.0  # the darkest face of those clips has 97
_MAX_GAIN = 8.0
_MIN_GAIN = 1 / 32

# Root mean square of the colour that does not follow from the luma, in levels: below the first the
# picture has one colour per luma (grey, sepia, duotone), above the second it is a colour picture.
# Compression leaves up to 0.8 in toned footage; the palest of 34 clips in colour has 3.0.
_TONED, _COLOURED = 0.9, 2.4
_KEPT = 0.6  # share of the reference's that a colour picture keeps; on those clips at least 0.7
_TONING_SIZE = 16  # pixels a side; fine colours are lost in subsampled chroma
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Tones(NamedTuple):
    """What is measured on the upper face.

    Attributes:
      mean: (3,) mean of each channel.
      spread: (3,) standard deviation of each channel.
      contrast: Standard deviation of the luma.
      detail: Root mean square of the luma's Laplacian over `contrast`; it falls where a picture is
        blurred, whatever its light.
      colour: Root mean square of R - luma and B - luma.
    """

    mean: np.ndarray
    spread: np.ndarray
    contrast: float
    detail: float
    colour: float

    @property
    def level(self) -> float:
        """Mean of all channels."""
        return float(self.mean.mean())


class Light(NamedTuple):
    """A change of light: `image * gain + offset`, both (3,) float32."""

    gain: np.ndarray
    offset: np.ndarray

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Brings (..., 3) values in the reference's light into the frame's."""
        return image * self.gain + self.offset

    def remove(self, image: np.ndarray) -> np.ndarray:
        """Brings (..., 3) values in the frame's light into the reference's, from 0 to 255."""
        return np.clip((image - self.offset) / self.gain, 0, 255)

    @property
    def is_usual(self) -> bool:
        """Whether there is nothing to change."""
        return bool((self.gain == 1).all() and (self.offset == 0).all())


SAME_LIGHT = Light(np.ones(3, np.float32), np.zeros(3, np.float32))


def measure(crop: np.ndarray) -> Tones:
    """Measures the upper face in a (size, size, 3) crop."""
    shown = UPPER_FACE.cut(crop).astype(np.float32)
    luma = shown @ _LUMA
    contrast = float(luma.std())
    laplacian = cv2.Laplacian(luma, cv2.CV_32F)
    detail = float(np.sqrt(np.square(laplacian).mean())) / (contrast + 0.5)
    colour = float(np.sqrt(np.square(shown[..., ::2] - luma[..., None]).mean()))
    return Tones(shown.mean((0, 1)), shown.std((0, 1)), contrast, detail, colour)


def expose(crop: np.ndarray) -> Light:
    """Returns the light in which a dim reference is shown to the networks, as `Light.remove` does.

    Networks have seen few faces in the dark. No more than the brightest percent becomes white.

    Args:
      crop: (size, size, 3) uint8 crop of the reference.
    """
    level = measure(crop).level
    gain = max(min(_DIM_LEVEL / (level + 1), _MAX_GAIN, 255 / (np.percentile(crop, 99) + 1)), 1.0)
    return Light(np.full(3, 1 / gain, np.float32), np.zeros(3, np.float32))


def compare(reference: Tones, frame: Tones) -> Light:
    """Returns the change of light from the reference to a frame.

    The change is continuous in its inputs and exactly none where they differ as little as they do
    in ordinary footage. A frame that is as dim as it lacks contrast has been multiplied; any other
    has an offset as well, as in a fade to white.
    """
    ratio = np.log((frame.mean + 0.25) / (reference.mean + 0.25))
    level = ratio.mean()
    contrast = np.log((frame.spread + 0.25) / (reference.spread + 0.25)) - ratio
    change = _unusual(level, _USUAL_LEVEL) + _unusual(
        ratio - level, _USUAL_CAST, np.abs(ratio - level).max()
    )
    contrast = _unusual(contrast, _USUAL_CONTRAST, np.abs(contrast).mean())
    gain = np.clip(np.exp(change + contrast), _MIN_GAIN, _MAX_GAIN)
    offset = reference.mean * (np.exp(change) - gain)
    return Light(gain.astype(np.float32), offset.astype(np.float32))


def _unusual(value: np.ndarray, usual: float, size: float | None = None) -> np.ndarray:
    """Returns 0 up to a usual size, and all of the value from half as much more on."""
    return value * _rise(float(abs(value) if size is None else size), usual, 1.5 * usual)


class Toning(NamedTuple):
    """The colours of a picture as a function of its luma.

    Attributes:
      curve: (3, 2) coefficients of 1, x and x^2, for x = luma / 255, of R - luma and B - luma.
      colour: Root mean square of the colour that does not follow from the luma.
      freedom: From 0, where all colours follow from the luma, to 1 in a colour picture.
    """

    curve: np.ndarray
    colour: float
    freedom: float

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Gives (..., 3) values the colours that the picture permits; unchanged at freedom 1."""
        if self.freedom >= 1:
            return image
        luma = image @ _LUMA
        red, blue = np.moveaxis(_powers(luma) @ self.curve.astype(np.float32), -1, 0)
        green = -(_LUMA[0] * red + _LUMA[2] * blue) / _LUMA[1]  # so that the luma stays
        toned = luma[..., None] + np.stack([red, green, blue], -1)
        return toned + np.float32(self.freedom) * (image - toned)


def measure_toning(
    crop: np.ndarray, change: Light = SAME_LIGHT, reference: Toning | None = None
) -> Toning:
    """Measures how colours follow from the luma in the unmasked part of a crop.

    Args:
      crop: (size, size, 3) of the frame, in its own light.
      change: The frame's light; what it dims does not count as grey.
      reference: The reference's colours, of which the frame may have lost a part.
    """
    cells = cv2.resize(crop, (_TONING_SIZE, _TONING_SIZE), interpolation=cv2.INTER_AREA)
    pixels = cells[: round(UPPER_FACE.y1 * _TONING_SIZE)].reshape(-1, 3).astype(np.float32)
    luma = pixels @ _LUMA
    colour = pixels[:, ::2] - luma[:, None]
    powers = _powers(luma)
    # A little of the identity keeps the fit of an even picture finite and its curve flat.
    gram = powers.T @ powers / len(powers) + 1e-4 * np.eye(3, dtype=np.float32)
    curve = np.linalg.solve(gram, powers.T @ colour / len(powers))
    left = float(np.sqrt(np.square(colour - powers @ curve).mean()) / change.gain.mean())
    freedom = _rise(left, _TONED, _COLOURED)
    if reference is not None:
        freedom *= min(left / (_KEPT * reference.colour + 1e-6), 1.0)
    return Toning(curve, left, freedom)


def _rise(value: float, low: float, high: float) -> float:
    """Rises smoothly from 0 at `low` to 1 at `high`."""
    x = min(max((value - low) / (high - low), 0.0), 1.0)
    return float(x * x * (3 - 2 * x))


def _powers(luma: np.ndarray) -> np.ndarray:
    x = luma.astype(np.float32) / 255
    return np.stack([np.ones_like(x), x, x * x], -1)
