"""Bad input ends with exit code 2, one line that says what to do, and no output file."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from talkjax import commands
from talkjax.sampling import command, pipeline
from tests.media_files import Sound, cut, make_media, tone, write_wav
from tests.sampling import fakes


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Valid inputs."""
    folder = tmp_path_factory.mktemp("good")
    fakes.make_template(folder / "v.mp4", 12)
    fakes.make_speech(folder / "a.wav", 0.4)
    fakes.save_checkpoint(folder / "c")
    return folder


@pytest.fixture
def scripted(monkeypatch):
    """Replaces FaceMesh: every frame that is large enough shows a face."""

    class Mesh(fakes.ScriptedMesh):
        def detect(self, rgb):
            self.calls += 1
            return np.array([fakes.face_at(self.calls)] if rgb.shape[0] > 16 else []).reshape(
                -1, 478, 3
            )

        def __enter__(self):
            return self

        def __exit__(self, *unused):
            pass

    monkeypatch.setattr(pipeline, "make_detector", lambda face: Mesh())


def arguments(good, folder, **changes):
    values = {
        "video": good / "v.mp4", "audio": good / "a.wav", "checkpoint": good / "c",
        "out": folder / "o.mp4", "steps": 1, "batch": 8,
    } | changes  # fmt: skip
    return ["--quiet"] + [f"--{k}={v}" for k, v in values.items() if v is not None]


def run(argv, capsys):
    """(exit code, stderr)."""
    code = commands.run_main(command.main, [str(a) for a in argv])
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


def text_file(folder):
    path = folder / "text.mp4"
    path.write_text("This is not a video.\n" * 50)
    return path


def empty_file(folder):
    path = folder / "empty.mp4"
    path.touch()
    return path


def truncated(folder):
    path = fakes.make_template(folder / "cut.mp4", 30)  # the index comes last
    return cut(path, 0.5)


def tiny_pictures(folder):
    return make_media(
        folder / "4x4.mkv", [np.full((4, 4, 3), 99, np.uint8)] * 10, codec="ffv1", pix_fmt="bgr0"
    )


def audio_only(folder):
    return fakes.make_speech(folder / "only.wav", 0.5)


def no_sound(folder):
    return fakes.make_template(folder / "silent.mp4", 5)


def zero_length(folder):
    return write_wav(folder / "zero.wav", np.zeros((1, 0), np.float32), 16000)


def only_nan(folder):
    return write_wav(folder / "nan.wav", np.full((1, 1600), np.nan, np.float32), 16000)


def play_list(folder):
    path = folder / "list.m3u8"
    path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n")
    return path


def other_config(folder):
    path = fakes.save_checkpoint(folder / "other")
    config = fakes.tiny_config(**{"denoiser.channels": (32,)})
    (path / "config.json").write_text(json.dumps(config))
    return path


def without_weights(folder):
    path = folder / "none"
    path.mkdir()
    shutil.copy(fakes.save_checkpoint(folder / "whole") / "config.json", path)
    return path


def garbage_weights(folder):
    path = without_weights(folder)
    (path / "model.safetensors").write_bytes(b"\xff" * 4096)
    return path


def folder_named_png(folder):
    path = folder / "sheet.png"
    path.mkdir()
    return path


def directory(folder):
    return folder


BAD = [
    ("video", lambda f: f / "missing.mp4", "not found; check the path"),
    ("video", directory, "is a directory"),
    ("video", empty_file, r"empty \(0 bytes\)"),
    ("video", text_file, "not a readable media file"),
    ("video", truncated, "not a readable media file"),
    ("video", tiny_pictures, "no face was found"),
    ("video", audio_only, "has no video stream"),
    ("video", play_list, "not a readable media file"),
    ("video", lambda f: "http://127.0.0.1:9/v.mp4", "addresses are not opened"),
    ("video", lambda f: "", "--video is empty"),
    ("audio", lambda f: f / "missing.wav", "not found"),
    ("audio", no_sound, "has no audio stream"),
    ("audio", zero_length, "holds no sound"),
    ("audio", only_nan, "no valid sample"),
    ("audio", text_file, "not a readable media file"),
    ("audio", lambda f: "", "--audio is empty"),
    ("image", lambda f: f / "missing.png", "either --video=FILE or --image=FILE"),
    ("out", lambda f: "", "--out is empty"),
    ("out", lambda f: f / "o.avi", "must end in one of .mp4"),
    ("out", lambda f: f / "none" / "o.mp4", "its directory does not exist"),
    ("out", directory, "must end in one of|is a directory"),
    ("checkpoint", lambda f: "", "--checkpoint is empty"),
    ("checkpoint", lambda f: f / "missing", "not a directory"),
    ("checkpoint", directory, "holds neither checkpoints/ nor model.safetensors"),
    ("checkpoint", other_config, "does not fit the model"),
    ("checkpoint", without_weights, "holds neither checkpoints/ nor model.safetensors"),
    ("checkpoint", garbage_weights, "truncated or not a safetensors file"),
    ("steps", lambda f: -1, "error: --steps=-1 is out of range; give 0 to 1000"),
    ("steps", lambda f: "many", "invalid int value"),
    ("eta", lambda f: "nan", " --eta=nan is out of range"),
    ("crf", lambda f: 99, " --crf=99"),
    ("seed", lambda f: -1, " --seed=-1 "),
    ("batch", lambda f: 10**9, " --batch=1000000000 "),
    ("landmark_guidance", lambda f: "inf", " --landmark_guidance=inf "),
    ("face", lambda f: "left", "error: --face=left is not valid"),
    ("face", lambda f: 3, "error: --face=3: the first frame with a face shows 1"),
    ("summary", lambda f: f / "none" / "s.json", "missing or not writable"),
    ("sheet", lambda f: f / "none" / "s.png", "missing or not writable"),
    ("sheet", lambda f: f / "s.jpg", "must end in .png"),
    ("sheet", folder_named_png, "is a directory"),
    ("speed", lambda f: 3, "unrecognized arguments: --speed=3"),
]


