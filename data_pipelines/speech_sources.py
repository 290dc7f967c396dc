"""Where the sound of `synthesize_speech` comes from: synthesizers, texts and recordings."""

import hashlib
import os
import pathlib
from dataclasses import dataclass
from typing import Any

from talkjax import files
from talkjax.errors import UserError

VOICES = ("espeak", "kokoro")
_LONGEST_TEXT = 250  # Characters; Kokoro takes 510 symbols.


@dataclass(frozen=True)
class Sources:
    """Where the sound comes from.

    Attributes:
      voices: Items of `VOICES`, which take turns; may be empty if there are recordings.
      kokoro_model: Kokoro's ONNX model, needed for its voices.
      kokoro_voices: Kokoro's voices.
      texts: Text file with one English sentence a line, or None.
      recordings: Table of recordings, or None.
      alignments: Phone times of the recordings, or None.
    """

    voices: tuple[str, ...] = ("espeak",)
    kokoro_model: str | None = None
    kokoro_voices: str | None = None
    texts: str | None = None
    recordings: str | None = None
    alignments: str | None = None

    def check(self) -> None:
        """Raises `UserError` if something is unknown or missing."""
        for name in self.voices:
            if name not in VOICES:
                raise UserError(f"there are no voices {name!r}; choose of {', '.join(VOICES)}")
        if not self.voices and not self.recordings:
            raise UserError(f"nobody speaks; give voices ({', '.join(VOICES)}) or recordings")
        if "kokoro" in self.voices and not (self.kokoro_model and self.kokoro_voices):
            raise UserError(
                "Kokoro's voices need its files kokoro-v1.0.onnx and voices-v1.0.bin; name them "
                "with --kokoro_model and --kokoro_voices"
            )
        if self.alignments and not self.recordings:
            raise UserError(
                "alignments are those of recordings; name their table with --recordings"
            )

    def describe(self) -> dict[str, Any]:
        """Describes what the clips depend on, as plain data that tells other sources apart.

        Raises:
          UserError: A file cannot be read.
        """
        read = (self.texts, self.recordings, self.alignments)
        kokoro = (self.kokoro_model, self.kokoro_voices) if "kokoro" in self.voices else ()
        return {
            "voices": list(self.voices),
            "files": [None if path is None else _digest(path) for path in read],
            "kokoro": [_size(path) for path in kokoro],  # They are large.
        }


def plan_sources(
    sources: Sources, clips: int, seed: int, settings, cache: pathlib.Path, workers: int
):
    """Plans all clips, for which recordings may have to be aligned.

    Args:
      sources: Where the sound comes from.
      clips: Number of clips of synthesizers.
      seed: Seed of all clips.
      settings: A `plan.CorpusSettings`.
      cache: Folder for the alignments.
      workers: Number of processes.

    Returns:
      The `plan.ClipPlan`s, and the numbers of recordings that were left out, by reason.

    Raises:
      UserError: A package or a file is missing or not what it should be, or no recording can be
        used.
    """
    from .recorded_speech import find_excerpts
    from .synthetic import plan
    from .synthetic.speech import kokoro
    from .synthetic.speech.voices import sample_random_voice

    names = []
    if "kokoro" in sources.voices:  # Its files are tried before any work.
        names = kokoro.Kokoro(sources.kokoro_model, sources.kokoro_voices).names

    def sample(rng, number):
        if sources.voices[number % len(sources.voices)] == "kokoro":
            return kokoro.sample_voice(rng, names)
        return sample_random_voice(rng)

    plans, dropped = [], {}
    if sources.voices:
        plans = plan.plan_speech(clips, seed, settings, sample, _read_texts(sources.texts))
    if sources.recordings:
        found = find_excerpts(
            sources.recordings,
            sources.alignments,
            cache / "alignments.jsonl",
            settings.seconds,
            workers,
        )
        plans += plan.plan_recordings(found.excerpts, found.texts, seed)
        dropped = found.dropped
    return plans, dropped


def _read_texts(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a text in UTF-8 ({files.one_line(error)})") from None
    lines = [line.strip() for line in lines]
    texts = [x for x in lines if len(x) <= _LONGEST_TEXT and any(c.isalpha() for c in x)]
    if not texts:
        raise UserError(
            f"{path} holds no sentence of at most {_LONGEST_TEXT} characters; give one a line"
        )
    # espeak-ng spells out words in capitals.
    return [text.capitalize() if text.isupper() else text for text in texts]


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
