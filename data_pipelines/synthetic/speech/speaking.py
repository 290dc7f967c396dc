"""One interface for all voices: `speak(text, voice)` gives samples and phonemes with times."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from . import espeak
from .kokoro import Kokoro, KokoroVoice
from .phonemes import Speech
from .recordings import Excerpt, hear
from .voices import Voice

AnyVoice = Voice | KokoroVoice | Excerpt
Speak = Callable[[str, AnyVoice], Speech]


@dataclass(frozen=True)
class KokoroFiles:
    """Where Kokoro's files are.

    Attributes:
      model: The ONNX model.
      voices: The voices.
      cache: Folder that keeps what was spoken, or None.
    """

    model: str | os.PathLike
    voices: str | os.PathLike
    cache: str | os.PathLike | None = None


def make_speak(files: KokoroFiles | None = None) -> Speak:
    """Returns a function that speaks a text with any voice.

    It depends on text and voice alone. An `Excerpt` of a recording is heard as it is, whatever the
    text.

    Args:
      files: Files of Kokoro; None if none of its voices is used.

    Raises:
      UserError: A package or a file is missing or is not Kokoro's.
    """
    kokoro = Kokoro(files.model, files.voices, cache=files.cache) if files else None

    def speak(text: str, voice: AnyVoice) -> Speech:
        if isinstance(voice, Excerpt):
            return hear(voice)
        if isinstance(voice, KokoroVoice):
            if kokoro is None:
                raise ValueError(f"{voice} needs Kokoro's files")
            return kokoro.speak(text, voice)
        return espeak.speak(text, voice)

    return speak
