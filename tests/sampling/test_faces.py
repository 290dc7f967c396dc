"""Faces of a template, frame by frame; nothing leaks from the mouth into them."""

import numpy as np
import pytest

from talkjax import conventions, head_pose
from talkjax.media import detection
from talkjax.media.video import VideoFrame
from talkjax.sampling import faces
from tests.sampling import fakes


def frames(count, fps=25.0, times=None):
    for i in range(count):
        time = i / fps if times is None else times[i]
        yield VideoFrame(i, time, fakes.picture(i))


def table(script, count, fps=25.0, times=None, **options):
    mesh = fakes.ScriptedMesh(script)
    detections = detection.detect_faces(frames(count, fps, times), mesh)
    return faces.FaceTable(detections, fps, **options), mesh


def test_look_ahead_is_bounded():
    made, mesh = table(None, 200)
    made.face(50)
    assert 50 < mesh.calls <= 50 + head_pose.LOOK_AHEAD * 25 + 3


def test_every_frame_has_its_place():
    missing = set(range(3)) | {20, 21} | set(range(40, 70)) | {99}
    made, _ = table(lambda i: [] if i in missing else [fakes.face_at(i)], 100)
    for i in range(100):
        face = made.face(i)
        assert made.time(i) == pytest.approx(i / 25)
        if i in (20, 21):
            assert not face.found  # a short gap: interpolated
        elif i in missing:
            assert face is None
        else:
            assert face.found and face.motion.shape == (2, 3)
    assert made.face(100) is None and made.time(100) is None


def test_runs_are_smoothed_apart():
    gone = set(range(30, 60))
    made, _ = table(lambda i: [] if i in gone else [fakes.face_at(i)], 90)
    want = []
    for part in (np.arange(30), np.arange(60, 90)):
        want += [*head_pose.fit_transforms(np.stack([fakes.face_at(i) for i in part]), part / 25)]
    got = [made.face(i).transform for i in range(90) if i not in gone]
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_first_pass_is_bounded_and_measured_only():
    script = lambda i: [] if i < 50 or i == 60 else [fakes.face_at(i)]  # noqa: E731
    made, mesh = table(script, 1000, first_seconds=2.0)
    candidates = made.first_faces(0)
    assert [c.index for c in candidates] == [i for i in range(50, 101) if i != 60]
    assert mesh.calls < 110 + head_pose.LOOK_AHEAD * 25
    assert candidates[0].landmarks.shape == (131, 2)
    made.face(300)
    assert len(candidates) == 50  # nothing is added later


def test_no_face_anywhere():
    made, mesh = table(lambda i: [], 30)
    assert not made.has_face() and mesh.calls == 30


def test_jaw_and_lips_change_nothing_but_the_candidates():
    content = list(conventions.CONTENT)

    def moved(i):
        face = fakes.face_at(i)
        face[content] += np.random.default_rng(i).normal(0, 9, (len(content), 3))
        return [face]

    plain, _ = table(lambda i: [fakes.face_at(i)], 60)
    other, _ = table(moved, 60)
    for made in (plain, other):
        made.first_faces(0)
    for i in range(60):
        a, b = plain.face(i), other.face(i)
        np.testing.assert_array_equal(a.transform, b.transform)
        np.testing.assert_array_equal(a.motion, b.motion)


def test_variable_rate_and_long_pauses():
    times = [0.0, 0.03, 0.1, 0.11, 1.5, 1.52, 1.6]
    made, _ = table(lambda i: [fakes.face_at(i)], 7, times=times)
    want = []
    for part in (slice(0, 4), slice(4, 7)):  # nothing is smoothed over the pause
        mesh = np.stack([fakes.face_at(i) for i in range(7)])[part]
        want += [*head_pose.fit_transforms(mesh, np.array(times[part]))]
    got = [made.face(i).transform for i in range(7)]
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fps", [25.0, 1000.0])
def test_gaps_count_in_seconds_whatever_rate_the_file_claims(fps):
    """A browser's recording claims 1000 fps; nothing may be painted where the face has gone."""
    times = np.cumsum([0.0] + [0.032, 0.05, 0.066] * 40)
    gone = set(range(5)) | set(range(20, 26)) | set(range(40, 100))  # at the start, 0.3 s, 3 s
    made, _ = table(lambda i: [] if i in gone else [fakes.face_at(i)], 121, fps, times)
    shown = [i for i in range(121) if made.face(i) is not None]
    assert shown == [*range(5, 40), *range(100, 121)]
    assert [i for i in shown if not made.face(i).found] == list(range(20, 26))


def test_a_picture_that_stands_is_no_shorter_gap():
    times = [i / 25 for i in range(10)] + [2.2 + i / 25 for i in range(10)]
    made, _ = table(lambda i: [] if i in (9, 10) else [fakes.face_at(i)], 20, times=times)
    assert [i for i in range(20) if made.face(i) is None] == [9, 10]


def test_scenes():
    def script(i):  # a cut at 20; from 40 on, somebody else is followed
        x = 16.0 if i < 40 else 400.0
        return [] if i in range(36, 40) else [fakes.face_at(i, x=x)]

    def shown():
        for i in range(80):
            rgb = fakes.picture(i)
            yield VideoFrame(i, i / 25, rgb if i < 20 else 255 - rgb)

    mesh = fakes.ScriptedMesh(script)
    made = faces.FaceTable(detection.detect_faces(shown(), mesh), 25.0, first_seconds=0.2)
    assert made.has_face()
    jump = next(i for i in range(40, 80) if made.face(i) is not None)
    assert jump <= 44
    assert [made.scene(i) for i in (0, 19, 20, jump - 1, jump, 79)] == [0, 0, 1, 1, 2, 2]
    for scene, first in enumerate((0, 20, jump)):
        assert [c.index for c in made.first_faces(scene)] == list(range(first, first + 6))
    made.face(79)
    assert made.scene_frames(1) == (20, jump - 1) and made.scene_frames(2) == (jump, 79)
    assert not made._candidates
