"""Wrong flags: one line, exit code 2, nothing written."""

import pytest

from talkjax import commands
from talkjax.user_study import __main__ as command

OUT, STUDY, KEY = ("--out=o",), ("--a=x", "--b=y"), ("--key=k.json",)
BAD = [
    ((), "the following arguments are required: --out"),
    (OUT, "--a=DIR and --b=DIR are required"),
    ((*OUT, "x.csv"), "counting answers requires --key"),
    ((*OUT, *STUDY), "--a=x is not a folder"),
    ((*OUT, *STUDY, "--names=one"), "give two different names"),
    ((*OUT, *STUDY, "--names=one,one"), "give two different names"),
    ((*OUT, *STUDY, "--questions=taste"), "give some of sync,quality"),
    ((*OUT, *STUDY, "--questions=sync,sync"), "once each"),
    ((*OUT, *STUDY, "--questions=sync", "--truth=t"), "--truth requires"),
    ((*OUT, *STUDY, "--checks=-1"), "--checks: -1 must be at least 0"),
    ((*OUT, *KEY), "--key requires the CSV files"),
    ((*OUT, *KEY, "x.csv"), "--key=k.json cannot be read"),
    ((*OUT, *KEY, "--a=x", "x.csv"), "cannot be combined"),
    ((*OUT, *KEY, "x.csv", "--no_such=1"), "unrecognized arguments: --no_such=1"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_flags(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    code = commands.run_main(command.main, flags)
    error = capsys.readouterr().err
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1, error
    assert message in error
    assert not list(tmp_path.iterdir())
