"""The video files that an evaluation compares, and their measurements; each is made once."""

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
from talkjax.metrics.measure import Measurement, VersionedDetector
from talkjax.metrics.protocol import GIVEN_ROWS, NEEDS_MODEL, ROWS
from talkjax.metrics.workspace import Workspace, safe_name

SILENCE = "silence"


class Generator(Protocol):
    """A model that generates talking-face videos.

    Attributes:
      identity: Plain data that identifies weights and settings; generated files are reused only by
        a generator of the same identity.
      crop_size: Size of the model's crop in pixels.
      region: Part of the crop that the autoencoder sees.
    """

    identity: dict[str, Any]
    crop_size: int
    region: Box

    def generate(
        self, video: str | os.PathLike, audio: str | os.PathLike, out: str | os.PathLike
    ) -> None:
        """Writes the file `out`, in which the person of `video` speaks `audio`.

        Raises:
          UserError: The files cannot be used.
        """

    def autoencode(self, regions: np.ndarray) -> np.ndarray:
        """Encodes and decodes (B, H, W, 3) uint8 regions; returns the same shape, 0 to 255."""


@dataclasses.dataclass(frozen=True)
class EvaluationClip:
    """A clip to evaluate on.

    Attributes:
      name: Unique name.
      path: Original video with its own audio.
    """

    name: str
    path: Path


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The files that one row of `talkjax.metrics.protocol` compares for one clip.

    Attributes:
      path: File that is measured.
      truth: Clip that it is compared with, and whose speech it should follow.
      paired: Whether the file and the truth show the same frames at the same times.
    """

    path: Path
    truth: EvaluationClip
    paired: bool


class EvaluationVideos:
    """The files and measurements of one evaluation of a model.

    Args:
      workspace: Folder that keeps them.
      generator: The model.
      detector: Face detector.
      seconds: Length to which longer clips are cut.
      crop_size: Size in pixels at which crops are compared, and cut for the baselines.
    """

    def __init__(
        self,
        workspace: Workspace,
        generator: Generator,
        detector: VersionedDetector,
        seconds: float,
        crop_size: int,
    ):
        self.workspace, self.generator, self.detector = workspace, generator, detector
        self.seconds, self.crop_size = seconds, crop_size
        self.rows = ROWS
        self.measure = functools.lru_cache(64)(self._measure)
        self.wave = functools.lru_cache(64)(self._load_wave)

    def prepare(self, row: str, clip: EvaluationClip, partner: EvaluationClip) -> Comparison:
        """Makes the file that a row measures for a clip, unless it exists.

        Raises:
          UserError: The file cannot be made.
        """
        if row == "cross_driven":
            return Comparison(self.generate(clip, partner), partner, False)
        if row == "copy_template":
            return Comparison(self.reencode(clip), partner, False)
        if row == "silence":
            return Comparison(self.generate(clip, clip, silent=True), clip, False)
        make = {
            "model": lambda: self.generate(clip, clip),
            "wrong_audio": lambda: self.generate(clip, partner),
            "ground_truth": lambda: self.reencode(clip),
            "autoencoder": lambda: self.autoencode(clip),
            "copy_mouth": lambda: self.copy_mouth(clip),
        }[row]
        return Comparison(make(), clip, True)

    def speech_source(self, comparison: Comparison) -> Path | None:
        """Returns the file whose speech the lips should follow, or None if there is none."""
        return comparison.truth.path

    def cache_key(self, path: Path) -> dict[str, Any]:
        """Returns everything that data derived from a file depends on."""
        detector = {k: str(v) for k, v in sorted(self.detector.versions.items())}
        return {
            "file": self.workspace.hash_file(path), "measured": [measure.VERSION, detector],
            "seconds": self.seconds,
        }  # fmt: skip

    def measure_original(self, clip: EvaluationClip) -> Measurement:
        """Measures the original of a clip.

        Raises:
          UserError: The file cannot be read, or shows no face.
        """
        measurement = self.measure(clip.path)
        if not measurement.found.any():
            raise UserError(f"{clip.name}: no face was found in it; leave it out")
        return measurement

    def reference_frames(self, clip: EvaluationClip) -> np.ndarray:
        """Returns the frame that the model takes as the reference image of each frame: (N,)."""
        return baselines.choose_reference_frames(self.measure_original(clip), self.generator.region)

    def _measure(self, path: Path) -> Measurement:
        detector = {k: str(v) for k, v in sorted(self.detector.versions.items())}
        inputs = [measure.VERSION, self.workspace.hash_file(path), detector, self.seconds]
        cached = self.workspace.get_or_make(
            "measured", path.stem, {"inputs": inputs}, ".npz",
            lambda out: measure.save_measurement(
                out, measure.measure_video(path, self.detector, self.seconds)
            ),
        )  # fmt: skip
        return measure.load_measurement(cached)

    def _load_wave(self, path: Path) -> np.ndarray:
        wave = audio.load_audio(path)
        return wave[: round(self.seconds * SAMPLE_RATE)]

    def driving_audio(self, clip: EvaluationClip, silent: bool = False) -> Path:
        """Returns the audio file for the model: the clip itself, its beginning, or silence."""
        wave = self.wave(clip.path)
        inputs = {"audio": self.workspace.hash_file(clip.path), "seconds": self.seconds}
        if silent:
            return self.workspace.get_or_make(
                SILENCE, clip.name, {"samples": len(wave)}, ".wav",
                lambda out: baselines.write_wav(out, np.zeros_like(wave)),
            )  # fmt: skip
        # A cut copy would lose the offset of a clip whose video starts after its audio.
        late = self.measure_original(clip).times[0] > 1e-3
        if late or audio.audio_duration(clip.path) <= self.seconds + 1e-3:
            return clip.path
        return self.workspace.get_or_make(
            "audio", clip.name, inputs, ".wav", lambda out: baselines.write_wav(out, wave)
        )

    def generate(
        self, template: EvaluationClip, speech: EvaluationClip, silent: bool = False
    ) -> Path:
        """Generates the person of one clip with another's speech, its own, or silence."""
        source = self.driving_audio(speech, silent)
        kind = SILENCE if silent else "self" if template == speech else "cross"
        label = template.name if kind != "cross" else f"{template.name}-{safe_name(speech.name)}"
        return self._get_or_make(
            kind, label, template,
            {"audio": self.workspace.hash_file(source), **self.generator.identity},
            lambda out: self.generator.generate(video=template.path, audio=source, out=out),
        )  # fmt: skip

    def reencode(self, clip: EvaluationClip) -> Path:
        """Encodes the original once more."""
        return self._get_or_make(
            "truth", clip.name, clip, {},
            lambda out: baselines.write_reencoded(clip.path, out, self.seconds),
        )  # fmt: skip

    def copy_mouth(self, clip: EvaluationClip) -> Path:
        """Pastes the mouth of a scene's reference frame into every frame of it."""
        measurement, references = self.measure_original(clip), self.reference_frames(clip)
        return self._get_or_make(
            "copy", clip.name, clip,
            {"references": references.tolist(), "crop_size": self.crop_size},
            lambda out: baselines.write_copied_mouth(
                clip.path, out, measurement, references, self.crop_size, self.seconds
            ),
        )  # fmt: skip

    def autoencode(self, clip: EvaluationClip) -> Path:
        """Sends the true mouth through the autoencoder."""
        generator, measurement = self.generator, self.measure_original(clip)
        return self._get_or_make(
            "roundtrip", clip.name, clip, dict(generator.identity),
            lambda out: baselines.write_round_trip(
                clip.path, out, measurement, generator.autoencode, generator.region,
                generator.crop_size, self.seconds,
            ),
        )  # fmt: skip

    def _get_or_make(
        self,
        kind: str,
        label: str,
        template: EvaluationClip,
        inputs: dict[str, Any],
        make: Callable[[Path], None],
    ) -> Path:
        inputs = inputs | {
            "video": self.workspace.hash_file(template.path),
            "seconds": self.seconds,
        }
        return self.workspace.get_or_make(kind, label, inputs, ".mp4", make)


