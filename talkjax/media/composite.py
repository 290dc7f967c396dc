"""Pastes a generated mouth region into its frame.

Only pixels inside the feathered mask change; every other pixel of the frame keeps its exact value.
The transform and fixed boxes alone decide where the region goes (see `crop`), so its place does not
depend on the lips.
"""

import cv2
import numpy as np

from talkjax.conventions import FULL, MASK, MOUTH_REGION, Box
from talkjax.head_pose import invert
from talkjax.media.appearance import Look
from talkjax.media.crop import warp_crop

# In crop units, as all boxes. The feather runs inwards from the mask's border, where alpha is 0.
FEATHER = 0.06
CORNER = 0.15

RING = 0.0625  # width of the ring around the mask in which colours are compared
_GRID = 64  # side of the coarse crop in which they are compared; its cells average noise out
_MAX_GAIN = 1.1
_MAX_SHIFT = 20.0  # levels of 255
_MIN_CELLS = 24


def _window(transform: np.ndarray, box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Returns (y0, x0, y1, x1), the possibly empty part of a (H, W) frame that a box can reach."""
    corners = np.array([(x, y, 1.0) for x in (box.x0, box.x1) for y in (box.y0, box.y1)])
    points = corners @ invert(transform).T
    low, high = np.floor(points.min(0)), np.ceil(points.max(0))
    (x0, y0), (x1, y1) = (np.clip(v, 0, (shape[1], shape[0])).astype(int) for v in (low, high))
    return int(y0), int(x0), int(y1), int(x1)


def _reach(inside: np.ndarray, transform: np.ndarray, mask: Box) -> Box:
    """Returns the part of the mask in which weights over the crop (N, N) are positive."""
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if not len(rows):
        return Box(mask.y0, mask.x0, mask.y0, mask.x0)
    unit = np.sqrt(abs(np.linalg.det(transform[:, :2])))  # crop units per frame pixel
    # `_to_frame` reads two cells around a place, of this array or of one with the frame's pixels.
    around = 3 * max(1 / len(inside), unit)
    y0, x0 = (places[0] / len(inside) - around for places in (rows, columns))
    y1, x1 = ((places[-1] + 1) / len(inside) + around for places in (rows, columns))
    return Box(max(y0, mask.y0), max(x0, mask.x0), min(y1, mask.y1), min(x1, mask.x1))


def feathered_alpha(
    transform: np.ndarray,
    window: tuple[int, int, int, int],
    mask: Box = MASK,
    feather: float = FEATHER,
    corner: float = CORNER,
) -> np.ndarray:
    """Computes the weight of the generated image at the pixels of a window.

    Args:
      transform: (2, 3) transform from frame to crop coordinates.
      window: (y0, x0, y1, x1) in frame pixels.
      mask: Box in crop coordinates.
      feather: Width over which alpha rises smoothly from 0 at the mask's border to 1, crop units.
      corner: Radius of the mask's rounded corners, crop units.

    Returns:
      (y1-y0, x1-x0) float32 in [0, 1], 0 outside the mask.
    """
    y0, x0, y1, x1 = window
    xs, ys = np.arange(x0, x1) + 0.5, np.arange(y0, y1)[:, None] + 0.5
    half = np.array([mask.x1 - mask.x0, mask.y1 - mask.y0]) / 2
    corner = min(corner, *half)
    centre = np.array([mask.x0 + mask.x1, mask.y0 + mask.y1]) / 2
    # The signed distance to a rounded rectangle is negative inside.
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
    look: Look | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the colour change that matches a generated region to its frame around the mask.

    The region also shows the surroundings of the mask, which an ideal model returns unchanged. In
    the ring around the mask (`RING` wide, inside both region and frame), the mean and the spread of
    each channel are made equal, within limits that keep a bad ring from doing harm.

    Args:
      frame: (H, W, 3) uint8.
      region: (h, w, 3), 0 to 255.
      transform: (2, 3) transform from frame to crop coordinates.
      region_box: What the region shows, crop coordinates.
      mask: Box that is pasted, crop coordinates.
      look: The frame's light, if it is not the region's; they are compared in the region's light.

    Returns:
      Gain (3,) and offset (3,) float32; `region * gain + offset` matches the frame. They are 1 and
      0 where too little of the ring is inside the frame.
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
    # Like the model's input, the original is cut at the region's resolution, so that a perfect
    # region does not change.
    size = round(region.shape[1] / (region_box.x1 - region_box.x0))
    original = region_box.cut(warp_crop(frame, transform, size))
    truth, shown = (
        cv2.resize(image.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)[ring]
        for image in (original, region)
    )
    if look is not None:
        truth = look.light.remove(truth)
        if look.cover is not None:
            seen = cv2.resize(look.cover, (_GRID, _GRID))[y0:y1, x0:x1][ring] < 0.05
            if seen.sum() < _MIN_CELLS:
                return neutral
            truth, shown = truth[seen], shown[seen]
    target, mean = truth.mean(0), shown.mean(0)
    gain = np.clip((truth.std(0) + 1) / (shown.std(0) + 1), 1 / _MAX_GAIN, _MAX_GAIN)
    shift = np.clip(target - mean, -_MAX_SHIFT, _MAX_SHIFT)
    return gain, mean + shift - gain * mean


def _to_frame(
    region: np.ndarray, transform: np.ndarray, box: Box, window: tuple[int, int, int, int]
) -> np.ndarray:
    """Resamples a (h, w, 3) float32 region that shows `box` at the pixels of a window."""
    height, width = region.shape[:2]
    extent = np.array([box.x1 - box.x0, box.y1 - box.y0])
    unit = np.sqrt(abs(np.linalg.det(transform[:, :2])))  # crop units per frame pixel
    shown = np.maximum(np.round(extent / unit), 1).astype(int)  # (width, height) in the frame
    if shown[0] < width or shown[1] < height:  # shrink with area averaging, against aliasing
        width, height = min(width, int(shown[0])), min(height, int(shown[1]))
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
    look: Look | None = None,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """Pastes a generated region into its frame, at the frame's own resolution.

    Args:
      frame: (H, W, 3) uint8; it is not changed.
      region: (h, w, 3) uint8, or float from 0 to 255, of any size.
      transform: (2, 3) transform from frame to crop coordinates.
      region_box: What the region shows, crop coordinates.
      mask: What is replaced, crop coordinates; it lies inside `region_box`.
      feather: See `feathered_alpha`.
      corner: See `feathered_alpha`.
      colour: Whether to match the region's colours to the frame first (`match_colour`).
      look: What is special about the frame; the region then is in the reference's light, and is
        given the frame's light and colours.
      inside: (N, N) float32 weights over the whole crop by which alpha is multiplied
        (`outline.inside`).

    Returns:
      (H, W, 3) uint8. Where alpha is 0, which includes everything outside the mask, it equals
      `frame` bit for bit.
    """
    out = frame.copy()
    transform = np.asarray(transform, np.float64)
    reach = mask if inside is None else _reach(inside, transform, mask)
    window = y0, x0, y1, x1 = _window(transform, reach, frame.shape)
    if y1 <= y0 or x1 <= x0:
        return out
    region = np.asarray(region, np.float32)
    if colour:
        gain, offset = match_colour(frame, region, transform, region_box, mask, look)
        region = region * gain + offset
    if look is not None:
        region = look.toning.apply(look.light.apply(region))
    generated = _to_frame(region, transform, region_box, window)
    alpha = feathered_alpha(transform, window, mask, feather, corner)[..., None]
    if inside is not None:
        weight = _to_frame(inside[..., None], transform, FULL, window)
        alpha = alpha * np.clip(weight, 0, 1).reshape(alpha.shape)
    if look is not None and look.cover is not None:
        cover = _to_frame(look.cover[..., None], transform, FULL, window)
        alpha = alpha * (1 - np.clip(cover, 0, 1)).reshape(alpha.shape)
    if look is not None and look.overlay is not None:
        alpha = alpha * (1 - look.overlay.window(window))[..., None]
    original = frame[y0:y1, x0:x1].astype(np.float32)
    mixed = np.clip(original + alpha * (generated - original), 0, 255)
    # Where alpha is 0, `mixed` is the original only if the generated value is finite.
    out[y0:y1, x0:x1] = np.where(alpha > 0, np.rint(mixed).astype(np.uint8), frame[y0:y1, x0:x1])
    return out
