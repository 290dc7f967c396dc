"""Reads the key of a study and the answers of its raters; neither file is trusted."""

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from talkjax.errors import UserError

COLUMNS = ("rater", "trial", "question", "choice", "replays", "seconds", "page")
CHOICES = ("left", "right", "none")
_MAX_NAME = 100


@dataclasses.dataclass(frozen=True)
class Vote:
    """One answer.

    Attributes:
      rater: Name of the rater, as given or generated.
      question: Name of the question, e.g. "sync".
      clip: Name of the pair; in an attention check, of the video on both sides.
      choice: "left", "right" or "none".
      winner: "a" or "b"; None without a preference and in attention checks.
      check: Whether both sides showed the same video.
      replays: Number of times that a video was played again.
      seconds: Time from the trial's appearance to the answer.
    """

    rater: str
    question: str
    clip: str
    choice: str
    winner: str | None
    check: bool
    replays: int
    seconds: float


def read_key(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the key that `study.write_study` wrote.

    Raises:
      UserError: The file cannot be read, or is not a complete key.
    """
    try:
        key = json.loads(Path(path).read_text(encoding="utf-8"))
        trials = key["trials"].values()
        whole = (
            isinstance(key["study"], str)
            and set(key["names"]) == {"a", "b"}
            and all({t["left"], t["right"]} <= {"a", "b"} for t in trials)
            and all(t["check"] == (t["left"] == t["right"]) for t in trials)
            and all(isinstance(t["clip"], str) for t in trials)
            and {t["question"] for t in trials} == set(key["questions"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--key={path} cannot be read ({error}); give OUT/key.json") from error
    if not whole:
        raise UserError(f"--key={path} is not a complete key of a study; give OUT/key.json")
    return key


def read_answers(paths: Iterable[str | os.PathLike], key: dict[str, Any]) -> list[Vote]:
    """Reads the answers of all files, in their order.

    Raises:
      UserError: A file cannot be read, is not a table of answers, belongs to another study, or
        repeats an answer. The message names the file and the line.
    """
    votes, places = [], {}
    for path in paths:
        for line, row in _read_rows(path):
            vote = _parse_vote(row, key, f"{path}, line {line}")
            answer = (vote.rater, row["trial"])
            if answer in places:
                raise UserError(
                    f"{path}, line {line}: rater {vote.rater!r} already answered trial "
                    f"{row['trial']} in {places[answer]}; keep only the newest file of every rater"
                )
            places[answer] = f"{path}, line {line}"
            votes.append(vote)
    return votes


def _read_rows(path: str | os.PathLike) -> list[tuple[int, dict[str, str]]]:
    """Returns (line number, {column: text}) of every row."""
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 text; give the file as the page saved it"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise UserError(
                f"{path}, line 1: the columns are not {','.join(COLUMNS)}; give the file as the "
                "page saved it"
            )
        for row in reader:
            if len(row) != len(COLUMNS):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(row)} columns instead of "
                    f"{len(COLUMNS)}; give the file as the page saved it"
                )
            rows.append((reader.line_num, dict(zip(COLUMNS, row, strict=True))))
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: not CSV ({error}); give the file as the page saved it"
        ) from error
    if not rows:
        raise UserError(f"{path}, line 1: no answers follow; leave the file out")
    return rows


def _parse_vote(row: dict[str, str], key: dict[str, Any], where: str) -> Vote:
    if row["page"] != key["study"]:
        raise UserError(
            f"{where}: belongs to another study (page {row['page']!r}, not {key['study']!r}); "
            "leave the file out or give its own key"
        )
    if not row["rater"] or len(row["rater"]) > _MAX_NAME:
        raise UserError(f"{where}: a rater's name must have 1 to {_MAX_NAME} characters")
    trial = key["trials"].get(row["trial"])
    if trial is None:
        raise UserError(
            f"{where}: trial {row['trial']!r} is not in the key; give the key of this study"
        )
    if row["question"] != trial["question"]:
        raise UserError(
            f"{where}: question {row['question']!r}, but trial {row['trial']} asks for "
            f"{trial['question']!r}"
        )
    if row["choice"] not in CHOICES:
        raise UserError(
            f"{where}: unknown choice {row['choice']!r}; it is one of {', '.join(CHOICES)}"
        )
    winner = None if trial["check"] or row["choice"] == "none" else trial[row["choice"]]
    return Vote(
        rater=row["rater"],
        question=trial["question"],
        clip=trial["clip"],
        choice=row["choice"],
        winner=winner,
        check=trial["check"],
        replays=int(_parse_number(row["replays"], "replays", where, whole=True)),
        seconds=_parse_number(row["seconds"], "seconds", where),
    )


def _parse_number(text: str, name: str, where: str, whole: bool = False) -> float:
    try:
        value = float(int(text) if whole else text)
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise UserError(f"{where}: {name} is {text[:40]!r}, not a number of at least 0")
    return value
