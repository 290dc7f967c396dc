"""Which frames of the template's first seconds tell what the person looks like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from talkjax import conventions, head_pose
from talkjax.conventions import Box
from talkjax.media import crop
from talkjax.sampling.faces import Candidate
from talkjax.sampling.template import Template

FIRST_PASS_S = 10.0  # seconds, after the first sight of the face, that references come from
OPENING_QUANTILE = 0.7  # a moderately open mouth: lips and some teeth can be seen
_OPENING_WEIGHT = 0.5
_OUTSIDE_WEIGHT = 2.0


def choose_image(candidates: Sequence[Candidate], size: tuple[int, int], region: Box) -> int:
    """The position of the frame that becomes the reference image.

    The lowest sum, in interocular distances, of: the pose's mean distance from the median pose;
    half of the difference between the mouth's opening and the openings' 70th percentile; how far
    the pose points moved since the frame before (motion blurs); twice the share of the region that
    lies outside of the picture. Of equal sums the first: the choice is deterministic.

    Args:
      candidates: at least one.
      size: (width, height) of the frames.
      region: what the image models see.
    """
    landmarks = np.stack([c.landmarks for c in candidates]).astype(np.float64)  # (N, 131, 2)
    pose = landmarks[:, : conventions.NUM_POSE]
    unit = conventions.interocular(landmarks)
    away = _mean_distance(pose, np.median(pose, axis=0)) / unit
    opening = conventions.mouth_opening(landmarks)
    opening = np.abs(opening - np.quantile(opening, OPENING_QUANTILE))
    # In frame coordinates: the smoothed crop moves with the head.
    back = [head_pose.invert(c.face.transform) for c in candidates]
    seen = head_pose.apply_transforms(pose, np.stack(back))
    motion = np.zeros(len(candidates))
    scale = np.array([np.sqrt(abs(np.linalg.det(b[:, :2]))) for b in back])
    motion[1:] = _mean_distance(seen[1:], seen[:-1]) / (scale * unit)[1:]
    outside = np.array([_share_outside(b, size, region) for b in back])
    cost = away + _OPENING_WEIGHT * opening + motion + _OUTSIDE_WEIGHT * outside
    return int(np.argmin(np.round(cost, 6)))


def choose_landmarks(candidates: Sequence[Candidate], count: int) -> np.ndarray:
    """Landmarks of `count` frames spread evenly over the candidates: (count, 131, 2) float32."""
    places = np.linspace(0, len(candidates) - 1, count + 2)[1:-1].round().astype(int)
    return np.stack([candidates[i].landmarks for i in places])


def cut_image(template: Template, chosen: Candidate, size: int, region: Box) -> np.ndarray:
    """The chosen frame's region, unmasked: (H, W, 3) uint8; `size` is the whole crop's in px."""
    for frame in template.frames():
        if frame.index == chosen.index:
            return region.cut(crop.warp_crop(frame.rgb, chosen.face.transform, size)).copy()
    raise RuntimeError(f"frame {chosen.index} of {template.name} has gone")


def _mean_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1).mean(-1)


def _share_outside(back: np.ndarray, size: tuple[int, int], region: Box) -> float:
    x, y = np.meshgrid(np.linspace(region.x0, region.x1, 9), np.linspace(region.y0, region.y1, 9))
    points = np.stack([x, y], -1).reshape(1, -1, 2)
    at = head_pose.apply_transforms(points, back[None])[0]
    return float(((at < 0) | (at > size)).any(-1).mean())
