"""All that the page does for its visitors, without a page."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media import audio
from talkjax.sampling import command
from talkjax.sampling.options import Options
from talkjax.web import jobs, text_to_speech
from tests.media_files import write_wav
from tests.sampling import fakes

ONE_STEP = Options(steps=1)


def run(work):
    assert work.wait(120)
    assert work.error is None and not work.stopped, work.error
    return work.result


def files(store):
    return [path for path in store.root.rglob("*") if path.is_file() and path.name != "lock"]


def test_a_result_and_what_made_it(service, anna, store):
    result = run(service.generate(anna, ONE_STEP))
    assert result.generated == 10 and result.video.name == "talking.mp4"
    settings = json.loads(result.settings.read_text())
    assert settings["options"]["steps"] == 1
    assert settings["checkpoint"] == service.sampler.fingerprint
    assert settings["command"] == result.command and str(store.root) not in json.dumps(settings)
    assert result.command == (
        "uv run sample.py --video=face.mp4 --audio=speech.wav --out=talking.mp4 --steps=1"
    )
    assert str(store.root) not in result.text and "10 frames" in result.text
    # The next result takes the place of the last; another template leaves the result whole.
    newer = run(service.generate(anna, ONE_STEP))
    assert not result.video.exists() and newer.video.exists()
    service.drop(anna, "template")
    assert newer.template.is_file() and newer.template.suffix == ".mp4"
    service.leave(anna)
    assert not files(store)


def test_what_is_missing_is_said(service, upload, template):
    with pytest.raises(UserError, match="there is no template yet; give a video or a photograph"):
        service.generate("anna", ONE_STEP)
    service.take_template("anna", upload(template))
    with pytest.raises(UserError, match="there is no speech yet"):
        service.generate("anna", ONE_STEP)
    with pytest.raises(UserError, match="steps=-1 is out of range"):
        service.prepare("anna", Options(steps=-1))


@pytest.mark.parametrize("kind", ["text", "silence", "no audio"])
def test_bad_uploads_are_removed_and_nothing_else(service, anna, upload, store, tmp_path, kind):
    before = files(store)
    if kind == "text":
        path, role = tmp_path / "notes.mp4", "template"
        path.write_text("notes\n" * 100)
    elif kind == "silence":
        path, role = write_wav(tmp_path / "s.wav", np.zeros((1, 8000)), 16000), "speech"
    else:
        path, role = fakes.make_template(tmp_path / "m.mp4"), "speech"
    bad = upload(path, folder="bad")
    with pytest.raises(UserError) as caught:
        (service.take_template if role == "template" else service.take_speech)(anna, bad)
    line = service.explain(caught.value)
    assert line.startswith(f"{path.name}: ") and "\n" not in line
    assert not Path(bad).exists() and service.store.get(anna, role) is None
    assert len(files(store)) == len(before) - 1  # what had the role before is replaced


def test_a_template_without_a_face(service, anna, store, fake):
    fake.generated = 0
    work = service.generate(anna, ONE_STEP)
    assert work.wait(120)
    assert work.error.startswith("face.mp4: no face was found") and "\n" not in work.error
    fake.generated = 3
    assert run(service.generate(anna, ONE_STEP)).generated == 3  # nothing is lost


def test_the_second_visitor_waits_and_the_first_may_leave(
    service, anna, upload, template, speech, store, fake
):
    service.take_template("ben", upload(template, folder="a"))
    service.take_speech("ben", upload(speech, folder="b"))
    fake.hold()
    first = service.generate(anna, ONE_STEP)
    assert fake.begun.wait(60)
    with pytest.raises(UserError, match="the last job of this page has not ended"):
        service.generate(anna, ONE_STEP)
    second = service.generate("ben", ONE_STEP)
    while second.progress.text == "Starting":
        assert not second.wait(0.01)
    assert second.progress.text == "Waiting: one person is before you"
    folder = store.folder(anna)
    service.leave(anna)  # in the middle: files stay until the work sees it
    assert folder.exists()
    fake.go.set()
    assert run(second).generated == 10
    assert first.wait(60) and first.stopped and first.error is None
    assert not folder.exists()
    service.leave("ben")
    assert not files(store)


def test_a_template_that_is_replaced_under_work_stays_until_its_end(
    service, anna, upload, fake, tmp_path
):
    fake.hold()
    work = service.generate(anna, ONE_STEP)
    old = Path(service.store.get(anna, "template"))
    other = fakes.make_template(tmp_path / "other.mp4", 5)
    service.take_template(anna, upload(other, folder="other"))
    assert old.exists()
    fake.go.set()
    run(work)
    assert not old.exists()


def test_stopping(service, anna, fake):
    fake.hold()
    work = service.generate(anna, ONE_STEP)
    service.stop(anna)
    fake.go.set()
    assert work.wait(60) and work.stopped
    service.stop("nobody")
    run(service.generate(anna, ONE_STEP))


def test_a_face_is_chosen_by_a_click(service, anna):
    picture = service.show_frame(anna, 0.2)
    assert picture.read_bytes()[:2] == b"\xff\xd8"
    choice = service.choose_face(anna, 0.2, (48.0, 36.0))
    assert choice.face == "0.200s:48,36" and not picture.exists() and choice.picture.exists()
    result = run(service.generate(anna, Options(face=choice.face)))
    assert "--face=0.200s:48,36" in result.command
    with pytest.raises(UserError, match="no face is there at that time; give one of the points"):
        service.choose_face(anna, 0.2, (5000.0, 36.0))


def test_flags_of_the_command():
    changed = {"steps": 2, "keep_occlusions": False, "reference_sound": False, "face": "speaking"}
    line = jobs.command_line("my film.mp4", "a.wav", changed)
    words = shlex.split(line)
    assert words[:4] == ["uv", "run", "sample.py", "--video=my film.mp4"]
    given = command.make_parser().parse_args(words[3:])
    assert {name: getattr(given, name) for name in changed} == changed


@pytest.mark.skipif(not text_to_speech.is_available(), reason="uv sync --extra speech")
def test_text(service, store):
    path = service.say("anna", "Hello,\nwho are you?", "English (UK), male")
    assert 0.5 < audio.audio_duration(path) < 2.0
    assert service.store.get("anna", "speech") == str(path)
    for text, words in (("  ", "no text"), ("a" * 41, "41 characters"), ("¿?", "cannot say")):
        with pytest.raises(UserError, match=words):
            service.say("anna", text, "English (UK), male")
    with pytest.raises(UserError, match="is unknown"):
        service.say("anna", "Hello", "nobody")
    newer = service.say("anna", "Good day", "Deutsch, weiblich")
    assert newer.exists() and not path.exists()
