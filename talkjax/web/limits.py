"""What the page accepts, and the checks of templates and speech before anything is computed."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np

from talkjax.errors import UserError
from talkjax.media import audio, container
from talkjax.media import image as image_file
from talkjax.media.video import VideoFrame, probe
from talkjax.sampling.template import open_template

_RATE = 16_000
_SILENT = 10 ** (-60 / 20)  # largest sample of what nobody can hear


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of what one visitor can ask for.

    Attributes:
      upload_mb: Largest file in MB.
      storage_mb: Largest sum of all files of all visitors in MB.
      speech_seconds: Longest speech.
      template_seconds: Longest template.
      megapixels: Largest picture of a template.
      characters: Longest text.
      waiting: Number of visitors who can wait while one is served.
      keep_minutes: After how long without use a visitor's files are removed.
      live_minutes: Longest live session.
    """

    upload_mb: float = 500.0
    storage_mb: float = 5000.0
    speech_seconds: float = 120.0
    template_seconds: float = 600.0
    megapixels: float = 9.0
    characters: int = 1000
    waiting: int = 8
    keep_minutes: float = 30.0
    live_minutes: float = 10.0


@dataclasses.dataclass(frozen=True)
class TemplateInfo:
    """What is known of a template before it is used.

    Attributes:
      name: Name of the file.
      photograph: Whether it is a photograph.
      width: Width in pixels.
      height: Height in pixels.
      seconds: Length; 0 of a photograph, or where the file does not tell it.
      fps: Frame rate; 0 of a photograph.
    """

    name: str
    photograph: bool
    width: int
    height: int
    seconds: float = 0.0
    fps: float = 0.0

    def text(self) -> str:
        """Describes it in one line."""
        size = f"{self.width}×{self.height} px"
        if self.photograph:
            return f"{self.name}: photograph, {size}"
        length = f", {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.name}: video, {size}, {self.fps:.4g} fps{length}"


def check_template(path: str, limits: Limits) -> TemplateInfo:
    """Checks that a template can be read and is within the limits.

    Raises:
      UserError: It cannot be read, or is too large or too long.
    """
    name = container.display_name(path).rpartition("/")[2]
    if image_file.is_photograph(path):
        height, width = image_file.read_image(path).shape[:2]
        info = TemplateInfo(name, True, width, height)
    else:
        found = probe(path)
        seconds = found.duration_s or 0.0
        info = TemplateInfo(name, False, found.width, found.height, seconds, found.fps)
    if info.width * info.height > limits.megapixels * 1e6:
        raise UserError(
            f"{name}: its pictures have {info.width * info.height / 1e6:.1f} megapixels, and this "
            f"page takes up to {limits.megapixels:g}; scale it down"
        )
    if info.seconds > limits.template_seconds:
        raise UserError(
            f"{name}: lasts {info.seconds:.0f} s, and this page takes templates of up to "
            f"{limits.template_seconds:g} s; cut it"
        )
    return info


def check_speech(path: str, limits: Limits) -> float:
    """Checks that speech can be read, is heard, and is within the limits; returns its seconds.

    No more of the file is decoded than the limit allows.

    Raises:
      UserError: It cannot be read, is too long, or silent.
    """
    name = container.display_name(path).rpartition("/")[2]
    length, loudest = 0, 0.0
    with contextlib.closing(audio.stream_mono(path, _RATE)) as pieces:
        for piece in pieces:
            length += len(piece)
            loudest = max(loudest, float(np.abs(piece).max(initial=0.0)))
            if length > limits.speech_seconds * _RATE:
                raise UserError(
                    f"{name}: lasts longer than the {limits.speech_seconds:g} s of speech that "
                    "this page takes; cut it"
                )
    if loudest < _SILENT:
        raise UserError(f"{name}: is silent; choose another microphone or another file")
    return length / _RATE


def read_frame(path: str, seconds: float) -> VideoFrame:
    """Reads the picture that a template shows at a time, or its last one.

    Raises:
      UserError: No picture can be read.
    """
    shown = None
    for frame in open_template(path, None).frames():
        if shown is not None and frame.time > seconds + 1e-3:
            break
        shown = frame
    if shown is None:
        raise UserError(f"{container.display_name(path)}: has no picture; give a complete video")
    return shown
