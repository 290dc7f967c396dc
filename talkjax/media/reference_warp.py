"""The warp of `talkjax.models.warp` at the template's own resolution.

The networks see crops of one size, and what they generate is enlarged to the size of the face. On
large faces it would be softer than its surroundings. Warped references have the template's
sharpness; so they are warped again here, and what the networks changed is added to them.
"""

import cv2
import numpy as np

from talkjax.conventions import Box

MAX_SIZE = 1024  # px of a crop


def native_size(transform: np.ndarray, least: int) -> int:
    """Returns the side of a face's crop in pixels of its frame, from `least` to `MAX_SIZE`.

    Args:
      transform: (2, 3) transform from frame to crop coordinates.
      least: Side of the networks' crops in pixels.
    """
    side = 1 / np.sqrt(abs(np.linalg.det(transform[:, :2])))
    return int(np.clip(round(side / 16) * 16, least, max(least, MAX_SIZE)))


def warp_references(
    images: np.ndarray, field: tuple[np.ndarray, np.ndarray], region: Box
) -> np.ndarray:
    """Warps reference images and mixes them.

    Args:
      images: (R, h, w, 3) uint8, which show the region at any resolution.
      field: (R, n, m, 2) displacements on a grid over the region, crop units, and (R,) weights of
        sum 1, as in `talkjax.models.warp.Field`.
      region: What the images show, crop coordinates.

    Returns:
      (h, w, 3) float32, 0 to 255.
    """
    height, width = images.shape[1:3]
    scale = np.array([width / (region.x1 - region.x0), height / (region.y1 - region.y0)])
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    mixed = np.zeros((height, width, 3), np.float32)
    for image, moved, weight in zip(images, *field, strict=True):
        if weight < 1 / 512:  # less than half a level
            continue
        moved = cv2.resize((moved * scale).astype(np.float32), (width, height))
        warped = cv2.remap(
            image, x + moved[..., 0], y + moved[..., 1], cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        mixed += np.float32(weight) * warped
    return mixed


def sharpen(
    generated: np.ndarray,
    filled: np.ndarray,
    images: np.ndarray,
    field: tuple[np.ndarray, np.ndarray],
    region: Box,
) -> np.ndarray:
    """Adds what the networks changed to references that are warped at a higher resolution.

    Args:
      generated: (h, w, 3) region that the networks generated, 0 to 255.
      filled: (h, w, 3) uint8 region that they were shown.
      images: (R, H, W, 3) uint8 reference images.
      field: See `warp_references`.
      region: What the images show, crop coordinates.

    Returns:
      (H, W, 3) float32; `generated` itself where it has the size of the images.
    """
    if generated.shape == images.shape[1:]:
        return generated
    change = cv2.resize(
        generated.astype(np.float32) - filled, images.shape[2:0:-1], interpolation=cv2.INTER_CUBIC
    )
    return warp_references(images, field, region) + change


def shrink(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reduces (R, H, W, 3) images to a (height, width)."""
    if images.shape[1:3] == tuple(size):
        return images
    return np.stack(
        [cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA) for image in images]
    )
