"""What the first seconds of a scene show of its person."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from talkjax.media import outline, reference_warp
from talkjax.media.appearance import FaceAppearance
from talkjax.models.landmark_completion import References
from talkjax.sampling import reference
from talkjax.sampling.faces import Candidate, normalize_candidates

if TYPE_CHECKING:
    from talkjax.media.video import VideoFrame
    from talkjax.sampling.options import Options
    from talkjax.sampling.sampler import Sampler
    from talkjax.sampling.speech import TemplateSound


class Person(NamedTuple):
    """What the first seconds of a scene show of the person.

    Attributes:
      frame: Number of the template's frame that is the first reference image.
      images: (R, H, W, 3) uint8 reference images.
      sharp_images: (R, h, w, 3) uint8 the same at the template's resolution.
      image_landmarks: (R, 131, 2) their landmarks, crop coordinates.
      shape: (74, 2) pose points at rest.
      pose: (74, 2) pose points in the first reference image, crop coordinates.
      widest: How wide the mouth opens (`outline.widest`).
      references: Reference frames of the landmark network.
      appearance: What frames are compared with.
    """

    frame: int
    images: np.ndarray
    sharp_images: np.ndarray
    image_landmarks: np.ndarray
    shape: np.ndarray
    pose: np.ndarray
    widest: float
    references: References
    appearance: FaceAppearance


def find_person(
    sampler: Sampler,
    candidates: Sequence[Candidate],
    frames: Iterator[VideoFrame],
    size: tuple[int, int],
    sound: TemplateSound,
    options: Options,
) -> Person:
    """Chooses and reads the references of a scene.

    Args:
      sampler: The networks' sizes, boxes and numbers of references are used.
      candidates: Measured faces of the scene's first seconds, at least one.
      frames: Frames of the template, which are read only as far as they are needed.
      size: (width, height) of the frames.
      sound: Sound of the template.
      options: Options of sampling.
    """
    networks, keep_occlusions = sampler.networks, options.keep_occlusions
    places = reference.choose_images(
        candidates, size, sampler.region, sampler.references_for(options)
    )
    thumbnails = [c.thumbnail for c in candidates if c.thumbnail is not None]
    candidates, shape = normalize_candidates(candidates)
    chosen = [candidates[place] for place in places]
    side = networks.crop_size
    if sampler.warps_references(options):
        side = reference_warp.native_size(chosen[0].face.transform, side)
    searched = candidates if keep_occlusions else []
    crops, overlay = reference.read_crops(frames, chosen, searched, side, sampler.mask)
    if overlay is not None:
        crops = [
            overlay.erase(image, c.face.transform) for image, c in zip(crops, chosen, strict=True)
        ]
    first = reference_warp.shrink(np.stack(crops[:1]), (networks.crop_size,) * 2)[0]
    appearance = FaceAppearance(first, thumbnails if keep_occlusions else [], overlay)
    sharp = np.stack([sampler.region.cut(appearance.relight(image)) for image in crops])
    landmarks = np.stack([c.landmarks for c in candidates])
    heard = sound.read(np.array([c.time for c in candidates]))
    return Person(
        frame=chosen[0].index,
        images=reference_warp.shrink(sharp, networks.image_size),
        sharp_images=_on_disk(sharp) if sampler.warps_references(options) else sharp,
        image_landmarks=landmarks[places],
        shape=shape,
        pose=chosen[0].face.pose(shape),
        widest=outline.widest(landmarks),
        references=reference.choose_landmarks(candidates, sampler.references, heard),
        appearance=appearance,
    )


def _on_disk(images: np.ndarray) -> np.ndarray:
    """Moves images to an unnamed file, so that memory does not grow with the number of scenes."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:  # a full disk
        file.write(images.tobytes())
        file.flush()
        return np.memmap(file, np.uint8, "r", shape=images.shape)
    return images
