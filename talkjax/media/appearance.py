"""What a person looks like in one scene, and what is special about a frame of it.

One `FaceAppearance` belongs to one scene. It is asked for the `Look` of every frame, in any order,
before the mouth is generated; pasting needs the `Look` again.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from talkjax.media import light

THUMBNAIL = 64  # side of the crop in which faces are compared


class Look(NamedTuple):
    """What is special about a frame.

    Attributes:
      light: From the reference's light to the frame's.
      toning: The colours of the frame, in its own light.
    """

    light: light.Light
    toning: light.Toning


class FaceAppearance:
    """The person in the reference image of a scene.

    Attributes:
      reference: (size, size, 3) uint8 crop of the reference as the networks should see it: as it
        is, but brighter if it is dim.
    """

    def __init__(self, reference: np.ndarray) -> None:
        """Measures the reference.

        Args:
          reference: (size, size, 3) uint8 crop, as for `look`.
        """
        exposure = light.expose(reference)
        if not exposure.is_usual:
            reference = np.rint(exposure.remove(reference)).astype(np.uint8)
        self.reference = reference
        small = thumbnail(reference)
        self._tones, self._toning = light.measure(small), light.measure_toning(small)

    def look(self, crop: np.ndarray) -> Look:
        """Measures a frame.

        Args:
          crop: (size, size, 3) uint8 crop of the whole face (`crop.warp_crop`).
        """
        small = thumbnail(crop)
        change = light.compare(self._tones, light.measure(small))
        return Look(change, light.measure_toning(small, change, self._toning))


def thumbnail(crop: np.ndarray) -> np.ndarray:
    """Reduces a (size, size, 3) crop to `THUMBNAIL` pixels."""
    return cv2.resize(crop, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
