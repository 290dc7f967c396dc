"""Avatar files: what they hold, and files that are none."""

import contextlib
import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pytest

import talkjax
from talkjax import commands
from talkjax.errors import UserError
from talkjax.media.video import VideoReader
from talkjax.sampling import Sampler, avatar_command, pipeline
from talkjax.sampling.avatar import Avatar
from tests.media_files import make_media
from tests.sampling import fakes


def prepare(sampler, template, path, **options):
    options = {"detector": fakes.ScriptedMesh(), "lossless": True} | options
    return talkjax.prepare_avatar(template, path, sampler=sampler, **options)


@pytest.fixture(scope="module")
def made(sampler, template, tmp_path_factory):
    return prepare(sampler, template, tmp_path_factory.mktemp("avatar") / "a.safetensors")


def test_what_it_holds(sampler, template, made):
    avatar = Avatar.load(made)
    assert avatar.frames == 12 and avatar.size == (fakes.WIDTH, fakes.HEIGHT)
    assert avatar.checkpoint == sampler.fingerprint and not avatar.photograph
    for index, frame in enumerate(VideoReader(template)):
        np.testing.assert_array_equal(avatar.picture(index), frame.rgb)
    assert avatar.tensors["usable"].all() and len(avatar.tensors["images"]) == 12
    assert avatar.tensors["rest"].shape == (12, 57, 2)
    look = avatar.look(3)
    assert look.light.is_usual and look.cover is None and look.overlay is None and look.present
    references = avatar.references()
    assert references.landmarks.shape == (sampler.references, 131, 2)
    assert not references.heard.any()


def test_the_command(checkpoint, template, tmp_path, monkeypatch, capsys):
    mesh = contextlib.nullcontext(fakes.ScriptedMesh())
    monkeypatch.setattr(pipeline, "make_detector", lambda face: mesh)
    out = tmp_path / "a.safetensors"
    flags = [f"--video={template}", f"--out={out}", f"--checkpoint={checkpoint}"]
    flags += ["--no_compilation_cache"]
    assert commands.run_main(avatar_command.main, flags) == 0
    assert Avatar.load(out).frames == 12
    assert f"{out}: 12 frames of 96x80, " in capsys.readouterr().out
    for changed, message in (
        ([f"--image={template}"], "give one template"),
        ([f"--out={tmp_path / 'a.txt'}"], "--out="),
        ([f"--out={tmp_path / 'none' / 'a.safetensors'}"], "does not exist"),
        (["--seconds=0"], "--seconds=0.0 is out of range"),
        (["--video=nothing.mp4"], "nothing.mp4"),
        ([f"--video={out}"], "is an input as well"),
    ):
        assert commands.run_main(avatar_command.main, [*flags, *changed]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_pictures_with_loss_are_smaller(sampler, template, made, tmp_path):
    lossy = Avatar.load(prepare(sampler, template, tmp_path / "b.safetensors", lossless=False))
    lossless = Avatar.load(made)
    difference = np.abs(lossy.picture(5).astype(int) - lossless.picture(5))
    assert 0 < difference.max() < 12
    assert lossy.tensors["picture_ends"][-1] < lossless.tensors["picture_ends"][-1]


@pytest.mark.parametrize(("fps", "frames", "count"), [(50, 20, 10), (12.5, 6, 11), (30, 15, 12)])
def test_other_rates_become_25(sampler, tmp_path, fps, frames, count):
    template = fakes.make_template(tmp_path / "t.mp4", frames, fps=fps)
    avatar = Avatar.load(prepare(sampler, template, tmp_path / "a.safetensors"))
    assert avatar.frames == count
    pictures = [frame.rgb for frame in VideoReader(template)]
    for tick in range(count):
        shown = int(tick / 25 * fps + 1e-6)
        np.testing.assert_array_equal(avatar.picture(tick), pictures[shown])


def test_a_part_of_the_template(sampler, template, tmp_path):
    path = prepare(sampler, template, tmp_path / "a.safetensors", seconds=0.2)
    assert Avatar.load(path).frames == 5


def test_the_longest_scene(sampler, tmp_path):
    """Twelve frames of one shot, then twenty of another: the avatar is the second one."""
    pictures = [fakes.picture(i) for i in range(32)]
    shots = [255 - picture for picture in pictures[:12]] + pictures[12:]
    template = make_media(tmp_path / "t.mp4", shots)
    mesh = fakes.ScriptedMesh(lambda i: [fakes.face_at(i, x=16.0 + 14 * (i < 12))])
    avatar = Avatar.load(prepare(sampler, template, tmp_path / "a.safetensors", detector=mesh))
    assert avatar.frames == 20
    shown = [frame.rgb for frame in VideoReader(template)]
    np.testing.assert_array_equal(avatar.picture(0), shown[12])


def test_frames_without_a_face_pass_through(sampler, template, tmp_path):
    """Longer than what is interpolated: 0.4 s."""
    mesh = fakes.ScriptedMesh(lambda i: [fakes.face_at(i)] if i < 6 else [])
    long = fakes.make_template(tmp_path / "t.mp4", 24)
    path = prepare(sampler, long, tmp_path / "a.safetensors", detector=mesh)
    avatar = Avatar.load(path)
    usable = avatar.tensors["usable"]
    assert usable[:6].all() and not usable[6:].any()
    with sampler.stream(path, realtime=False, options=talkjax.Options(steps=0)) as session:
        frames = [item.frame for item in itertools.islice(session, 24)]
    changed = [(frame != avatar.picture(k)).any() for k, frame in enumerate(frames)]
    np.testing.assert_array_equal(changed, usable)


def test_a_photograph(sampler, tmp_path):
    from talkjax.pictures import write_png

    write_png(tmp_path / "p.png", fakes.picture(0))
    path = prepare(sampler, tmp_path / "p.png", tmp_path / "a.safetensors")
    assert Avatar.load(path).photograph
    with sampler.stream(path, realtime=False, options=talkjax.Options(steps=0)) as session:
        first, second = next(session).frame, next(session).frame
    np.testing.assert_array_equal(first, second)


# ---- bad input -----------------------------------------------------------------------------------


def test_no_face(sampler, template, tmp_path):
    out = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match="no face was found in it; give a template that shows"):
        prepare(sampler, template, out, detector=fakes.ScriptedMesh(lambda i: []))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.mp4", {}, "an avatar must end in .safetensors"),
        ("no/a.safetensors", {}, "its directory does not exist"),
        ("a.safetensors", {"seconds": 0}, "seconds=0 is out of range"),
        ("a.safetensors", {"seconds": 1e4}, "seconds=10000.0 is out of range; give up to 600"),
        ("a.safetensors", {"options": talkjax.Options(face="x")}, "face=x is not valid"),
    ],
)
def test_preparation_that_cannot_be(sampler, template, tmp_path, name, options, message):
    with pytest.raises(UserError, match=message):
        prepare(sampler, template, tmp_path / name, **options)


