"""Recordings of real people: a table of files and words, cut at pauses into excerpts with phonemes.

What is uncertain is left out: an alignment that does not fit the sound well, has phones of
impossible durations or other words than the transcript cannot teach when a mouth opens.
"""

import csv
import os
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from talkjax.errors import UserError

from ..animation.visemes import first_sound
from .alignments import Alignment
from .arpabet import is_pause, to_ipa
from .forced_alignment import normalize_words
from .phonemes import Phoneme, Speech, add_holds

RATE = 16_000  # Hz
_COLUMNS = ("path", "speaker", "text")
_LOWEST_SCORE = -28.0  # Half of all recordings have -16; with another one's words, -53.
_LONGEST_PHONE = 0.7  # Seconds; a phone that is longer swallowed a word or a noise.
_RATE = (3.0, 22.0)  # Phones per second of speech.
_PAUSE = 0.2  # Seconds of silence at which a recording may be cut.
_MARGIN = 0.4  # Seconds of a pause that an excerpt keeps at either end.
_SHORTEST, _LONGEST = 1.0, 20.0  # Seconds of an excerpt.


@dataclass(frozen=True)
class Recording:
    """A row of the table.

    Attributes:
      path: The sound.
      name: `path` as the table gives it.
      speaker: Name of the speaker.
      text: What is said.
      language: Language code such as "en" or "en-us".
      alignment: File with the phone times, or "".
    """

    path: str
    name: str
    speaker: str
    text: str
    language: str = "en"
    alignment: str = ""


@dataclass(frozen=True)
class Excerpt:
    """A part of a recording, which takes the place of a synthesizer's voice.

    Attributes:
      path: The sound file.
      speaker: Name of the speaker.
      language: Language code.
      start: Start in the recording, in seconds.
      end: End in the recording, in seconds.
      phonemes: (IPA symbol, start, end), in seconds of the recording.
    """

    path: str
    speaker: str
    language: str
    start: float
    end: float
    phonemes: tuple[tuple[str, float, float], ...]


