"""Bad tables of answers and keys: one line that names file and line."""

import json

import pytest

from talkjax.errors import UserError
from talkjax.user_study import answers

HEADER = ",".join(answers.COLUMNS)
KEY = {
    "study": "0123456789",
    "names": {"a": "ours", "b": "theirs"},
    "questions": ["sync"],
    "trials": {
        "t1": {"question": "sync", "clip": "x", "left": "a", "right": "b", "check": False},
        "t2": {"question": "sync", "clip": "y", "left": "b", "right": "a", "check": False},
        "c1": {"question": "sync", "clip": "y", "left": "b", "right": "b", "check": True},
    },
}
GOOD = "ann,t1,sync,left,0,3.5,0123456789"


def write(folder, *rows, header=HEADER, name="ann.csv"):
    path = folder / name
    path.write_bytes("\r\n".join((header, *rows, "")).encode())
    return path


def test_choices_become_systems(tmp_path):
    rows = [GOOD, "ann,t2,sync,left,2,4,0123456789", "ann,c1,sync,right,0,1,0123456789"]
    first, second, check = answers.read_answers([write(tmp_path, *rows)], KEY)
    assert first == answers.Vote("ann", "sync", "x", "left", "a", False, 0, 3.5)
    assert (second.winner, second.replays) == ("b", 2)
    assert check.check and check.winner is None
    none = write(tmp_path, GOOD.replace("left", "none"))
    assert answers.read_answers([none], KEY)[0].winner is None


def test_spreadsheets_may_add_a_byte_order_mark(tmp_path):
    path = write(tmp_path, GOOD)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(answers.read_answers([path], KEY)) == 1


def test_quoted_text_is_text_only(tmp_path):
    row = '"=cmd|""\n,",t1,sync,left,0,3.5,0123456789'
    assert answers.read_answers([write(tmp_path, row)], KEY)[0].rater == '=cmd|"\n,'


BAD = [
    ((GOOD.replace("t1", "t9"),), "line 2: trial 't9' is not in the key"),
    ((GOOD.replace("left", "both"),), "line 2: unknown choice 'both'"),
    ((GOOD, GOOD), r"line 3: rater 'ann' already answered trial t1 in .*line 2"),
    ((GOOD.replace("0123456789", "ffff"),), "line 2: belongs to another study"),
    ((GOOD.replace("sync", "quality"),), "line 2: question 'quality'"),
    ((GOOD.replace(",0,", ",-1,"),), "line 2: replays is '-1'"),
    ((GOOD.replace(",0,", ",1.5,"),), "line 2: replays is '1.5'"),
    ((GOOD.replace("3.5", "nan"),), "line 2: seconds is 'nan'"),
    ((GOOD.replace("3.5", "__import__('os')"),), "line 2: seconds is"),
    ((GOOD.replace("0,3.5", "9" * 400 + ",3.5"),), "line 2: replays is '999"),
    ((GOOD.replace("0,3.5", "9" * 5000 + ",3.5"),), "line 2: replays is '999"),
    ((GOOD.replace("ann", ""),), "line 2: a rater's name"),
    ((GOOD.replace("ann", "x" * 101),), "line 2: a rater's name"),
    ((GOOD, "ann,t2"), "line 3: 2 columns instead of 7"),
    ((GOOD, GOOD + ",more"), "line 3: 8 columns"),
    ((GOOD, 'ann,"t2'), "line 3: not CSV"),
    ((GOOD, "x" * 200_000), "line 3: not CSV"),
    ((), "line 1: no answers follow"),
]


@pytest.mark.parametrize(("rows", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_rows(tmp_path, rows, message):
    with pytest.raises(UserError, match=r"ann\.csv, " + message) as error:
        answers.read_answers([write(tmp_path, *rows)], KEY)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("header", ["", "a,b", HEADER.replace(",", ";"), HEADER.upper()])
def test_wrong_columns(tmp_path, header):
    with pytest.raises(UserError, match=r"ann\.csv, line 1: the columns are not"):
        answers.read_answers([write(tmp_path, GOOD, header=header)], KEY)


def test_files_that_are_no_text(tmp_path):
    path = write(tmp_path, GOOD)
    path.write_bytes(path.read_bytes() + b"b\xe9a,t2,sync,left,0,1,0123456789\n")
    with pytest.raises(UserError, match=r"ann\.csv, line 3: not UTF-8"):
        answers.read_answers([path], KEY)
    path.write_bytes(bytes(100))
    with pytest.raises(UserError, match=r"ann\.csv, line 1"):
        answers.read_answers([path], KEY)
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        answers.read_answers([tmp_path / "none.csv"], KEY)
    with pytest.raises(UserError, match="cannot be read"):
        answers.read_answers([tmp_path], KEY)


def test_the_same_answers_in_two_files(tmp_path):
    paths = [write(tmp_path, GOOD), write(tmp_path, GOOD, name="again.csv")]
    with pytest.raises(UserError, match=r"again.csv, line 2: .* already .*ann.csv, line 2"):
        answers.read_answers(paths, KEY)


def test_a_key_that_is_none(tmp_path):
    path = tmp_path / "key.json"
    path.write_text(json.dumps(KEY))
    assert answers.read_key(path) == KEY
    trial = KEY["trials"]["t1"]
    for wrong in (
        {}, [], KEY | {"trials": []}, KEY | {"names": {"a": "x"}}, KEY | {"questions": []},
        KEY | {"trials": {"t1": trial | {"left": "c"}}}, KEY | {"study": 3},
        KEY | {"trials": {"t1": trial | {"check": True}}}, KEY | {"trials": {"t1": {}}},
    ):  # fmt: skip
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match="--key="):
            answers.read_key(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="--key="):
        answers.read_key(path)
    with pytest.raises(UserError, match="--key="):
        answers.read_key(tmp_path / "none.json")