def test_a_text_that_is_called_a_video(sampler, tmp_path):
    (tmp_path / "t.mp4").write_text("not a video")
    with pytest.raises(UserError, match=r"t\.mp4"):
        prepare(sampler, tmp_path / "t.mp4", tmp_path / "a.safetensors")


def test_another_checkpoint(sampler, made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    config = fakes.tiny_config()
    fakes.weights.save_params(folder, fakes.random_params(config, seed=1), config)
    other = Sampler.from_pretrained(folder)
    with pytest.raises(UserError, match=r"another checkpoint \(.{16}, not .{16}\); prepare it"):
        other.stream(made)
    assert not other.open_sessions


def test_the_fingerprint_follows_weights_and_config(checkpoint, tmp_path):
    from talkjax.sampling.checkpoint import fingerprint, load

    params, config, _ = load(checkpoint)
    same = fingerprint(*load(checkpoint)[:2])
    assert fingerprint(params, config) == same and len(same) == 16
    moved = {**config, "data": {**config["data"], "dir": "elsewhere"}}
    assert fingerprint(params, moved) == same
    assert fingerprint(params, {**config, "crop_size": 64}) != same
    params["landmark"]["head"]["bias"] = params["landmark"]["head"]["bias"] + 1e-6
    assert fingerprint(params, config) != same


def rewrite(source, target, change):
    """Copies a safetensors file with a changed header."""
    data = source.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return target


def truncated(made, path):
    path.write_bytes(made.read_bytes()[:-1000])


def text(made, path):
    path.write_text("hello")


def weights_of_a_network(made, path):
    import safetensors.numpy

    safetensors.numpy.save_file({"kernel": np.zeros(3, np.float32)}, path)


def older(made, path):
    rewrite(made, path, lambda h: h["__metadata__"].update(format="talkjax-avatar-0"))


def other_type(made, path):
    rewrite(made, path, lambda h: h["poses"].update(dtype="I32"))


def other_count(made, path):
    def change(header):
        info = json.loads(header["__metadata__"]["info"])
        header["__metadata__"]["info"] = json.dumps(info | {"frames": 13})

    rewrite(made, path, change)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "is truncated or not an avatar"),
        (text, "is truncated or not an avatar"),
        (weights_of_a_network, "is not an avatar of this version"),
        (older, "is not an avatar of this version"),
        (other_type, "poses has the type I32"),
        (other_count, "has the type"),
    ],
)
def test_files_that_are_none(sampler, made, tmp_path, spoil, message):
    path = tmp_path / "a.safetensors"
    spoil(Path(made), path)
    with pytest.raises(UserError, match=f"{message}.*; make it with talkjax.prepare_avatar"):
        sampler.stream(path)
    assert not sampler.open_sessions


def test_no_file(sampler, template, tmp_path):
    with pytest.raises(UserError, match=r"is not a file; make it with talkjax\.prepare_avatar"):
        sampler.stream(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="is not an avatar file; make one with"):
        sampler.stream(template)


def test_a_damaged_picture(sampler, made, tmp_path):
    data = bytearray(Path(made).read_bytes())
    place = data.rfind(b"\x89PNG")
    data[place : place + 200] = bytes(200)
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with (
        sampler.stream(path, realtime=False, options=talkjax.Options(steps=0)) as session,
        pytest.raises(UserError, match="frame 11 is damaged; make it with"),
    ):
        for _ in range(30):
            next(session)


def test_a_full_disk(sampler, template, tmp_path, monkeypatch):
    import safetensors.numpy

    def full(*unused):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(UserError, match=r"cannot be written \(I/O error: No space left"):
        prepare(sampler, template, tmp_path / "a.safetensors")
    assert not any(tmp_path.iterdir())
