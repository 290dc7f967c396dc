"""What a person looks like in one scene, and what is special about a frame of it.

One `FaceAppearance` belongs to one scene. It is asked for the `Look` of every frame, in the order
of the output, before the mouth is generated; pasting needs the `Look` again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from talkjax import head_pose
from talkjax.conventions import Box
from talkjax.media import light
from talkjax.media.occlusion import OcclusionModel
from talkjax.media.overlay import Overlay

THUMBNAIL = 64  # side of the crop in which faces are compared

# A face is taken for gone if its eyes, brows and nose correlate less with all examples of the
# person, or if less of them is inside of the picture. Real faces, turned as well, reach 0.55.
_LEAST_LIKENESS, _LEAST_INSIDE = 0.4, 0.6
_BACK = 0.08  # by how much both must be exceeded until it is taken for present again
_UPPER_HEAD = Box(0.06, 0.2, 0.42, 0.8)
_SHIFT = 3  # pixels of the thumbnail by which an example may be beside the face
_EXAMPLES = 4


class Look(NamedTuple):
    """What is special about a frame.

    Attributes:
      light: From the reference's light to the frame's.
      toning: The colours of the frame, in its own light.
      cover: (64, 64) weight of what is before the mouth (`occlusion`), over the crop, or None.
      present: Whether the person is there. A face detector goes on for some frames where someone
        has left the picture or turned away.
      overlay: A caption that lies over the face in this scene, or None.
    """

    light: light.Light
    toning: light.Toning
    cover: np.ndarray | None = None
    present: bool = True
    overlay: Overlay | None = None


class FaceAppearance:
    """The person in the reference image of a scene.

    Attributes:
      reference: (size, size, 3) uint8 crop of the reference as the networks should see it: as it
        is, but brighter if it is dim.
    """

    def __init__(
        self,
        reference: np.ndarray,
        thumbnails: Sequence[np.ndarray] = (),
        overlay: Overlay | None = None,
    ) -> None:
        """Measures the reference.

        Args:
          reference: (size, size, 3) uint8 crop, as for `look`.
          thumbnails: (64, 64, 3) uint8 crops of the scene's first frames, from which occlusion is
            known; without them, none is found.
          overlay: A caption over the scene; it is erased from `reference` already.
        """
        self._overlay = overlay
        exposure = light.expose(reference)
        if not exposure.is_usual:
            reference = np.rint(exposure.remove(reference)).astype(np.uint8)
        self.reference = reference
        small = thumbnail(reference)
        self._tones, self._toning = light.measure(small), light.measure_toning(small)
        lit = [_lit(t, light.compare(self._tones, light.measure(t))) for t in thumbnails]
        self._occlusion = OcclusionModel(lit)
        step = -(-len(lit) // _EXAMPLES) if lit else 1
        self._examples = [_UPPER_HEAD.cut(_luma(image)) for image in (small, *lit[::step])]
        self._present = True

    def look(self, crop: np.ndarray, inside: float = 1.0) -> Look:
        """Measures a frame.

        Args:
          crop: (size, size, 3) uint8 crop of the whole face (`crop.warp_crop`).
          inside: Share of the upper face that is inside of the picture (`share_inside`).
        """
        small = thumbnail(crop)
        change = light.compare(self._tones, light.measure(small))
        toning = light.measure_toning(small, change, self._toning)
        back = 0.0 if self._present else _BACK
        self._present = inside >= _LEAST_INSIDE + back and (
            self._likeness(small) >= _LEAST_LIKENESS + back
        )
        cover = self._occlusion.cover(_lit(small, change))
        return Look(change, toning, cover, self._present, self._overlay)

    def _likeness(self, small: np.ndarray) -> float:
        """Returns the highest correlation with an example, whatever the light."""
        y0, x0, y1, x1 = _UPPER_HEAD.pixels(THUMBNAIL)
        around = _luma(small)[y0 - _SHIFT : y1 + _SHIFT, x0 - _SHIFT : x1 + _SHIFT]
        return max(
            float(cv2.matchTemplate(around, example, cv2.TM_CCOEFF_NORMED).max())
            for example in self._examples
        )

    def clear(self, crop: np.ndarray, look: Look) -> np.ndarray:
        """Brings a crop into the reference's light, with the reference where something covers it.

        The networks then see the person and not the occluder.
        """
        image = _lit(crop, look.light)
        if look.cover is None:
            return image
        cover = cv2.resize(look.cover, crop.shape[1::-1])[..., None]
        return image + (cover > 0.05) * (self.reference - image.astype(np.float32))

    def relight(self, crop: np.ndarray) -> np.ndarray:
        """Brings a reference of the scene, of any size, into the light of `reference`.

        Returns:
          (size, size, 3) uint8.
        """
        lit = _lit(crop, light.compare(self._tones, light.measure(thumbnail(crop))))
        return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def thumbnail(crop: np.ndarray) -> np.ndarray:
    """Reduces a (size, size, 3) crop to `THUMBNAIL` pixels."""
    return cv2.resize(crop, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def share_inside(transform: np.ndarray, shape: tuple[int, ...]) -> float:
    """Returns the share of the upper face that is inside of a (H, W, ...) frame.

    Args:
      transform: (2, 3) transform from frame to crop coordinates.
      shape: Shape of the frame.
    """
    box = _UPPER_HEAD
    x, y = np.meshgrid(np.linspace(box.x0, box.x1, 16), np.linspace(box.y0, box.y1, 8))
    points = np.stack([x, y], -1).reshape(1, -1, 2)
    at = head_pose.apply_transforms(points, head_pose.invert(transform)[None])[0]
    return float(((at >= 0) & (at <= shape[1::-1])).all(-1).mean())


def _luma(image: np.ndarray) -> np.ndarray:
    """Returns the smoothed luma of an RGB image: (H, W, 1) float32."""
    grey = cv2.cvtColor(np.clip(image, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    return cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)[..., None]


def _lit(image: np.ndarray, change: light.Light) -> np.ndarray:
    return image if change.is_usual else change.remove(image)
