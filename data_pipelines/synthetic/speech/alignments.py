"""Reads phone times from the files of aligners: Praat's TextGrid, CTM, and JSON lines."""

import json
import math
import os
import pathlib
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from talkjax.errors import UserError

SUFFIXES = (".textgrid", ".ctm", ".jsonl")
_PHONE_TIERS = ("phones", "phone", "phonemes", "segments", "mau")  # The last one is WebMAUS'.
_WORD_TIERS = ("words", "word", "ort-mau")
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|<(exists|absent)>|([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)')


class Segment(NamedTuple):
    """A stretch of sound with its label, from `start` to `end` in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Alignment:
    """What is said when in a recording.

    Attributes:
      phones: Phones and pauses in order.
      words: Words and pauses in order; None if they are not known.
      score: Mean log-likelihood of the frames of speech, if the aligner gave one.
    """

    phones: list[Segment] = field(default_factory=list)
    words: list[Segment] | None = None
    score: float | None = None


def read_alignments(path: str | os.PathLike) -> dict[str, Alignment]:
    """Reads a file with the alignments of one recording or many.

    Args:
      path: A file whose suffix is one of `SUFFIXES`, in any case.

    Returns:
      Alignments by the name of the recording as the file gives it: a path, or a name without
      suffix. A TextGrid is of the recording that has its own name.

    Raises:
      UserError: The file is missing, damaged or of an unknown kind.
    """
    path = pathlib.Path(path)
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise UserError(f"{path} is no alignment; give a file {', '.join(SUFFIXES)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")  # Praat writes UTF-16 if a label needs it.
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
        if kind == ".textgrid":
            return {path.stem: parse_textgrid(text)}
        return parse_ctm(text) if kind == ".ctm" else parse_json_lines(text)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        detail = " ".join(str(error).split())[:100]
        raise UserError(f"{path} is damaged or is not an alignment ({detail})") from None


def parse_textgrid(text: str) -> Alignment:
    """Parses a TextGrid in Praat's long or short text format.

    Raises:
      ValueError: The text is not a TextGrid, or has no tier of phones.
    """
    # What the long format says besides the values of the short one: "item [1]:", "xmin = ".
    bare = re.sub(r'("(?:[^"]|"")*")|!.*|\[\d*\]', lambda m: m[1] or "", text)
    tokens = [
        match[1].replace('""', '"') if match[1] is not None else match[2] or float(match[3])
        for match in _TOKEN.finditer(bare)
    ]
    if tokens[:2] != ["ooTextFile", "TextGrid"]:
        raise ValueError("not a TextGrid in a text format")
    values = iter(tokens[5:])  # After the times, "exists" and ...
    if tokens[4] != "exists":
        raise ValueError("no tiers")
    tiers = {}
    try:
        for _ in range(int(next(values))):  # ... before the number of tiers.
            kind, name, _, _, count = (next(values) for _ in range(5))
            size = 3 if kind == "IntervalTier" else 2
            rows = [[next(values) for _ in range(size)] for _ in range(int(count))]
            if size == 3:
                tiers[str(name).strip().lower()] = [
                    _segment(label, start, end) for start, end, label in rows
                ]
    except StopIteration:
        raise ValueError("the file ends early") from None
    phones = next((tiers[name] for name in _PHONE_TIERS if name in tiers), None)
    if phones is None:
        # The aligner's name or the speaker's may stand before: "anna - phones".
        phones = next((t for n, t in tiers.items() if n.endswith(_PHONE_TIERS[:3])), None)
    if phones is None:
        raise ValueError(f"no tier named phones among {', '.join(tiers) or 'none'}")
    words = next((t for n, t in tiers.items() if n.endswith(_WORD_TIERS)), None)
    return Alignment(phones, words)


def parse_ctm(text: str) -> dict[str, Alignment]:
    """Parses lines "recording channel start duration phone [confidence]", as Kaldi writes them.

    Raises:
      ValueError: A line has another form.
    """
    found: dict[str, list[Segment]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts or line.startswith(";;"):
            continue
        if len(parts) < 5:
            raise ValueError(f"line {number} has {len(parts)} of 5 columns")
        name, _, start, duration, label = parts[:5]
        begin = float(start)
        found.setdefault(name, []).append(_segment(label, begin, begin + float(duration)))
    return {name: Alignment(sorted(rows, key=lambda s: s.start)) for name, rows in found.items()}


def parse_json_lines(text: str) -> dict[str, Alignment]:
    """Parses lines {"path", "score", "words": [[word, start, end, [[phone, start, end], ...]]]}.

    Raises:
      ValueError, KeyError, TypeError: A line has another form.
    """
    found = {}
    for line in filter(str.strip, text.splitlines()):
        row = json.loads(line)
        words = [_segment(*word[:3]) for word in row["words"]]
        phones = [_segment(*phone) for word in row["words"] for phone in word[3]]
        score = row.get("score")
        found[str(row["path"])] = Alignment(phones, words, None if score is None else float(score))
    return found


def to_json_line(name: str, alignment: Alignment) -> str:
    """Writes an alignment with words in the form that `parse_json_lines` reads."""
    words = [
        [*word, [list(p) for p in alignment.phones if word.start <= p.start < word.end]]
        for word in alignment.words or []
    ]
    score = None if alignment.score is None else round(alignment.score, 2)
    return json.dumps({"path": name, "score": score, "words": words}, ensure_ascii=False)


def _segment(label, start, end) -> Segment:
    if isinstance(label, float):  # A label without quotation marks.
        label = f"{label:g}"
    start, end = float(start), float(end)
    if not (math.isfinite(start) and math.isfinite(end) and end >= start >= -0.01):
        raise ValueError(f"{label!r} from {start} to {end}")
    return Segment(str(label).strip(), max(start, 0.0), end)