class GivenVideos(EvaluationVideos):
    """The videos of any other system, one for each clip.

    Args:
      files: {clip name: its video}.
      workspace, detector, seconds, crop_size: See `EvaluationVideos`.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        workspace: Workspace,
        detector: VersionedDetector,
        seconds: float,
        crop_size: int,
    ):
        super().__init__(workspace, _NoGenerator(), detector, seconds, crop_size)
        self.rows = {k: v for k, v in GIVEN_ROWS.items() if k not in NEEDS_MODEL}
        self._files = files

    def prepare(  # noqa: D102
        self, row: str, clip: EvaluationClip, partner: EvaluationClip
    ) -> Comparison:
        if row == "wrong_audio":
            return Comparison(self._files[clip.name], partner, False)
        return super().prepare(row, clip, partner)

    def generate(
        self, template: EvaluationClip, speech: EvaluationClip, silent: bool = False
    ) -> Path:
        """Returns the given video of a clip."""
        if silent or template != speech:
            raise ValueError("each clip has a video with its own audio only")
        return self._files[template.name]

    def speech_source(self, comparison: Comparison) -> Path | None:
        """Returns the given video, which viewers hear; if it is silent, the clip (or None)."""
        is_given = comparison.paired and comparison.path in self._files.values()
        own = [comparison.path] if is_given else []
        return next((path for path in (*own, comparison.truth.path) if _has_audio(path)), None)


def _has_audio(path: Path) -> bool:
    with container.open_input(path) as opened:
        return container.audio_stream(opened) is not None


class _NoGenerator:
    """Stands in for the model of given videos; baselines need its region to choose a frame."""

    identity: ClassVar[dict[str, Any]] = {}
    region = MOUTH_REGION
