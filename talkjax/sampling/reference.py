"""Choosing the frames of a scene's first seconds that show what the person looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from talkjax import conventions, head_pose
from talkjax.conventions import Box
from talkjax.media import crop, light, occlusion, overlay
from talkjax.media.video import VideoFrame
from talkjax.models.landmark_completion import References
from talkjax.sampling import speaker
from talkjax.sampling.faces import Candidate
from talkjax.sampling.options import Options

FIRST_PASS_S = Options.first_pass  # seconds of a scene, from its first face on
OPENING_QUANTILE = 0.7  # a moderately open mouth shows the lips and some teeth
_OVERLAY_FRAMES = 75
_OPENING_WEIGHT = 0.5
_GOOD = 0.75  # quantile of the flaws that reference images may have
_OUTSIDE_WEIGHT = 2.0
LIGHT_QUANTILE = 0.75  # of the candidates' `light.Tones`, which are good
# What ordinary footage lacks of them, as natural logarithms of ratios: at most 0.09, 0.13, 0.42 and
# 0.07 on 34 clips.
_USUAL_LACK = {"level": 0.1, "contrast": 0.15, "detail": 0.5, "colour": 0.1}
_FLOOR = {"level": 1.0, "contrast": 0.5, "detail": 0.01, "colour": 2.0}  # noise
_FLAW_WEIGHT = 2.0
_OCCLUDED = 10.0


def choose_images(
    candidates: Sequence[Candidate], size: tuple[int, int], region: Box, count: int = 1
) -> list[int]:
    """Returns the indices of the candidates that become the reference images.

    The first one has the lowest sum, in interocular distances, of: the mean distance of its pose
    from the median pose; half the difference between its mouth opening and the 70th percentile of
    the openings; how far its pose points moved since the previous frame (because motion blurs);
    twice the share of the region that lies outside of the picture; and what it lacks of the light
    and sharpness that most candidates have, or what is before the face. The first of equal sums is
    chosen, so that the choice is deterministic. The others differ from it and from each other as
    much as possible (`conventions.spread_faces`); the worst quarter by the last three of these
    terms is not chosen, and a photograph is chosen again and again.

    Args:
      candidates: At least one.
      size: (width, height) of the frames.
      region: What the image models see, crop coordinates.
      count: Number of reference images.
    """
    landmarks = np.stack([c.landmarks for c in candidates]).astype(np.float64)  # (N, 131, 2)
    pose = landmarks[:, : conventions.NUM_POSE]
    unit = conventions.interocular(landmarks)
    away = _mean_distance(pose, np.median(pose, axis=0)) / unit
    opening = conventions.mouth_opening(landmarks)
    # Motion is measured in frame coordinates, because the crop moves with the head.
    to_frame = np.stack([head_pose.invert(c.face.transform) for c in candidates])
    seen = head_pose.apply_transforms(pose, to_frame)
    motion = np.zeros(len(candidates))
    scale = np.array([np.sqrt(abs(np.linalg.det(t[:, :2]))) for t in to_frame])
    motion[1:] = _mean_distance(seen[1:], seen[:-1]) / (scale * unit)[1:]
    outside = np.array([_share_outside(t, size, region) for t in to_frame])
    flaws = motion + _OUTSIDE_WEIGHT * outside + _FLAW_WEIGHT * _flaws(candidates)
    opening = np.abs(opening - np.quantile(opening, OPENING_QUANTILE))
    first = int(np.argmin(np.round(away + _OPENING_WEIGHT * opening + flaws, 6)))
    good = np.flatnonzero(flaws <= max(np.quantile(flaws, _GOOD), flaws[first]))
    place = int(np.searchsorted(good, first))
    return [int(good[k]) for k in conventions.spread_faces(landmarks[good], place, count)]


def _flaws(candidates: Sequence[Candidate]) -> np.ndarray:
    """Returns by how much each candidate is dim, washed out, blurred or grey beside others: (N,).

    Candidates with something before the face get `_OCCLUDED` more. It is 0 for all candidates of
    evenly lit, sharp, unoccluded footage.
    """
    shown = [c.thumbnail for c in candidates if c.thumbnail is not None]
    flaws = np.zeros(len(candidates))
    if len(shown) < len(candidates):
        return flaws
    tones = [light.measure(thumbnail) for thumbnail in shown]
    for name, usual in _USUAL_LACK.items():
        values = np.log(np.array([getattr(t, name) for t in tones]) + _FLOOR[name])
        flaws += np.maximum(np.quantile(values, LIGHT_QUANTILE) - values - usual, 0)
    best = max(tones, key=lambda t: t.contrast)
    even = [light.compare(best, t).remove(image) for t, image in zip(tones, shown, strict=True)]
    return flaws + _OCCLUDED * ~occlusion.unoccluded(even)


def choose_landmarks(
    candidates: Sequence[Candidate],
    count: int,
    sound: tuple[np.ndarray, np.ndarray] | None = None,
) -> References:
    """Chooses `count` evenly spaced candidates as the references of the landmark network.

    Args:
      candidates: At least one.
      count: R.
      sound: Output of `speech.TemplateSound.read` for the candidates, or None. It is used if the
        candidates' lips move with it; a template may carry music, or somebody else's voice.

    Returns:
      References without a batch axis.
    """
    places = np.linspace(0, len(candidates) - 1, count + 2)[1:-1].round().astype(int)
    landmarks = np.stack([candidates[i].landmarks for i in places])
    if sound is None or not speaks(candidates, sound[1]):
        return References.single(landmarks)
    return References.single(landmarks, sound[0][places])


def speaks(candidates: Sequence[Candidate], loudness: np.ndarray) -> bool:
    """Returns whether the lips of a scene's candidates move with the sound from their first on."""
    times = np.array([c.time for c in candidates])
    if len(times) < 2 or times[-1] - times[0] < speaker.MIN_SECONDS:
        return False
    openings = conventions.mouth_opening(np.stack([c.landmarks for c in candidates]))
    smooth = speaker.smooth_loudness(loudness)
    return speaker.score(times - times[0], openings, smooth) >= speaker.MIN_SCORE