@pytest.mark.parametrize(("flag", "value", "message"), BAD, ids=[f"{f}-{m}" for f, _, m in BAD])
def test_bad_input(good, scripted, tmp_path, capsys, flag, value, message):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "out").mkdir()
    made = value(folder)
    code, error = run(arguments(good, tmp_path / "out", **{flag: made}), capsys)
    assert code == 2
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert re.search(message, error), error
    assert list((tmp_path / "out").iterdir()) == []


def test_output_that_is_an_input(good, scripted, tmp_path, capsys):
    video = tmp_path / "v.mp4"
    shutil.copy(good / "v.mp4", video)
    before = video.read_bytes()
    code, error = run(arguments(good, tmp_path, video=video, out=video), capsys)
    assert code == 2 and "is an input as well" in error
    assert video.read_bytes() == before


def test_sheet_that_is_an_input(good, scripted, tmp_path, capsys):
    image = tmp_path / "face.png"
    image.write_bytes(b"precious")
    code, error = run(arguments(good, tmp_path, video=None, image=image, sheet=image), capsys)
    assert code == 2 and "is an input as well" in error
    assert image.read_bytes() == b"precious"


@pytest.mark.parametrize("writes", ["sheet", "summary"])
@pytest.mark.parametrize("reads", ["image", "video", "audio"])
def test_other_output_that_is_an_input(good, scripted, tmp_path, capsys, reads, writes):
    path = tmp_path / "face.png"
    path.write_bytes(b"precious")
    given = {"video": None} if reads == "image" else {}
    flags = arguments(good, tmp_path, **given | {reads: path, writes: path})
    code, error = run(flags, capsys)
    assert code == 2 and f"is an input as well; give another --{writes}" in error
    assert path.read_bytes() == b"precious"


def test_two_outputs_of_one_name(good, scripted, tmp_path, capsys):
    code, error = run(arguments(good, tmp_path, summary=tmp_path / "x" / ".." / "o.mp4"), capsys)
    assert code == 2 and "missing or not writable" in error
    code, error = run(arguments(good, tmp_path, summary=tmp_path / "o.mp4"), capsys)
    assert code == 2 and "two outputs have this name; give another --summary" in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_that_is_not_writable(good, scripted, tmp_path, capsys):
    tmp_path.chmod(0o500)
    code, error = run(arguments(good, tmp_path), capsys)
    assert code == 2 and "not writable" in error


def test_good_input_after_all_that(good, scripted, tmp_path, capsys):
    """Odd, but nothing to complain about."""
    short = make_media(
        tmp_path / "v.mkv", [fakes.picture(i) for i in range(10)], fps=10,
        sound=Sound(tone(0.2, 16000), 16000),
    )  # fmt: skip
    noise = tmp_path / "a.mp3"
    make_media(noise, sound=Sound(tone(0.7, 44100, 2), 44100))
    code, error = run(arguments(good, tmp_path, video=short, audio=noise), capsys)
    assert (code, error) == (0, "")
    assert (tmp_path / "o.mp4").stat().st_size > 1000


def test_summary_file(good, scripted, tmp_path, capsys):
    path = tmp_path / "s.json"
    code, _ = run(arguments(good, tmp_path, summary=path), capsys)
    summary = json.loads(path.read_text())
    assert code == 0 and summary["frames"] == 10 and summary["output"].endswith("o.mp4")


def start(repository, *argv, **options):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, *map(str, argv)], cwd=repository, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def test_help_needs_neither_jax_nor_video(repository):
    code = (
        "import sys, sample; sample.command.make_parser(); "
        "sys.exit(any(name in sys.modules for name in ('jax', 'av', 'cv2')))"
    )
    assert start(repository, "-c", code).wait(timeout=120) == 0


_SLOW = """
import signal, sys, time
from talkjax import commands
from talkjax.sampling import command, pipeline
from tests.sampling import fakes

class Mesh(fakes.ScriptedMesh):
    __enter__ = lambda self: self
    __exit__ = lambda self, *unused: None
    def detect(self, rgb):
        time.sleep(5 if self.calls else 0)
        return super().detect(rgb)

pipeline.make_detector = lambda face: Mesh()
for name in ("SIGHUP", "SIGTERM"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)  # they may be ignored, as under nohup
commands.exit_on_signals()
sys.exit(commands.run_main(command.main, sys.argv[1:]))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_killed_in_the_middle(good, repository, tmp_path, how):
    process = start(repository, "-c", _SLOW, *arguments(good, tmp_path))
    try:
        deadline = time.monotonic() + 300
        while not list(tmp_path.iterdir()) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(how)
        process.communicate(timeout=60)
    finally:
        process.kill()
    left = [path.name for path in tmp_path.iterdir()]
    if how != signal.SIGKILL:
        assert left == [] and process.returncode == 128 + how
    else:  # nothing can clean up, but nothing looks like a result
        assert all(name.startswith(".") and name.endswith(".part") for name in left)
