"""The command `sample.py`, also with flags left out."""

import json
import re
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from talkjax import commands
from talkjax.media.video import VideoReader
from talkjax.metrics import run_sheet
from talkjax.personalization import personalize
from talkjax.sampling import Options, Sampler, bundled, command, pipeline
from talkjax.sampling.template import open_template
from tests.sampling import fakes


class Mesh(fakes.ScriptedMesh):
    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    (folder / "demo").mkdir()
    fakes.save_checkpoint(folder / "people_256")
    fakes.make_template(folder / "demo" / "template.mp4", 8)
    fakes.make_speech(folder / "demo" / "speech.wav", 0.4)
    return folder


@pytest.fixture
def here(assets, monkeypatch, tmp_path):
    """An empty working directory, a tiny bundle and a scripted face."""
    monkeypatch.setattr(bundled, "ASSETS", assets)
    monkeypatch.setattr(pipeline, "make_detector", lambda face: Mesh())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    fast = ["--steps=1", "--batch=8", "--quiet"]
    return commands.run_main(command.main, [*fast, *map(str, arguments)])


def test_without_flags(here, capsys):
    assert run("--summary=s.json") == 0
    assert sorted(p.name for p in (here / "out").iterdir()) == ["demo.mp4", "demo.png"]
    assert len(list(VideoReader(here / "out" / "demo.mp4"))) == 10
    phases = json.loads((here / "s.json").read_text())["phases"]
    assert {"importing", "loading", "first faces", "denoising", "sheet"} <= phases.keys()
    assert all(seconds >= 0 for seconds in phases.values())
    sheet = cv2.imread(str(here / "out" / "demo.png"))
    assert sheet.shape[1] > 8 * 150 and sheet.std() > 10
    assert run() == 0  # the folder is there already
    assert "".join(capsys.readouterr()) == ""


def test_own_speech_and_own_template(here):
    speech, video = fakes.make_speech(here / "a.wav", 0.2), fakes.make_template(here / "v.mp4", 3)
    assert run(f"--audio={speech}", "--out=a.mp4") == 0
    assert len(list(VideoReader(here / "a.mp4"))) == 5
    assert run(f"--video={video}", "--out=v.mp4") == 2  # the template itself
    assert run(f"--video={video}", "--out=w.mp4") == 0
    assert len(list(VideoReader(here / "w.mp4"))) == 10
    assert not (here / "out").exists()
    assert not list(here.glob("*.png"))


def test_a_result_without_a_new_mouth_is_no_success(here, monkeypatch, capsys):
    class LateMesh(Mesh):
        def detect(self, rgb):
            faces = super().detect(rgb)
            return faces if self.calls > 12 else faces[:0]

    monkeypatch.setattr(pipeline, "make_detector", lambda face: LateMesh())
    video = fakes.make_template(here / "v.mp4", 16)  # the face comes after the speech has ended
    assert run(f"--video={video}", "--out=v_out.mp4", "--summary=s.json") == 3
    warning = "warning: v_out.mp4: no frame has a new mouth, because no face is seen\n"
    assert capsys.readouterr().err == warning
    assert json.loads((here / "s.json").read_text())["frames_generated"] == 0
    assert len(list(VideoReader(here / "v_out.mp4"))) == 10  # complete, with the template's frames


def test_given_checkpoint_replaces_the_bundled_one(here, assets, monkeypatch, capsys):
    part = shutil.copytree(assets, here / "part")
    (part / "people_256").rename(here / "mine")
    monkeypatch.setattr(bundled, "ASSETS", part)
    assert run() == 2
    error = capsys.readouterr().err
    assert (
        "the bundled checkpoint is missing" in error
        and "--checkpoint=DIR" in error
        and error.count("\n") == 1
    )
    assert not (here / "out").exists()
    assert run("--checkpoint=mine", "--sheet=s.png") == 0
    assert (here / "s.png").exists() and not (here / "out" / "demo.png").exists()


def test_the_label_can_be_left_out(here):
    comments = []
    for flags in ([], ["--no_metadata"]):
        assert run("--out=o.mp4", *flags) == 0
        with av.open(str(here / "o.mp4")) as container:
            comments.append(container.metadata.get("comment", ""))
    assert comments[0].startswith("synthetic: lip-synced; tool: talkjax ") and not comments[1]


def test_the_checkpoint_is_first_adapted_to_the_person(here, assets, monkeypatch):
    asked = []

    def adapt(video, out, **options):
        asked.append((video, options["minutes"], options["checkpoint"]))
        fakes.save_checkpoint(out)

    monkeypatch.setattr(personalize, "personalize", adapt)
    opened, load = [], Sampler.from_pretrained
    monkeypatch.setattr(Sampler, "from_pretrained", lambda path: opened.append(path) or load(path))
    person = fakes.make_template(here / "person.mp4", 8)
    assert run(f"--video={person}", "--personalize=2", "--out=said.mp4") == 0
    assert asked == [(str(person), 2.0, assets / "people_256")]
    assert opened == [Path("said_person")] and (here / "said.mp4").exists()


def test_no_folder_for_the_output(here, capsys):
    (here / "out").touch()
    assert run() == 2
    assert re.search("out: cannot be created .*; give --out=FILE", capsys.readouterr().err)


def test_sheet_of_a_photograph_and_of_frames_without_a_face(here, assets):
    image = here / "face.png"
    cv2.imwrite(str(image), fakes.picture(0))
    assert run(f"--image={image}", "--out=i.mp4", "--sheet=i.png") == 0
    assert (here / "i.png").stat().st_size > 1000

    def script(i):
        return [fakes.face_at(i)] if i < 20 else []

    sheet = run_sheet.RunSheet(seconds=1.5)
    video = fakes.make_template(here / "long.mp4", 50)
    Sampler.from_pretrained(assets / "people_256").generate(
        video=video, audio=fakes.make_speech(here / "two.wav", 2.0), out=here / "o.mp4",
        options=Options(steps=1, batch=8), detector=fakes.ScriptedMesh(script),
        callback=sheet.add_frame,
    )  # fmt: skip
    template = open_template(video, None)
    drawn = sheet.draw(template, here / "o.mp4", fakes.ScriptedMesh(script))
    assert drawn.dtype == np.uint8 and drawn.shape[2] == 3
    sheet = run_sheet.RunSheet()
    sheet.add_frame(0.0, None, None, 0)
    assert sheet.draw(template, here / "o.mp4", fakes.ScriptedMesh(script)).std() > 1
