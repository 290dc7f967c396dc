"""Videos to compare a model with that need no model, written by the same encoder as generated ones.

`write_reencoded` makes the ground truth's row: it shows what encoding and FaceMesh cost.
`write_copied_mouth` pastes one mouth into every frame of a scene: perfect images without lip
motion.
`write_round_trip` sends the true mouth through the autoencoder: the best that diffusion can reach.
"""

import contextlib
import itertools
import os
import wave
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from talkjax.conventions import MOUTH_REGION, SAMPLE_RATE, Box
from talkjax.errors import UserError
from talkjax.media import composite, crop
from talkjax.media.video import probe
from talkjax.media.video_writer import VideoWriter
from talkjax.metrics import measure
from talkjax.metrics.measure import Measurement
from talkjax.sampling import reference
from talkjax.sampling.faces import Candidate, Face

_BATCH = 16

TimedImages = Iterable[tuple[float, np.ndarray]]


def write_video(source: str | os.PathLike, out: str | os.PathLike, images: TimedImages) -> None:
    """Writes images with the size, frame rate and colour tags of `source`.

    Args:
      source: Video file to take these properties from.
      out: Video file to write.
      images: (time in seconds, (H, W, 3) uint8) pairs.
    """
    with VideoWriter.like(out, probe(source)) as writer:
        for time, rgb in images:
            writer.write(rgb, time)


def write_reencoded(
    source: str | os.PathLike, out: str | os.PathLike, seconds: float | None
) -> None:
    """Encodes the original once more, up to `seconds`."""
    with contextlib.closing(measure.read_frames(source, seconds)) as frames:
        write_video(source, out, ((f.time, f.rgb) for f in frames))


def choose_reference_frames(measurement: Measurement, region: Box = MOUTH_REGION) -> np.ndarray:
    """Returns the number of the frame that sampling takes as the reference image of each frame.

    It is the same for all frames of a scene.

    Args:
      measurement: Measurement of the template.
      region: Part of the crop that the image models see.

    Returns:
      (N,) int64, -1 where the scene shows no face.

    Raises:
      UserError: No face was found in the template.
    """
    if not measurement.found.any():
        raise UserError("no face was found in it")
    times, points = measurement.times, measurement.crop_landmarks()
    width, height = (int(v) for v in measurement.size)
    scenes = np.cumsum(measurement.cuts)
    chosen = np.full(len(times), -1, np.int64)
    for scene in np.unique(scenes):
        found = np.flatnonzero(measurement.found & (scenes == scene))
        candidates = [
            Candidate(int(i), float(times[i]), Face(measurement.transforms[i], np.eye(2, 3), True),
                      points[i].astype(np.float32))
            for i in found
            if times[i] <= times[found[0]] + reference.FIRST_PASS_S
        ]  # fmt: skip
        if candidates:
            place = reference.choose_images(candidates, (width, height), region)[0]
            chosen[scenes == scene] = candidates[place].index
    return chosen


def write_copied_mouth(
    source: str | os.PathLike,
    out: str | os.PathLike,
    measurement: Measurement,
    chosen: np.ndarray,
    crop_size: int,
    seconds: float | None,
) -> None:
    """Pastes the mouth of one frame into all frames of a scene, by their own crop transforms.

    Args:
      source: Video file to read.
      out: Video file to write.
      measurement: Measurement of the source.
      chosen: (N,) number of the frame whose mouth is pasted into each frame; see
        `choose_reference_frames`.
      crop_size: Resolution in pixels at which the mouth is cut, as a model's would be.
      seconds: Time at which to stop; None copies the whole file.
    """
    mouths = {}
    with contextlib.closing(measure.read_frames(source)) as frames:
        for number, frame in enumerate(itertools.islice(frames, int(chosen.max()) + 1)):
            if number in chosen:
                image = crop.warp_crop(frame.rgb, measurement.transforms[number], crop_size)
                mouths[number] = MOUTH_REGION.cut(image)

    def edited(frames: Iterable[Any]) -> Iterator[tuple[float, np.ndarray]]:
        for number, frame in enumerate(frames):
            transform = measurement.transforms[number]
            rgb = frame.rgb
            if np.isfinite(transform).all():
                rgb = composite.paste(rgb, mouths[int(chosen[number])], transform)
            yield frame.time, rgb

    with contextlib.closing(measure.read_frames(source, seconds)) as frames:
        write_video(source, out, edited(frames))


def write_round_trip(
    source: str | os.PathLike,
    out: str | os.PathLike,
    measurement: Measurement,
    autoencode: Callable[[np.ndarray], np.ndarray],
    region: Box,
    crop_size: int,
    seconds: float | None,
) -> None:
    """Replaces every frame's mouth by the autoencoder's reconstruction of it.

    Args:
      source: Video file to read.
      out: Video file to write.
      measurement: Measurement of the source.
      autoencode: Maps (16, H, W, 3) uint8 regions to their reconstructions, 0 to 255.
      region: Part of the crop that the regions show.
      crop_size: Size of the crop in pixels.
      seconds: Time at which to stop; None takes the whole file.
    """

    def edited(frames: Iterable[Any]) -> Iterator[tuple[float, np.ndarray]]:
        numbered = enumerate(frames)
        while batch := list(itertools.islice(numbered, _BATCH)):
            regions = {
                i: region.cut(crop.warp_crop(f.rgb, measurement.transforms[i], crop_size))
                for i, f in batch
                if np.isfinite(measurement.transforms[i]).all()
            }
            made: dict[int, Any] = {}
            if regions:
                stacked = np.stack(list(regions.values()))
                padded = np.pad(stacked, [(0, _BATCH - len(stacked))] + [(0, 0)] * 3)
                made = dict(zip(regions, np.asarray(autoencode(padded)), strict=False))
            for i, frame in batch:
                rgb = frame.rgb
                if i in made:
                    rgb = composite.paste(rgb, made[i], measurement.transforms[i], region)
                yield frame.time, rgb

    with contextlib.closing(measure.read_frames(source, seconds)) as frames:
        write_video(source, out, edited(frames))


def write_wav(path: str | os.PathLike, samples: np.ndarray) -> None:
    """Writes (S,) float32 mono samples at 16 kHz as 16-bit PCM."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