def read_table(path: str | os.PathLike) -> list[Recording]:
    """Reads a tab-separated table with the columns path, speaker and text.

    The columns language and alignment are optional, others are ignored. Paths are relative to the
    table's folder.

    Raises:
      UserError: The table is missing, damaged or empty.
    """
    path = pathlib.Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a table in UTF-8 ({error})") from None
    missing = [name for name in _COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise UserError(
            f"{path} has no column {missing[0]}; its first line must name path, speaker and text, "
            "separated by tabs, and more lines must follow"
        )
    out = []
    for number, row in enumerate(rows, 2):
        if any(not isinstance(row[name], str) for name in _COLUMNS) or not row["path"]:
            raise UserError(f"{path}, line {number}: columns are missing")
        alignment = row.get("alignment") or ""
        out.append(
            Recording(
                path=os.fspath(path.parent / row["path"]),
                name=row["path"],
                speaker=row["speaker"],
                text=row["text"],
                language=row.get("language") or "en",
                alignment=os.fspath(path.parent / alignment) if alignment else "",
            )
        )
    return out


def find_alignment(found: dict[str, Alignment], recording: Recording) -> Alignment | None:
    """Finds a recording in the alignments of a file: by its path, or by its name without suffix."""
    path = pathlib.PurePath(recording.name)
    keys = (recording.name, path.with_suffix("").as_posix(), path.name, path.stem)
    return next((found[key] for key in keys if key in found), None)


def find_fault(alignment: Alignment | None, recording: Recording, seconds: float) -> str:
    """Says why an alignment cannot be trusted, in two words; "" if it can.

    Args:
      alignment: The alignment, None if there is none.
      recording: The recording.
      seconds: Its duration.
    """
    if alignment is None:
        return "not aligned"
    phones = [p for p in alignment.phones if not is_pause(p.label)]
    speech = sum(p.end - p.start for p in phones)
    if not phones or speech <= 0:
        return "not aligned"
    if alignment.words is not None:
        # Aligners mark variants of a pronunciation: "the(2)".
        said = [re.sub(r"\(\d+\)$", "", w.label) for w in alignment.words if not is_pause(w.label)]
        if [w for s in said for w in normalize_words(s)] != normalize_words(recording.text):
            return "other words"
    if alignment.score is not None and alignment.score < _LOWEST_SCORE:
        return "low score"
    ends = [p.end for p in phones]
    starts = [p.start for p in phones][1:]
    overlap = any(s < e - 0.02 for s, e in zip(starts, ends, strict=False))
    if overlap or ends[-1] > seconds + 0.1:
        return "impossible times"
    longest = max(p.end - p.start for p in phones)
    if longest > _LONGEST_PHONE or not _RATE[0] <= len(phones) / speech <= _RATE[1]:
        return "impossible times"
    known = [bool(first_sound(to_ipa(p.label, p.end - p.start))) for p in phones]
    return "unknown phones" if np.mean(known) < 0.95 else ""


def cut(
    recording: Recording, alignment: Alignment, seconds: float, wanted: float
) -> tuple[list[Excerpt], list[float]]:
    """Cuts a recording at pauses.

    Args:
      recording: The recording.
      alignment: What is said when, without fault.
      seconds: Duration of the recording.
      wanted: Approximate duration of an excerpt in seconds.

    Returns:
      The excerpts, and the durations in seconds of parts that are left out since they are too
      short, or longer than 20 s without a pause.
    """
    spoken = [
        (to_ipa(p.label, p.end - p.start), p.start, p.end)
        for p in alignment.phones
        if not is_pause(p.label) and p.end > p.start
    ]
    groups: list[list[tuple[str, float, float]]] = [[]]
    for phone in spoken:
        group = groups[-1]
        # An excerpt ends at a pause, once it is long enough.
        if group and phone[1] - group[-1][2] >= _PAUSE and group[-1][2] - group[0][1] >= wanted:
            groups.append([])
        groups[-1].append(phone)
    last = groups[-1]
    if len(groups) > 1 and last[-1][2] - last[0][1] < wanted / 2:
        tail = groups.pop()
        groups[-1] += tail
    excerpts, dropped = [], []
    for number, group in enumerate(groups):
        before = groups[number - 1][-1][2] if number else 0.0
        after = groups[number + 1][0][1] if number + 1 < len(groups) else seconds
        share = (0.5 if number else 1.0), (0.5 if number + 1 < len(groups) else 1.0)
        start = group[0][1] - min(share[0] * (group[0][1] - before), _MARGIN)
        end = group[-1][2] + max(min(share[1] * (after - group[-1][2]), _MARGIN), 0.0)
        start, end = round(max(start, 0.0), 3), round(min(end, seconds), 3)
        if not _SHORTEST <= end - start <= _LONGEST:
            dropped.append(end - start)
            continue
        phonemes = tuple((symbol, round(a, 3), round(b, 3)) for symbol, a, b in group)
        excerpts.append(
            Excerpt(recording.path, recording.speaker, recording.language, start, end, phonemes)
        )
    return excerpts, dropped


def load(path: str) -> np.ndarray:
    """Reads a recording: mono at `RATE`, (S,) float32.

    Raises:
      UserError: The file is missing or has no sound.
    """
    from talkjax.media import audio

    return audio.load_audio(path, RATE)


def measure(path: str) -> float:
    """Returns the duration of a recording in seconds.

    Raises:
      UserError: The file is missing or has no sound.
    """
    from talkjax.media import audio

    return audio.audio_duration(path)


def hear(excerpt: Excerpt, samples: np.ndarray | None = None) -> Speech:
    """Returns the sound of an excerpt, with its phonemes' times in it.

    Args:
      excerpt: The excerpt.
      samples: The whole recording at `RATE` if it was read before.
    """
    samples = load(excerpt.path) if samples is None else samples
    first = round(excerpt.start * RATE)
    samples = samples[first : round(excerpt.end * RATE)]
    shift, end = first / RATE, len(samples) / RATE
    phonemes = [
        Phoneme(symbol, max(a - shift, 0.0), min(b - shift, end))
        for symbol, a, b in excerpt.phonemes
        if min(b - shift, end) > max(a - shift, 0.0)
    ]
    return Speech(samples, RATE, add_holds(_without_overlap(phonemes), samples, RATE))


def _without_overlap(phonemes: Sequence[Phoneme]) -> list[Phoneme]:
    out: list[Phoneme] = []
    for phoneme in phonemes:
        start = max(phoneme.start, out[-1].end) if out else phoneme.start
        if phoneme.end > start:
            out.append(Phoneme(phoneme.symbol, start, phoneme.end))
    return out
