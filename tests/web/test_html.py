"""The parts of the page that are plain HTML show names of files as they are, never as markup."""

import dataclasses
from pathlib import Path

import pytest

from talkjax.web import html
from talkjax.web.jobs import Result
from talkjax.web.limits import Limits
from talkjax.web.turns import Progress

NASTY = '<img src=x onerror="alert(1)">'


@pytest.fixture
def result(tmp_path):
    video, sheet, settings = (tmp_path / name for name in ("a b.mp4", "sheet.png", "s.json"))
    for path, size in ((video, 2_500_000), (sheet, 120_000), (settings, 1500)):
        path.write_bytes(b"0" * size)
    return Result(
        template=Path("/t/#1.mp4"), photograph=False, video=video, sheet=sheet, settings=settings,
        command=f"sample.py --video={NASTY}", text=f"one line\n{NASTY}", generated=3,
    )  # fmt: skip


def test_nothing_is_markup(result):
    for shown in (html.note(NASTY), html.error(NASTY), html.progress(Progress(NASTY, 0.5))):
        assert NASTY not in shown and "&lt;img" in shown
    shown = html.result(result)
    assert NASTY not in shown and shown.count("&lt;img") == 2


def test_a_result(result):
    shown = html.result(result)
    assert 'src="gradio_api/file=/t/%231.mp4"' in shown and "a%20b.mp4" in shown
    assert "2.5 MB" in shown and "0.1 MB" in shown and "1.5 kB" in shown
    assert "<li>One line</li>" in shown
    photograph = html.result(dataclasses.replace(result, photograph=True, sheet=None))
    assert '<img src="gradio_api/file=/t' in photograph and "Contact sheet" not in photograph


def test_progress():
    assert 'value="0.250"' in html.progress(Progress("Painting", 0.25))
    assert "value" not in html.progress(Progress("Waiting"))
    assert html.note("") == ""


def test_limits_are_told():
    shown = html.notice(Limits(upload_mb=20, keep_minutes=7))
    assert "20 MB a file" in shown and "7 minutes" in shown
    assert 'data-most-mb="20"' in html.header(Limits(upload_mb=20))
