"""What the page accepts, before anything is computed."""

import cv2
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.web import limits
from talkjax.web.limits import Limits
from tests.media_files import tone, write_wav
from tests.sampling import fakes

LIMITS = Limits(speech_seconds=2.0, template_seconds=1.0, megapixels=0.05)


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.zeros((50, 60, 3), np.uint8))
    return path


def test_a_template_is_described(template, photograph):
    info = limits.check_template(str(template), LIMITS)
    assert (info.width, info.height, info.photograph) == (fakes.WIDTH, fakes.HEIGHT, False)
    assert info.seconds == pytest.approx(0.48) and "face.mp4: video, 96×80 px" in info.text()
    info = limits.check_template(str(photograph), LIMITS)
    assert info.photograph and info.text() == "photo.png: photograph, 60×50 px"


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"template_seconds": 0.3}, "lasts 0 s"), ({"megapixels": 0.001}, "megapixels")],
)
def test_a_template_over_a_limit(template, changed, words):
    with pytest.raises(UserError, match=rf"^face.mp4: .*{words}"):
        limits.check_template(str(template), Limits(**changed))


def test_text_that_is_named_mp4(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("These are notes, not a video.\n" * 50)
    with pytest.raises(UserError, match="not a readable media file"):
        limits.check_template(str(path), LIMITS)
    with pytest.raises(UserError, match="not a readable media file"):
        limits.check_speech(str(path), LIMITS)


def test_speech(tmp_path, speech, template):
    assert limits.check_speech(str(speech), LIMITS) == pytest.approx(1.0)
    silent = write_wav(tmp_path / "silent.wav", np.zeros((1, 8000)), 16000)
    with pytest.raises(UserError, match=r"^silent.wav: is silent; .*microphone"):
        limits.check_speech(str(silent), LIMITS)
    with pytest.raises(UserError, match="has no audio stream"):
        limits.check_speech(str(template), LIMITS)


def test_long_speech_is_not_decoded_to_its_end(tmp_path, monkeypatch):
    path = write_wav(tmp_path / "long.wav", tone(30.0, 16000), 16000)
    read = []
    stream = limits.audio.stream_mono

    def counted(*arguments):
        for piece in stream(*arguments):
            read.append(len(piece))
            yield piece

    monkeypatch.setattr(limits.audio, "stream_mono", counted)
    with pytest.raises(UserError, match=r"^long.wav: lasts longer than the 2 s"):
        limits.check_speech(str(path), LIMITS)
    assert sum(read) < 4 * 16000


@pytest.mark.parametrize(("seconds", "index"), [(0.0, 0), (0.2, 5), (0.21, 5), (9.0, 11)])
def test_the_frame_at_a_time(template, seconds, index):
    assert limits.read_frame(str(template), seconds).index == index


def test_the_frame_of_a_photograph(photograph):
    assert limits.read_frame(str(photograph), 3.0).rgb.shape == (50, 60, 3)
