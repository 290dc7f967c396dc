"""Bundled files, and the errors for missing ones."""

import pytest

from talkjax.errors import UserError
from talkjax.sampling import bundled

NAMES = ("people_256/model.safetensors", "people_256/config.json", "demo/template.mp4")


@pytest.fixture
def assets(monkeypatch, tmp_path):
    for name in (*NAMES, "demo/speech.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(bundled, "ASSETS", tmp_path)
    return tmp_path


def test_paths(assets):
    assert bundled.checkpoint() == assets / "people_256"
    assert bundled.template() == assets / "demo" / "template.mp4"
    assert bundled.speech() == assets / "demo" / "speech.flac"
    (assets / "demo" / "speech.wav").touch()
    assert bundled.speech().suffix == ".wav"


@pytest.mark.parametrize(
    ("name", "find", "remedy"),
    [
        (NAMES[0], bundled.checkpoint, "checkpoint=DIR"),
        (NAMES[1], bundled.checkpoint, "checkpoint=DIR"),
        (NAMES[2], bundled.template, "video=FILE"),
        ("demo/speech.flac", bundled.speech, "audio=FILE"),
    ],
)
def test_missing_file(assets, name, find, remedy):
    (assets / name).unlink()
    with pytest.raises(UserError, match=f"is missing .*{remedy}") as caught:
        find()
    assert "\n" not in str(caught.value)


def test_assets_are_in_the_package(repository):
    assert bundled.ASSETS.parent == repository / "talkjax"
