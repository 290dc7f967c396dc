"""Removes the offset between sound and picture that recordings of a person have.

Cameras and recorders delay sound or picture, by an amount that often stays the same for all of a
person's clips. A network that learns from such clips learns the average offset, and blurs its lips.
`evaluate.py --landmarks_only` measures the lag of its predictions by person; its report is the
table of offsets.
"""

import os

from talkjax import files
from talkjax.conventions import MELS_PER_SECOND
from talkjax.data import records
from talkjax.errors import UserError

_CERTAIN_MS = 60.0  # widest 95% interval of an offset that is removed


def read_offsets(path: str | os.PathLike) -> dict[str, float]:
    """Reads the offsets of people from a report of `evaluate.py --landmarks_only`.

    People whose lag has no interval, because they have one clip, or one wider than 60 ms are left
    out: so uncertain an offset is not removed.

    Args:
      path: The report, JSON.

    Returns:
      {person: milliseconds}, positive where the sound is later than the picture.

    Raises:
      UserError: The file is missing or no such report.
    """
    remedy = "give the report that evaluate.py --landmarks_only --split=train --out=FILE wrote"
    report = files.read_json_object(files.as_path(path), remedy)
    try:
        found = {}
        for person, entry in report["people"].items():
            lag = entry["best_lag_ms"]
            if lag["ci95"] is not None and lag["ci95"][1] - lag["ci95"][0] <= _CERTAIN_MS:
                found[person] = float(lag["mean"])
        return found
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        raise UserError(f"{path} is not a report of landmarks by person; {remedy}") from None


def offset_of(clip_id: str, offsets: dict[str, float]) -> int:
    """Returns how much later a clip's sound is than its picture, in whole mel frames of 10 ms.

    Args:
      clip_id: Id of the clip.
      offsets: Output of `read_offsets`; 0 for people who are not in it.
    """
    return round(offsets.get(records.person_of(clip_id), 0.0) * MELS_PER_SECOND / 1000)
