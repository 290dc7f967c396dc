"""The warp of `talkjax.models.warp` at the template's own resolution.

The networks see crops of one size, and what they generate is enlarged to the size of the face. On
large faces it would be softer than its surroundings. Warped references have the template's
sharpness; so they are warped at that resolution here, reduced for the networks, and what the
networks changed is added to them.
"""

import cv2
import numpy as np

from talkjax.conventions import Box

MAX_SIZE = 1024  # px of a crop
# What the weight of every reference is lowered by, so that those that hardly count are left out and
# none appears at once.
_LEAST_WEIGHT = 1 / 32


def native_size(transform: np.ndarray, least: int) -> int:
    """Returns the side of a face's crop in pixels of its frame, from `least` to `MAX_SIZE`.

    Args:
      transform: (2, 3) transform from frame to crop coordinates.
      least: Side of the networks' crops in pixels.
    """
    side = 1 / np.sqrt(abs(np.linalg.det(transform[:, :2])))
    return int(np.clip(round(side / 16) * 16, least, max(least, MAX_SIZE)))


def warp_references(
    images: np.ndarray,
    field: tuple[np.ndarray, np.ndarray],
    region: Box,
    wanted: Box | None = None,
) -> np.ndarray:
    """Warps reference images and mixes them.

    Args:
      images: (R, H, W, 3) uint8, which show the region at any resolution.
      field: (R, n, m, 2) displacements on a grid over the region, crop units, and (R,) weights of
        sum 1, as in `talkjax.models.warp.Field`.
      region: What the images show, crop coordinates.
      wanted: What the result shows, all of the region by default.

    Returns:
      (h, w, 3) uint8 at the resolution of the images.
    """
    wanted = region if wanted is None else wanted
    # (x, y) pixels of an image per crop unit
    scale = np.array(images.shape[2:0:-1]) / (region.x1 - region.x0, region.y1 - region.y0)
    extent = np.array([wanted.x1 - wanted.x0, wanted.y1 - wanted.y0])
    size = np.maximum(np.rint(extent * scale).astype(int), 1)
    axes = [
        ((np.arange(n) + 0.5) * (length / n) + start) * unit - 0.5
        for n, length, start, unit in zip(
            size, extent, (wanted.x0 - region.x0, wanted.y0 - region.y0), scale, strict=True
        )
    ]
    places = np.stack(np.meshgrid(*axes), -1).astype(np.float32)
    weights = np.maximum(field[1] - _LEAST_WEIGHT, 0)
    weights = weights / weights.sum() if weights.any() else field[1]
    mixed = np.zeros((*places.shape[:2], 3), np.float32)
    for image, moved, weight in zip(images, field[0], weights, strict=True):
        if weight == 0:
            continue
        moved = (moved * scale).astype(np.float32)
        at = places + _read_grid(moved, axes, images.shape[2:0:-1])
        warped = cv2.remap(image, at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        cv2.addWeighted(warped, float(weight), mixed, 1.0, 0.0, mixed, cv2.CV_32F)
    return cv2.convertScaleAbs(mixed)  # rounds; nothing is negative


def _read_grid(grid: np.ndarray, axes: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Reads an (n, m, 2) grid of cells, which tiles an image, between the centres of its cells.

    Args:
      grid: float32 values of the cells.
      axes: x and y of the wanted places in pixels of the image, evenly spaced.
      size: (width, height) of the image.
    """
    matrix = np.zeros((2, 3))
    for axis, (places, cells, length) in enumerate(zip(axes, grid.shape[1::-1], size, strict=True)):
        step = (places[-1] - places[0]) / max(len(places) - 1, 1)
        matrix[axis, axis] = step * cells / length
        matrix[axis, 2] = (places[0] + 0.5) * cells / length - 0.5
    return cv2.warpAffine(
        grid, matrix, (len(axes[0]), len(axes[1])),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def add_change(warped: np.ndarray, generated: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Adds what the networks changed to references that are warped at a higher resolution.

    Args:
      warped: (H, W, 3) uint8 warped references.
      generated: (h, w, 3) the same part of the region that the networks generated, 0 to 255.
      shown: (h, w, 3) uint8 what they were shown.

    Returns:
      (H, W, 3) float32; `generated` itself where it has the size of `warped`.
    """
    if generated.shape == warped.shape:
        return generated
    change = generated.astype(np.float32) - shown
    return cv2.resize(change, warped.shape[1::-1], interpolation=cv2.INTER_CUBIC) + warped


def shrink(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reduces (R, H, W, 3) images to a (height, width)."""
    if images.shape[1:3] == tuple(size):
        return images
    return np.stack(
        [cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA) for image in images]
    )
