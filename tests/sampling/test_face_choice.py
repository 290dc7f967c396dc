"""A face chosen by a time and a point is followed to both ends of its scene."""

import dataclasses

import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media.detection import FrameDetections
from talkjax.media.tracking import FaceTrack
from talkjax.media.video import VideoReader
from talkjax.sampling import face_choice
from tests.sampling import fakes


def left(i):
    return fakes.face_at(i, x=10.0 + i)


def right(i):
    face = fakes.face_at(i, x=200.0 - i)
    return (face - face.mean(0)) * 1.3 + face.mean(0)  # the largest


def clip(count=40, cut=10):
    """A clip with two people; after the cut, one of them comes ten frames later."""
    for i in range(count):
        faces = [right(i)] if cut <= i < cut + 10 else [right(i), left(i)]
        yield FrameDetections(i, i / 25, np.array(faces, np.float32), i == cut)


def centre(face):
    low, high = face[:, :2].min(0), face[:, :2].max(0)
    return (low + high) / 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("1.2s:30,40", 1.2), ("0.5:3,4", 0.5), (" 3s : 1.5, 2 ", 3.0)]
)
def test_parse(text, seconds):
    assert face_choice.parse_face(text).seconds == seconds
    assert face_choice.parse_face("2") == 2 and face_choice.parse_face("largest") == "largest"
    for bad in ("-1s:3,4", "1s", "1s:3", "1s:3,4,5", "s:3,4", "left"):
        with pytest.raises(UserError, match=r"12\.5s:640,360"):
            face_choice.parse_face(bad)


@pytest.mark.parametrize("seconds", [0.8, 0.99, 1.59])
def test_followed_to_both_ends_of_the_scene(seconds):
    x, y = centre(left(min(round(25 * seconds), 39)))
    point = face_choice.FacePoint("p", seconds, x + 5, y)
    path = face_choice.trace_point(clip(), point)
    assert min(path) == 10 and max(path) == min(round(25 * seconds), 39)
    assert [i for i in path if path[i] is None] == list(range(10, 20))[::-1]
    track = FaceTrack("largest", 0.4, path)
    items = [x for f in clip() for x in track.push(f.index, f.faces, f.cut, f.time)] + track.flush()
    for item in items:
        if 10 <= item.index < 20:
            assert item.landmarks is None
        else:  # the scene before has no point: the largest
            want = right if item.index < 10 else left
            np.testing.assert_allclose(item.landmarks, want(item.index), rtol=1e-5)
    assert [item.index for item in items if item.cut] == [10]


def test_no_such_face():
    for text, message in (
        ("1s:1000,40", r"no face is there at that time; give one of the points \d+,\d+ and \d+,"),
        ("9s:1,1", r"the template ends at 1\.56 s"),
    ):
        with pytest.raises(UserError, match=f"^face={text}: {message}"):
            face_choice.trace_point(clip(), face_choice.parse_face(text))
    nothing = [FrameDetections(0, 0.0, np.zeros((0, 478, 3), np.float32), False)]
    with pytest.raises(UserError, match="no face is found at that time"):
        face_choice.trace_point(nothing, face_choice.parse_face("0s:1,1"))


def test_the_chosen_face_speaks(sampler, options, tmp_path, speech):
    template = fakes.make_template(tmp_path / "t.mp4", 25, size=(192, 80))
    mesh = fakes.ScriptedMesh(lambda i: [fakes.face_at(i % 25, x=112.0), fakes.face_at(i % 25)])
    for x in (48, 144):
        mesh.calls = 0
        chosen = dataclasses.replace(options, face=f"0.4s:{x},40")
        out = tmp_path / "o.mp4"
        sampler.generate(video=template, audio=speech, out=out, options=chosen, detector=mesh)
        pairs = zip(VideoReader(out), VideoReader(template), strict=True)
        for made, source in pairs:
            changed = (made.rgb != source.rgb).any((0, 2))
            assert changed[x - 20 : x + 20].mean() > 0.5 and not changed[180 - x :][:20].any()
