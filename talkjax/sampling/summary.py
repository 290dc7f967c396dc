"""The result of a run of the sampler."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from talkjax.media.audio_mux import AudioTrack

_MAX_LISTED = 5  # ranges of frames that the text names


@dataclasses.dataclass
class Summary:
    """What one run produced, and how long it took.

    Attributes:
      output: Path of the output, as given.
      width: Width of the output and of the template in pixels.
      height: Height of the output and of the template in pixels.
      fps: Frame rate of the output and of the template.
      frames: Number of frames written.
      audio_seconds: Length of the speech track.
      frames_generated: Number of frames with a generated mouth.
      frames_interpolated: Number of generated frames that lie in short gaps of the face detection.
      frames_occluded: Number of frames that are unchanged because something hides the mouth.
      frames_partly_occluded: Number of generated frames in which the pixels of something before the
        face were kept.
      faces_missed: [first, last] ranges of output frames without a face, which are unchanged.
      reference_frame: Number of the template's frame that is the reference image of the first
        scene that shows a face.
      reference_sound: Whether the template's own sound told how the person speaks.
      scenes: For each scene that was used and shows a face, {"first", "last", "reference_frame"}:
        numbers of the template's frames. A scene begins at a cut, or with another face.
      seconds: Wall-clock time of the run, including compilation.
      frames_per_second: `frames` / `seconds`.
      audio_copied: Whether the audio of the output is a bit-exact copy.
      audio_source_codec: FFmpeg's name of the codec of the speech track.
      audio_codec: FFmpeg's name of the codec of the output's audio.
      audio_tracks: Number of audio tracks in the file of the speech track.
      audio_track: Number of the one that was used, from 0.
      audio_left_out: Number of recordings in that file that were not used, see `media.glued_wav`.
      template_damaged: Whether the template is truncated or damaged.
      phases: Seconds that the run waited for each phase, by name. The rest of `seconds` was spent
        on decoding, cropping, pasting and encoding.
      notes: What else the user should know about the output, one sentence each.
    """

    output: str
    width: int
    height: int
    fps: float
    frames: int = 0
    audio_seconds: float = 0.0
    frames_generated: int = 0
    frames_interpolated: int = 0
    frames_occluded: int = 0
    frames_partly_occluded: int = 0
    faces_missed: list[list[int]] = dataclasses.field(default_factory=list)
    reference_frame: int = 0
    reference_sound: bool = False
    scenes: list[dict[str, int]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    frames_per_second: float = 0.0
    audio_copied: bool | None = None
    audio_source_codec: str | None = None
    audio_codec: str | None = None
    audio_tracks: int = 1
    audio_track: int = 0
    audio_left_out: int = 0
    template_damaged: bool = False
    phases: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time that the body takes to a phase."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.monotonic() - start

    def add(
        self, generated: bool, found: bool, occluded: bool = False, covered: bool = False
    ) -> None:
        """Counts the next written frame.

        Args:
          generated: Whether it has a generated mouth.
          found: Whether its face was measured and not interpolated.
          occluded: Whether it is unchanged because something hides the mouth.
          covered: Whether something covers a part of the generated mouth.
        """
        if not generated and not occluded:
            if self.faces_missed and self.faces_missed[-1][1] == self.frames - 1:
                self.faces_missed[-1][1] = self.frames
            else:
                self.faces_missed.append([self.frames, self.frames])
        self.frames += 1
        self.frames_generated += generated
        self.frames_interpolated += generated and not found
        self.frames_occluded += occluded
        self.frames_partly_occluded += covered

    def describe_audio(self, audio: AudioTrack) -> None:
        """Notes what becomes of the sound."""
        self.audio_copied, self.audio_left_out = audio.copied, audio.left_out
        self.audio_source_codec, self.audio_codec = audio.source_codec, audio.codec
        self.audio_tracks, self.audio_track = audio.tracks, audio.track

    def as_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """Describes the run in a few lines."""
        lines = [
            f"{self.output}: {self.frames} frames of {self.width}x{self.height} at "
            f"{self.fps:.6g} fps for {self.audio_seconds:.2f} s of speech, generated in "
            f"{self.seconds:.1f} s ({self.frames_per_second:.2f} frames/s)"
        ]
        lines += self._audio_lines()
        if self.frames_interpolated:
            lines.append(
                f"the face was lost briefly in {self.frames_interpolated} frames, which were "
                "interpolated"
            )
        if self.frames_occluded or self.frames_partly_occluded:
            lines.append(
                f"something is before the face: {self.frames_occluded} frames are unchanged, and "
                f"{self.frames_partly_occluded} show it over the new mouth; "
                "--no_keep_occlusions paints over it"
            )
        if missed := self.frames - self.frames_generated - self.frames_occluded:
            spans = [f"{a}-{b}" if b > a else f"{a}" for a, b in self.faces_missed]
            more = len(spans) - _MAX_LISTED
            listed = ", ".join(spans[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
            lines.append(f"no face was found in {missed} frames ({listed}), which are unchanged")
        if len(self.scenes) > 1:
            starts = [str(scene["first"]) for scene in self.scenes]
            more = len(starts) - _MAX_LISTED
            listed = ", ".join(starts[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
            lines.append(
                f"{len(self.scenes)} scenes of the template show a face (from its frames {listed} "
                "on); each has a reference image of its own"
            )
        if self.template_damaged:
            lines.append("the template is truncated or damaged; the readable part was used")
        return "\n".join(lines + self.notes)

    def _audio_lines(self) -> list[str]:
        lines = []
        if self.audio_codec:
            done = "copied" if self.audio_copied else f"encoded as {self.audio_codec}"
            lines.append(f"the sound ({self.audio_source_codec}) was {done}")
        if self.audio_tracks > 1:
            lines.append(
                f"of {self.audio_tracks} audio tracks, number {self.audio_track} was used; "
                "--audio_track chooses another"
            )
        if self.audio_left_out:
            lines.append(
                f"the audio file holds {self.audio_left_out} more recordings in another format, "
                "which were left out; convert them to one format"
            )
        return lines
