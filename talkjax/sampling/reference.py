"""Choosing the frames of a scene's first seconds that show what the person looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from talkjax import conventions, head_pose
from talkjax.conventions import Box
from talkjax.media import crop
from talkjax.media.video import VideoFrame
from talkjax.sampling.faces import Candidate
from talkjax.sampling.options import Options

FIRST_PASS_S = Options.first_pass  # seconds of a scene, from its first face on
OPENING_QUANTILE = 0.7  # a moderately open mouth shows the lips and some teeth
_OPENING_WEIGHT = 0.5
_OUTSIDE_WEIGHT = 2.0


def choose_image(candidates: Sequence[Candidate], size: tuple[int, int], region: Box) -> int:
    """Returns the index of the candidate that becomes the reference image.

    It has the lowest sum, in interocular distances, of: the mean distance of its pose from the
    median pose; half the difference between its mouth opening and the 70th percentile of the
    openings; how far its pose points moved since the previous frame (because motion blurs); and
    twice the share of the region that lies outside of the picture. The first of equal sums is
    chosen, so that the choice is deterministic.

    Args:
      candidates: At least one.
      size: (width, height) of the frames.
      region: What the image models see, crop coordinates.
    """
    landmarks = np.stack([c.landmarks for c in candidates]).astype(np.float64)  # (N, 131, 2)
    pose = landmarks[:, : conventions.NUM_POSE]
    unit = conventions.interocular(landmarks)
    away = _mean_distance(pose, np.median(pose, axis=0)) / unit
    opening = conventions.mouth_opening(landmarks)
    opening = np.abs(opening - np.quantile(opening, OPENING_QUANTILE))
    # Motion is measured in frame coordinates, because the smoothed crop moves with the head.
    to_frame = np.stack([head_pose.invert(c.face.transform) for c in candidates])
    seen = head_pose.apply_transforms(pose, to_frame)
    motion = np.zeros(len(candidates))
    scale = np.array([np.sqrt(abs(np.linalg.det(t[:, :2]))) for t in to_frame])
    motion[1:] = _mean_distance(seen[1:], seen[:-1]) / (scale * unit)[1:]
    outside = np.array([_share_outside(t, size, region) for t in to_frame])
    cost = away + _OPENING_WEIGHT * opening + motion + _OUTSIDE_WEIGHT * outside
    return int(np.argmin(np.round(cost, 6)))


def choose_landmarks(candidates: Sequence[Candidate], count: int) -> np.ndarray:
    """Returns the landmarks of `count` evenly spaced candidates: (count, 131, 2) float32."""
    places = np.linspace(0, len(candidates) - 1, count + 2)[1:-1].round().astype(int)
    return np.stack([candidates[i].landmarks for i in places])


def cut_image(
    frames: Iterator[VideoFrame], chosen: Candidate, size: int, region: Box
) -> np.ndarray:
    """Cuts the unmasked region out of the chosen frame.

    Args:
      frames: Frames of the template, which are read up to the chosen one.
      chosen: The chosen candidate.
      size: Side of the whole crop in pixels.
      region: What the image models see, crop coordinates.

    Returns:
      (H, W, 3) uint8.
    """
    for frame in frames:
        if frame.index == chosen.index:
            return region.cut(crop.warp_crop(frame.rgb, chosen.face.transform, size)).copy()
    raise RuntimeError(f"frame {chosen.index} of the template is missing now")


def _mean_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1).mean(-1)


def _share_outside(to_frame: np.ndarray, size: tuple[int, int], region: Box) -> float:
    """Returns the share of a 9x9 grid over the region that lies outside of the picture."""
    x, y = np.meshgrid(np.linspace(region.x0, region.x1, 9), np.linspace(region.y0, region.y1, 9))
    points = np.stack([x, y], -1).reshape(1, -1, 2)
    at = head_pose.apply_transforms(points, to_frame[None])[0]
    return float(((at < 0) | (at > size)).any(-1).mean())
