"""The files that an evaluation compares, and what was measured in them; each is made once."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from talkjax.conventions import MOUTH_REGION, SAMPLE_RATE, Box
from talkjax.errors import UserError
from talkjax.media import audio, container
from talkjax.metrics import baselines, measure
from talkjax.metrics.measure import Detector, Measurement
from talkjax.metrics.protocol import GIVEN_ROWS, NEEDS_MODEL, ROWS
from talkjax.metrics.workspace import Workspace, safe

SILENCE = "silence"


class Generator(Protocol):
    """A model that makes talking-face videos.

    Attributes:
      identity: names weights and settings; another one, another file in the work folder.
      crop_size: px of its crop.
      region: what its autoencoder sees.
    """

    identity: dict[str, Any]
    crop_size: int
    region: Box

    def generate(
        self, video: str | os.PathLike, audio: str | os.PathLike, out: str | os.PathLike
    ) -> None:
        """Writes the person of `video` speaking `audio` to the file `out`.

        Raises:
          UserError: it cannot be done with these files.
        """

    def autoencode(self, regions: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 regions through the autoencoder: the same shape, 0 to 255."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """A test clip: a name that is unique, and an original video with its own audio."""

    name: str
    path: Path


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One clip in one row of `talkjax.metrics.protocol`.

    Attributes:
      path: the file that is measured.
      truth: what it is compared with, and whose sound it should follow.
      paired: whether file and truth show the same at the same time.
    """

    path: Path
    truth: Clip
    paired: bool


class Videos:
    """Files and measurements of one evaluation of a model.

    Args:
      workspace: where they are kept.
      generator: the model.
      detector: face finder.
      seconds: clips are cut there.
      crop_size: px at which mouths are compared, and cut for the baselines.
    """

    def __init__(
        self,
        workspace: Workspace,
        generator: Generator,
        detector: Detector,
        seconds: float,
        crop_size: int,
    ):
        self.workspace, self.generator, self.detector = workspace, generator, detector
        self.seconds, self.crop_size = seconds, crop_size
        self.rows = ROWS
        self.measure = functools.lru_cache(64)(self._measure)
        self.wave = functools.lru_cache(64)(self._wave)

    def compare(self, row: str, clip: Clip, partner: Clip) -> Comparison:
        """What a row compares for a clip; the file is made if it is not there yet.

        Raises:
          UserError: it cannot be made.
        """
        if row == "cross_driven":
            return Comparison(self.generated(clip, partner), partner, False)
        if row == "copy_template":
            return Comparison(self.reencoded(clip), partner, False)
        if row == "silence":
            return Comparison(self.generated(clip, clip, silent=True), clip, False)
        make = {
            "model": lambda: self.generated(clip, clip),
            "wrong_audio": lambda: self.generated(clip, partner),
            "ground_truth": lambda: self.reencoded(clip),
            "autoencoder": lambda: self.round_trip(clip),
            "copy_mouth": lambda: self.copied(clip),
        }[row]
        return Comparison(make(), clip, True)

    def heard(self, what: Comparison) -> Path | None:
        """The file whose sound belongs with a comparison's pictures; None if there is none."""
        return what.truth.path

    def inputs(self, path: Path) -> dict[str, Any]:
        """What a file is, for whatever is derived from it."""
        detector = {k: str(v) for k, v in sorted(self.detector.versions.items())}
        return {
            "file": self.workspace.hash(path), "measured": [measure.VERSION, detector],
            "seconds": self.seconds,
        }  # fmt: skip

    def truth(self, clip: Clip) -> Measurement:
        """Measured in the original.

        Raises:
          UserError: it cannot be read, or shows no face.
        """
        measurement = self.measure(clip.path)
        if not measurement.found.any():
            raise UserError(f"{clip.name}: no face was found in it; leave it out")
        return measurement

    def reference(self, clip: Clip) -> int:
        """The frame that the model takes as its reference image."""
        return baselines.reference_frame(self.truth(clip), self.generator.region)

    def _measure(self, path: Path) -> Measurement:
        detector = {k: str(v) for k, v in sorted(self.detector.versions.items())}
        inputs = [measure.VERSION, self.workspace.hash(path), detector, self.seconds]
        kept = self.workspace.get(
            "measured", path.stem, {"inputs": inputs}, ".npz",
            lambda out: measure.save(out, measure.measure(path, self.detector, self.seconds)),
        )  # fmt: skip
        return measure.load(kept)

    def _wave(self, path: Path) -> np.ndarray:
        wave = audio.load_audio(path)
        return wave[: round(self.seconds * SAMPLE_RATE)]

    def driving(self, clip: Clip, silent: bool = False) -> Path:
        """The audio file that a model is given: the clip itself, its first part, or silence."""
        wave = self.wave(clip.path)
        inputs = {"audio": self.workspace.hash(clip.path), "seconds": self.seconds}
        if silent:
            return self.workspace.get(
                SILENCE, clip.name, {"samples": len(wave)}, ".wav",
                lambda out: baselines.write_wav(out, np.zeros_like(wave)),
            )  # fmt: skip
        # A clip whose pictures start later than its sound keeps its clock only if it drives itself.
        late = self.truth(clip).times[0] > 1e-3
        if late or audio.audio_duration(clip.path) <= self.seconds + 1e-3:
            return clip.path
        return self.workspace.get(
            "audio", clip.name, inputs, ".wav", lambda out: baselines.write_wav(out, wave)
        )

    def generated(self, template: Clip, speech: Clip, silent: bool = False) -> Path:
        """The model's video of one clip's person with another's audio, or its own, or silence."""
        source = self.driving(speech, silent)
        kind = SILENCE if silent else "self" if template == speech else "cross"
        label = template.name if kind != "cross" else f"{template.name}-{safe(speech.name)}"
        return self._made(
            kind, label, template,
            {"audio": self.workspace.hash(source), **self.generator.identity},
            lambda out: self.generator.generate(video=template.path, audio=source, out=out),
        )  # fmt: skip

    def reencoded(self, clip: Clip) -> Path:
        """The ground truth as a written file."""
        return self._made(
            "truth", clip.name, clip, {},
            lambda out: baselines.reencode(clip.path, out, self.seconds),
        )  # fmt: skip

    def copied(self, clip: Clip) -> Path:
        """One frame's mouth in every frame."""
        measurement, reference = self.truth(clip), self.reference(clip)
        return self._made(
            "copy", clip.name, clip, {"reference": reference, "crop_size": self.crop_size},
            lambda out: baselines.copy_reference(
                clip.path, out, measurement, reference, self.crop_size, self.seconds
            ),
        )  # fmt: skip

    def round_trip(self, clip: Clip) -> Path:
        """The true mouth through the autoencoder."""
        generator, measurement = self.generator, self.truth(clip)
        return self._made(
            "roundtrip", clip.name, clip, dict(generator.identity),
            lambda out: baselines.round_trip(
                clip.path, out, measurement, generator.autoencode, generator.region,
                generator.crop_size, self.seconds,
            ),
        )  # fmt: skip

    def _made(
        self, kind: str, label: str, template: Clip, inputs: dict, make: Callable[[Path], None]
    ) -> Path:
        inputs = inputs | {"video": self.workspace.hash(template.path), "seconds": self.seconds}
        return self.workspace.get(kind, label, inputs, ".mp4", make)


