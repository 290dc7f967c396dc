"""Speaking typed text with espeak-ng, which the extra `speech` brings."""

from __future__ import annotations

import importlib.util
import wave
from pathlib import Path

import numpy as np

from talkjax import pipelines
from talkjax.errors import UserError

# Name -> language and timbre of espeak-ng.
VOICES = {
    "English (US), female": ("en-us", "f2"),
    "English (US), male": ("en-us", "m3"),
    "English (UK), female": ("en", "f4"),
    "English (UK), male": ("en", "m7"),
    "Deutsch, weiblich": ("de", "f2"),
    "Deutsch, männlich": ("de", "m3"),
    "Español, femenina": ("es", "f2"),
    "Español, masculina": ("es", "m3"),
    "Français, féminine": ("fr", "f2"),
    "Français, masculine": ("fr", "m3"),
    "Italiano, femminile": ("it", "f2"),
    "Italiano, maschile": ("it", "m3"),
}


def is_available() -> bool:
    """Returns whether espeak-ng is installed."""
    return importlib.util.find_spec("espeakng_loader") is not None


def speak(text: str, voice: str, out: Path, most: int) -> None:
    """Speaks a text into a WAV file.

    Args:
      text: What is said.
      voice: A name of `VOICES`.
      out: The file.
      most: Largest number of characters.

    Raises:
      UserError: The text is empty or too long or cannot be spoken, or espeak-ng is missing.
    """
    text = " ".join(text.replace("\0", " ").split())
    if not text:
        raise UserError("there is no text; type what should be said")
    if len(text) > most:
        raise UserError(f"the text has {len(text)} characters, and {most} are allowed; shorten it")
    if voice not in VOICES:
        raise UserError(f"voice={voice} is unknown; choose one of the list")
    espeak = pipelines.load("synthetic.speech.espeak")
    voices = pipelines.load("synthetic.speech.voices")
    try:
        spoken = espeak.speak(text, voices.Voice(*VOICES[voice]))
    except ValueError as error:  # it has nothing that can be said
        raise UserError("espeak-ng cannot say this text; type words") from error
    samples = np.clip(np.rint(spoken.samples * 32767), -32768, 32767).astype("<i2")
    with wave.open(str(out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(spoken.rate)
        file.writeframes(samples.tobytes())