def read_crops(
    frames: Iterator[VideoFrame],
    chosen: Sequence[Candidate],
    candidates: Sequence[Candidate],
    size: int,
    mask: Box,
) -> tuple[list[np.ndarray], overlay.Overlay | None]:
    """Reads a scene: cuts the whole unmasked crops out of chosen frames, and looks for a caption.

    Args:
      frames: Frames of the template, which are read only as far as they are needed.
      chosen: The chosen candidates; one may be chosen several times.
      candidates: Candidates of the scene, in whose first frames a caption is looked for, or none.
      size: Side of the crop in pixels.
      mask: What the image models fill in, crop coordinates.

    Returns:
      (size, size, 3) uint8 crops, and the caption over the face, if there is one.
    """
    faces = {c.index: c.face for c in candidates[:_OVERLAY_FRAMES]}
    wanted = {c.index: c.face.transform for c in chosen}
    last = max([*faces, *wanted])
    crops = {}

    def searched() -> Iterator[np.ndarray]:
        for frame in frames:
            if frame.index in wanted:
                crops[frame.index] = crop.warp_crop(frame.rgb, wanted[frame.index], size)
            if frame.index in faces:
                yield frame.rgb
            if frame.index >= last:
                return

    reading, found = searched(), None
    if faces:
        transforms = np.stack([face.transform for face in faces.values()])
        found = overlay.find_overlay(reading, transforms, mask)
    for _ in reading:  # up to the last chosen frame
        pass
    if missing := wanted.keys() - crops.keys():
        raise RuntimeError(f"frame {min(missing)} of the template is missing now")
    return [crops[c.index] for c in chosen], found


def _mean_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1).mean(-1)


def _share_outside(to_frame: np.ndarray, size: tuple[int, int], region: Box) -> float:
    """Returns the share of a 9x9 grid over the region that lies outside of the picture."""
    x, y = np.meshgrid(np.linspace(region.x0, region.x1, 9), np.linspace(region.y0, region.y1, 9))
    points = np.stack([x, y], -1).reshape(1, -1, 2)
    at = head_pose.apply_transforms(points, to_frame[None])[0]
    return float(((at < 0) | (at > size)).any(-1).mean())
