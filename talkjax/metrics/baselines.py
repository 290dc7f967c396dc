"""Videos that need no model, to compare with: all written as generated ones are.

`reencode` is the ground truth's row: what the writer and FaceMesh cost. `copy_reference` pastes
one frame's mouth into every frame: what a perfect picture without any lip motion would get.
`round_trip` sends the true mouth through the autoencoder: what diffusion could reach at best.
"""

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

Pictures = Iterable[tuple[float, np.ndarray]]


def write(source: str | os.PathLike, out: str | os.PathLike, pictures: Pictures) -> None:
    """Writes (time, (H, W, 3) uint8) pictures with the size, rate and colours of `source`."""
    with VideoWriter.like(out, probe(source)) as writer:
        for time, rgb in pictures:
            writer.write(rgb, time)


def reencode(source: str | os.PathLike, out: str | os.PathLike, seconds: float | None) -> None:
    """The original, encoded once more."""
    write(source, out, ((f.time, f.rgb) for f in measure.frames(source, seconds)))


def reference_frame(measurement: Measurement, region: Box = MOUTH_REGION) -> int:
    """The frame that sampling takes as its reference image of this template.

    Args:
      measurement: of the template.
      region: what the image models see.

    Raises:
      UserError: no face was found in it.
    """
    found = np.flatnonzero(measurement.found)
    if not len(found):
        raise UserError("no face was found in it")
    times, points = measurement.times, measurement.crop_landmarks()
    candidates = [
        Candidate(int(i), float(times[i]), Face(measurement.transforms[i], np.eye(2, 3), True),
                  points[i].astype(np.float32))
        for i in found
        if times[i] <= times[found[0]] + reference.FIRST_PASS_S
    ]  # fmt: skip
    width, height = (int(v) for v in measurement.size)
    return candidates[reference.choose_image(candidates, (width, height), region)].index


def picture(source: str | os.PathLike, number: int) -> np.ndarray:
    """Frame `number` of those that are measured: (H, W, 3) uint8."""
    return next(itertools.islice(measure.frames(source), number, None)).rgb


def copy_reference(
    source: str | os.PathLike,
    out: str | os.PathLike,
    measurement: Measurement,
    chosen: int,
    crop_size: int,
    seconds: float | None,
) -> None:
    """Pastes the mouth of frame `chosen` into every frame, by the frames' own crop transforms.

    Args:
      source: video file.
      out: video file.
      measurement: of the source.
      chosen: frame number.
      crop_size: resolution at which the mouth is cut, as a model's would be.
      seconds: where to stop.
    """
    image = crop.warp_crop(picture(source, chosen), measurement.transforms[chosen], crop_size)
    region = MOUTH_REGION.cut(image)

    def changed() -> Iterator[tuple[float, np.ndarray]]:
        for number, frame in enumerate(measure.frames(source, seconds)):
            transform = measurement.transforms[number]
            seen = np.isfinite(transform).all()
            yield frame.time, composite.paste(frame.rgb, region, transform) if seen else frame.rgb

    write(source, out, changed())


def round_trip(
    source: str | os.PathLike,
    out: str | os.PathLike,
    measurement: Measurement,
    autoencode: Callable[[np.ndarray], np.ndarray],
    region: Box,
    crop_size: int,
    seconds: float | None,
) -> None:
    """Replaces every frame's mouth by what the autoencoder makes of it.

    Args:
      source: video file.
      out: video file.
      measurement: of the source.
      autoencode: (B, H, W, 3) uint8 regions to the same shape, 0 to 255; always called with B=16.
      region: what they show, crop coordinates.
      crop_size: px.
      seconds: where to stop.
    """

    def changed() -> Iterator[tuple[float, np.ndarray]]:
        numbered = enumerate(measure.frames(source, seconds))
        while batch := list(itertools.islice(numbered, _BATCH)):
            seen = [i for i, _ in batch if np.isfinite(measurement.transforms[i]).all()]
            images = {
                i: region.cut(crop.warp_crop(f.rgb, measurement.transforms[i], crop_size))
                for i, f in batch
                if i in seen
            }
            made: dict[int, Any] = {}
            if images:
                stacked = np.stack(list(images.values()))
                padded = np.pad(stacked, [(0, _BATCH - len(stacked))] + [(0, 0)] * 3)
                made = dict(zip(images, np.asarray(autoencode(padded)), strict=False))
            for i, frame in batch:
                rgb = frame.rgb
                if i in made:
                    rgb = composite.paste(rgb, made[i], measurement.transforms[i], region)
                yield frame.time, rgb

    write(source, out, changed())


def write_wav(path: str | os.PathLike, samples: np.ndarray) -> None:
    """Writes (S,) float32 mono at 16 kHz as 16-bit PCM."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