class GivenVideos(Videos):
    """Files of any other system, one for each clip.

    Args:
      files: {clip name: its video}.
      workspace, detector, seconds, crop_size: as of `Videos`.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        workspace: Workspace,
        detector: Detector,
        seconds: float,
        crop_size: int,
    ):
        super().__init__(workspace, _Nobody(), detector, seconds, crop_size)
        self.rows = {k: v for k, v in GIVEN_ROWS.items() if k not in NEEDS_MODEL}
        self._files = files

    def compare(self, row: str, clip: Clip, partner: Clip) -> Comparison:  # noqa: D102
        if row == "wrong_audio":
            return Comparison(self._files[clip.name], partner, False)
        return super().compare(row, clip, partner)

    def generated(self, template: Clip, speech: Clip, silent: bool = False) -> Path:
        """The given video of a clip."""
        if silent or template != speech:
            raise ValueError("there are videos with each clip's own audio only")
        return self._files[template.name]

    def heard(self, what: Comparison) -> Path | None:
        """A given video's own sound, as its viewers hear it; without one, the clip's, if any."""
        own = [what.path] if what.paired and what.path in self._files.values() else []
        return next((path for path in (*own, what.truth.path) if _has_sound(path)), None)


def _has_sound(path: Path) -> bool:
    with container.open_input(path) as opened:
        return container.audio_stream(opened) is not None


class _Nobody:
    """The region in which the baselines of given videos look for a reference frame."""

    identity: ClassVar[dict[str, Any]] = {}
    region = MOUTH_REGION
