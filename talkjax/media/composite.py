"""Puts a generated mouth region back into its frame.

Only pixels inside of the feathered mask change; every other pixel of the frame keeps its exact
value. Where things go follows from the transform and fixed boxes alone (see `crop`), so nothing
here depends on the lips.
"""

import cv2
import numpy as np

from talkjax.conventions import MASK, MOUTH_REGION, Box
from talkjax.head_pose import invert
from talkjax.media.crop import warp_crop

# Crop units, as all boxes. The feather runs inwards from the mask's border, where alpha is 0.
FEATHER = 0.06
CORNER = 0.15

RING = 0.0625  # how far around the mask the colours are compared
_GRID = (
    64  # side of the coarse crop on which they are: cells, not pixels, so that noise averages out
)
_MAX_GAIN = 1.1
_MAX_SHIFT = 20.0  # levels of 255
_MIN_CELLS = 24


def _window(transform: np.ndarray, box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The part of a (H, W) frame that a box can reach: (y0, x0, y1, x1), maybe empty."""
    corners = np.array([(x, y, 1.0) for x in (box.x0, box.x1) for y in (box.y0, box.y1)])
    points = corners @ invert(transform).T
    low, high = np.floor(points.min(0)), np.ceil(points.max(0))
    (x0, y0), (x1, y1) = (np.clip(v, 0, (shape[1], shape[0])).astype(int) for v in (low, high))
    return int(y0), int(x0), int(y1), int(x1)


def feathered_alpha(
    transform: np.ndarray,
    window: tuple[int, int, int, int],
    mask: Box = MASK,
    feather: float = FEATHER,
    corner: float = CORNER,
) -> np.ndarray:
    """The weight of the generated image at frame pixels.

    Args:
      transform: (2, 3) frame to crop coordinates.
      window: (y0, x0, y1, x1) frame pixels.
      mask: box in crop coordinates.
      feather: width over which alpha rises (smoothly) from 0 at the mask's border to 1; crop units.
      corner: radius of the mask's rounded corners, crop units.

    Returns:
      (y1-y0, x1-x0) float32 in [0, 1], 0 outside of the mask.
    """
    y0, x0, y1, x1 = window
    xs, ys = np.arange(x0, x1) + 0.5, np.arange(y0, y1)[:, None] + 0.5
    half = np.array([mask.x1 - mask.x0, mask.y1 - mask.y0]) / 2
    corner = min(corner, *half)
    centre = np.array([mask.x0 + mask.x1, mask.y0 + mask.y1]) / 2
    # Signed distance to a rounded rectangle, negative inside.
    beyond = [
        np.abs(m[0] * xs + m[1] * ys + (m[2] - c)).astype(np.float32) - np.float32(h - corner)
        for m, c, h in zip(transform, centre, half, strict=True)
    ]
    outside = np.hypot(np.maximum(beyond[0], 0), np.maximum(beyond[1], 0))
    distance = outside + np.minimum(np.maximum(*beyond), 0) - np.float32(corner)
    rise = np.clip(-distance / np.float32(max(feather, 1e-6)), 0, 1)
    return rise * rise * (3 - 2 * rise)


def match_colour(
    frame: np.ndarray,
    region: np.ndarray,
    transform: np.ndarray,
    region_box: Box = MOUTH_REGION,
    mask: Box = MASK,
) -> tuple[np.ndarray, np.ndarray]:
    """The colour change that makes a generated region agree with its frame around the mask.

    The region shows the mask's surroundings too, and an ideal model would return them as they
    are. Per channel, mean and spread of the ring around the mask (`RING` wide, inside of region and
    frame) are made equal, within bounds: a wrong ring must not do harm.

    Args:
      frame: (H, W, 3) uint8.
      region: (h, w, 3), 0 to 255.
      transform: (2, 3) frame to crop coordinates.
      region_box: what the region shows, crop coordinates.
      mask: box that is pasted, crop coordinates.

    Returns:
      gain (3,) and offset (3,) float32: `region * gain + offset` matches. (1, 0) where too little
      of the ring is inside of the frame.
    """
    neutral = np.ones(3, np.float32), np.zeros(3, np.float32)
    y0, x0, y1, x1 = region_box.pixels(_GRID)
    centre = (np.arange(_GRID) + 0.5) / _GRID
    y, x = centre[y0:y1, None], centre[None, x0:x1]
    inside = (y > mask.y0) & (y < mask.y1) & (x > mask.x0) & (x < mask.x1)
    near = (y > mask.y0 - RING) & (y < mask.y1 + RING) & (x > mask.x0 - RING) & (x < mask.x1 + RING)
    back = invert(transform)
    at = back[:, :1, None] * x + back[:, 1:2, None] * y + back[:, 2:, None]  # (2, rows, columns)
    limits = np.array(frame.shape[1::-1])[:, None, None]
    ring = near & ~inside & ((at > 0.5) & (at < limits - 0.5)).all(0)
    if ring.sum() < _MIN_CELLS:
        return neutral
    # Cut at the region's own resolution, as the model's input was: a perfect region stays as it is.
    size = round(region.shape[1] / (region_box.x1 - region_box.x0))
    original = region_box.cut(warp_crop(frame, transform, size))
    truth, shown = (
        cv2.resize(np.float32(image), (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)[ring]
        for image in (original, region)
    )
    want, have = truth.mean(0), shown.mean(0)
    gain = np.clip((truth.std(0) + 1) / (shown.std(0) + 1), 1 / _MAX_GAIN, _MAX_GAIN)
    shift = np.clip(want - have, -_MAX_SHIFT, _MAX_SHIFT)
    return gain, have + shift - gain * have


def _to_frame(
    region: np.ndarray, transform: np.ndarray, box: Box, window: tuple[int, int, int, int]
) -> np.ndarray:
    """Resamples a (h, w, 3) float32 region, which shows `box`, at the pixels of a window."""
    height, width = region.shape[:2]
    extent = np.array([box.x1 - box.x0, box.y1 - box.y0])
    unit = np.sqrt(abs(np.linalg.det(transform[:, :2])))  # crop units in a frame pixel
    wanted = np.maximum(np.round(extent / unit), 1).astype(int)
    if wanted[0] < width or wanted[1] < height:  # the face is smaller than the crop: no aliasing
        width, height = min(width, int(wanted[0])), min(height, int(wanted[1]))
        region = cv2.resize(region, (width, height), interpolation=cv2.INTER_AREA)
    y0, x0, y1, x1 = window
    scale = np.array([width, height]) / extent
    linear = transform[:, :2] * scale[:, None]
    corner = transform[:, :2] @ (x0 + 0.5, y0 + 0.5) + transform[:, 2]
    shift = (corner - (box.x0, box.y0)) * scale - 0.5
    return cv2.warpAffine(
        region,
        np.concatenate([linear, shift[:, None]], 1),
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def paste(
    frame: np.ndarray,
    region: np.ndarray,
    transform: np.ndarray,
    region_box: Box = MOUTH_REGION,
    mask: Box = MASK,
    *,
    feather: float = FEATHER,
    corner: float = CORNER,
    colour: bool = True,
) -> np.ndarray:
    """Pastes a generated region into its frame, at the frame's own resolution.

    Args:
      frame: (H, W, 3) uint8, untouched.
      region: (h, w, 3) uint8, or float from 0 to 255; any size, it shows `region_box`.
      transform: (2, 3) frame to crop coordinates.
      region_box: what the region shows, crop coordinates.
      mask: what is replaced, crop coordinates; inside of `region_box`.
      feather: see `feathered_alpha`.
      corner: see `feathered_alpha`.
      colour: whether the region's colours are first matched to the frame's (`match_colour`).

    Returns:
      (H, W, 3) uint8. Where alpha is 0, all outside of the mask, it equals `frame` bit for bit.
    """
    out = frame.copy()
    transform = np.asarray(transform, np.float64)
    window = y0, x0, y1, x1 = _window(transform, mask, frame.shape)
    if y1 <= y0 or x1 <= x0:
        return out
    region = np.asarray(region, np.float32)
    if colour:
        gain, offset = match_colour(frame, region, transform, region_box, mask)
        region = region * gain + offset
    generated = _to_frame(region, transform, region_box, window)
    alpha = feathered_alpha(transform, window, mask, feather, corner)[..., None]
    original = frame[y0:y1, x0:x1].astype(np.float32)
    mixed = np.clip(original + alpha * (generated - original), 0, 255)
    # Where alpha is 0 the sum is the original, unless the generated value is not finite.
    out[y0:y1, x0:x1] = np.where(alpha > 0, np.rint(mixed).astype(np.uint8), frame[y0:y1, x0:x1])
    return out
