"""Wrong flags: one line, exit code 2, nothing written."""

import pytest
from absl import flags
from absl.testing import flagsaver

from talkjax import commands
from talkjax.user_study import __main__ as command

BAD = [
    ({"out": None}, (), "say where the result is to go"),
    ({}, (), "say what is compared"),
    ({}, ("x.csv",), "answers are counted with --key"),
    ({"a": "x", "b": "x"}, (), "--a=x is not a folder"),
    ({"a": "x", "b": "y", "names": ["one"]}, (), "give two different names"),
    ({"a": "x", "b": "y", "names": ["one", "one"]}, (), "give two different names"),
    ({"a": "x", "b": "y", "questions": ["taste"]}, (), "give some of sync,quality"),
    ({"a": "x", "b": "y", "questions": ["sync", "sync"]}, (), "once each"),
    ({"a": "x", "b": "y", "questions": ["sync"], "truth": "t"}, (), "--truth serves"),
    ({"key": "k.json"}, (), "say which answers are counted"),
    ({"key": "k.json"}, ("x.csv",), "--key=k.json cannot be read"),
    ({"key": "k.json", "a": "x"}, ("x.csv",), "give one only"),
    ({"key": "k.json"}, ("x.csv", "--out=y"), "give flags first"),
]


@pytest.mark.parametrize(("values", "rest", "message"), BAD, ids=[m for *_, m in BAD])
def test_bad_flags(tmp_path, monkeypatch, capsys, values, rest, message):
    monkeypatch.chdir(tmp_path)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(**{"out": "o", **values}):
        code = commands.run_main(command.main, ["user_study", *rest])
    error = capsys.readouterr().err
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1, error
    assert message in error
    assert not list(tmp_path.iterdir())
