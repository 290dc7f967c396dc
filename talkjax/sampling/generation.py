"""Generates a batch of regions: warped on the host, and painted by the denoiser on its devices.

The references are warped once, at the template's resolution, on the host, where that is cheap. The
denoiser is shown them at its own resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from talkjax.conventions import to_float
from talkjax.media import reference_warp

if TYPE_CHECKING:
    from talkjax.sampling.sampler import Sampler

# (shown, landmarks) -> regions, see `Sampler.generate_batch`.
Painter = Callable[[np.ndarray, np.ndarray], Any]


class Warped(NamedTuple):
    """What the mask hides, warped out of the references.

    Attributes:
      sharp: (B, h, w, 3) uint8 at the template's resolution.
      shown: (B, h', w', 3) uint8 at the networks' resolution.
    """

    sharp: np.ndarray
    shown: np.ndarray


class Generated(NamedTuple):
    """A batch of generated frames.

    Attributes:
      regions: (B, H, W, 3) uint8 regions with a new mouth, possibly still being computed; None
        without denoising steps.
      warped: What the networks were shown; None where nothing is warped.
    """

    regions: Any
    warped: Warped | None


def generate(
    sampler: Sampler,
    masked: np.ndarray,
    landmarks: np.ndarray,
    references: tuple[np.ndarray, np.ndarray] | None,
    paint: Painter | None,
) -> Generated:
    """Generates B frames; it does not wait for the devices.

    Args:
      sampler: Its networks' sizes and boxes are used.
      masked: (B, H, W, 3) float32 regions in [-1, 1] without the mouth.
      landmarks: (B, 131, 2) target landmarks, crop coordinates.
      references: (R, h, w, 3) uint8 references at the template's resolution and their (R, 131, 2)
        landmarks; None where they are not warped.
      paint: Starts the denoiser; None without denoising steps.
    """
    warped = None if references is None else _warp(sampler, landmarks, *references)
    if paint is None:
        return Generated(None, warped)
    if warped is not None:
        masked = masked.copy()
        masked[:, *sampler.networks.hidden] = to_float(warped.shown)
    return Generated(paint(masked, landmarks), warped)


def _warp(
    sampler: Sampler, landmarks: np.ndarray, images: np.ndarray, points: np.ndarray
) -> Warped:
    field = sampler.warp_field(landmarks, points)
    sharp = np.stack(
        [
            reference_warp.warp_references(images, own, sampler.region, sampler.hidden)
            for own in zip(*field, strict=True)
        ]
    )
    rows, columns = sampler.networks.hidden
    size = rows.stop - rows.start, columns.stop - columns.start
    return Warped(sharp, reference_warp.shrink(sharp, size))
