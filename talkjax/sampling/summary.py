"""What a run of the sampler has to tell."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

_LISTED = 5  # ranges that the text names


@dataclasses.dataclass
class Summary:
    """Result of one run.

    Attributes:
      output: path as given.
      width, height, fps: of the output, as the template's.
      frames: written.
      audio_seconds: length of the speech track.
      frames_generated: those with a new mouth; of them `frames_interpolated` lay in short gaps
        of the face detection.
      faces_missed: [first, last] output frames without a face, passed through untouched.
      reference_frame: number of the template's frame that is the reference image.
      seconds, frames_per_second: wall-clock time of the run, compilation included.
      audio_copied: whether the audio in the output is a bit-exact copy.
      template_damaged: whether the template was cut short or damaged.
      phases: {name: seconds that the run waited for it}; the rest of `seconds` went into decoding,
        cutting, pasting and encoding.
    """

    output: str
    width: int
    height: int
    fps: float
    frames: int = 0
    audio_seconds: float = 0.0
    frames_generated: int = 0
    frames_interpolated: int = 0
    faces_missed: list[list[int]] = dataclasses.field(default_factory=list)
    reference_frame: int = 0
    seconds: float = 0.0
    frames_per_second: float = 0.0
    audio_copied: bool | None = None
    template_damaged: bool = False
    phases: dict[str, float] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time that the body takes to a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.monotonic() - began

    def add(self, generated: bool, found: bool) -> None:
        """Counts the next written frame."""
        if not generated:
            if self.faces_missed and self.faces_missed[-1][1] == self.frames - 1:
                self.faces_missed[-1][1] = self.frames
            else:
                self.faces_missed.append([self.frames, self.frames])
        self.frames += 1
        self.frames_generated += generated
        self.frames_interpolated += generated and not found

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.output}: {self.frames} frames of {self.width}x{self.height} at "
            f"{self.fps:.6g} fps, {self.audio_seconds:.2f} s of speech, made in "
            f"{self.seconds:.1f} s ({self.frames_per_second:.2f} frames/s)"
        ]
        if self.frames_interpolated:
            lines.append(f"face lost briefly in {self.frames_interpolated} frames: interpolated")
        if missed := self.frames - self.frames_generated:
            spans = [f"{a}-{b}" if b > a else f"{a}" for a, b in self.faces_missed]
            more = f" and {len(spans) - _LISTED} more" if len(spans) > _LISTED else ""
            lines.append(
                f"no face in {missed} frames ({', '.join(spans[:_LISTED])}{more}): left as it was"
            )
        if self.template_damaged:
            lines.append("the template is cut short or damaged; what could be read was used")
        return "\n".join(lines)
