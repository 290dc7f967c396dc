"""What is cut out of a frame for the networks, and how their output comes back into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from talkjax.conventions import mask_region, to_float
from talkjax.media import composite, crop, reference_warp
from talkjax.media.appearance import FaceAppearance, Look, share_inside

if TYPE_CHECKING:
    from talkjax.sampling.generation import Generated
    from talkjax.sampling.sampler import Sampler


def cut_region(
    sampler: Sampler, rgb: np.ndarray, transform: np.ndarray, appearance: FaceAppearance
) -> tuple[np.ndarray, Look]:
    """Cuts a frame's region out, in the reference's light.

    Args:
      sampler: Its sizes and boxes are used.
      rgb: (H, W, 3) uint8 frame.
      transform: (2, 3) transform from frame to crop coordinates.
      appearance: The person of the scene; frames must come in their order.

    Returns:
      (h, w, 3) uint8 or float32, 0 to 255, with the mouth; and what is special about the frame.
    """
    whole = crop.warp_crop(rgb, transform, sampler.networks.crop_size)
    look = appearance.look(whole, share_inside(transform, rgb.shape))
    if look.overlay is not None:
        whole = look.overlay.erase(whole, transform)
    return sampler.region.cut(appearance.clear(whole, look)), look


def hide_mouth(sampler: Sampler, region: np.ndarray) -> np.ndarray:
    """Masks what `cut_region` returned: (h, w, 3) float32 in [-1, 1], 0 in the mask."""
    return mask_region(to_float(region), sampler.region, sampler.mask, sampler.networks.crop_size)


def paste(
    sampler: Sampler,
    rgb: np.ndarray,
    generated: Generated,
    transform: np.ndarray,
    look: Look,
    inside: np.ndarray,
) -> np.ndarray:
    """Puts what was generated for a frame into it.

    Args:
      sampler: Its boxes are used.
      rgb: (H, W, 3) uint8 frame.
      generated: One frame of `generation.Generated`, as NumPy arrays without a batch axis.
      transform: (2, 3) transform from frame to crop coordinates.
      look: What is special about the frame.
      inside: (128, 128) where the region is pasted (`outline.inside`).

    Returns:
      (H, W, 3) uint8.
    """
    region, box, warped = generated.regions, sampler.region, generated.warped
    if region is not None:
        gain, offset = composite.match_colour(
            rgb, region, transform, sampler.region, sampler.mask, look
        )
        region = region * gain + offset
    if warped is not None:
        box = sampler.hidden
        if region is None:
            region = warped.sharp
        else:
            own = region[sampler.networks.hidden]
            region = reference_warp.add_change(warped.sharp, own, warped.shown)
    return composite.paste(
        rgb, region, transform, box, sampler.mask, colour=False, look=look, inside=inside
    )
