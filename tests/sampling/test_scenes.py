"""Scenes of a template: each has its own reference, shape and landmarks, and nothing is mixed."""

import itertools

import numpy as np
import pytest

from talkjax import conventions, head_pose
from talkjax.media.facemesh import FaceMesh
from talkjax.media.video import VideoReader
from talkjax.sampling import Options, Sampler, completion
from tests.media_files import make_media
from tests.sampling import fakes

CUT = 20
PLACE = 5  # of a pose point that is not rigid; it tells the two people apart


def person(index: int) -> int:
    return 0 if index < CUT else 1


def face_of(index: int):
    """A face of frame `index`: before the cut of one person, then of another, elsewhere."""
    face = fakes.face_at(index, 0.02 * (index % 4), x=16.0 + 14 * person(index))
    cheek = conventions.POSE[_cheek()]
    face[cheek, 1] += 10 * person(index)
    return [face]


def _cheek() -> int:
    loose = [i for i, point in enumerate(conventions.POSE) if point not in conventions.RIGID]
    return loose[PLACE]


def show(path, count=40):
    pictures = [fakes.picture(i) for i in range(count)]
    return make_media(path, [p if person(i) == 0 else 255 - p for i, p in enumerate(pictures)])


def people_in(pose: np.ndarray) -> set[int]:
    """Tells from (..., 74, 2) poses in the crop who is seen."""
    rest = fakes.face_shape()[conventions.POSE[_cheek()], 1]
    return {int(v) for v in np.round((pose[..., _cheek(), 1] - rest) * fakes.SIDE / 10).reshape(-1)}


@pytest.mark.parametrize("seconds", [1.6, 3.0])
def test_nothing_of_two_people_is_mixed(sampler, options, tmp_path, monkeypatch, seconds):
    windows, batches, references = [], [], []
    complete, encode, generate = (
        sampler.complete_content, sampler.encode_reference, sampler.generate_batch,
    )  # fmt: skip

    def spy_complete(mel, pose, faces):
        windows.append(people_in(pose) | people_in(faces.landmarks[:, : conventions.NUM_POSE]))
        return complete(mel, pose, faces)

    def spy_encode(image, landmarks):
        references.append(
            (encode(image, landmarks), people_in(landmarks[:, : conventions.NUM_POSE]))
        )
        return references[-1][0]

    def spy_generate(function, reference, masked, landmarks, key):
        who = next(people for made, people in references if made is reference)
        batches.append(who | people_in(landmarks[:, : conventions.NUM_POSE]))
        return generate(function, reference, masked, landmarks, key)

    monkeypatch.setattr(sampler, "complete_content", spy_complete)
    monkeypatch.setattr(sampler, "encode_reference", spy_encode)
    monkeypatch.setattr(sampler, "generate_batch", spy_generate)
    seen = []
    summary = sampler.generate(
        video=show(tmp_path / "t.mp4"), audio=fakes.make_speech(tmp_path / "s.wav", seconds),
        out=tmp_path / "o.mp4", options=options, detector=fakes.ScriptedMesh(face_of),
        callback=lambda *values: seen.append(values),
    )  # fmt: skip
    visits = {1.6: 2, 3.0: 3}[seconds]  # there and back again
    assert all(len(people) == 1 for people in windows + batches)
    assert [people for _, people in references] == [{0}, {1}]
    order = [min(people) for people in batches]
    assert sum(a != b for a, b in itertools.pairwise(order)) == visits - 1
    assert summary.frames_generated == summary.frames == len(seen)
    first, second = summary.scenes
    assert (first["first"], first["last"], second["first"]) == (0, CUT - 1, CUT)
    assert summary.reference_frame == first["reference_frame"] < CUT <= second["reference_frame"]
    assert f"(from its frames 0, {CUT} on)" in summary.text()
    for i, (_, face, landmarks, _) in enumerate(seen[:40]):
        place = head_pose.apply_transforms(landmarks[None], head_pose.invert(face.transform[None]))
        rigid = place[0][conventions.positions(conventions.RIGID)]
        own = conventions.select(np.array(face_of(i)), conventions.RIGID)[0]
        assert np.abs(rigid - own).max() < 2.0, i  # from the first frame of a scene on


def test_many_short_scenes(sampler, options, tmp_path, monkeypatch):
    def shown(i):
        return i // 3 % 2

    def script(i):
        return [fakes.face_at(i, x=16.0 + 14 * shown(i))] if i // 3 != 4 else []

    pictures = [p if shown(i) else 255 - p for i, p in enumerate(map(fakes.picture, range(36)))]
    template = make_media(tmp_path / "t.mp4", pictures)
    monkeypatch.setattr("talkjax.sampling.pipeline._MAX_ENCODED", 2)
    summary = sampler.generate(
        video=template, audio=fakes.make_speech(tmp_path / "s.wav", 2.6), out=tmp_path / "o.mp4",
        options=options, detector=fakes.ScriptedMesh(script),
    )  # fmt: skip
    assert len(summary.scenes) == 11  # the one without a face is left out
    assert [scene["first"] for scene in summary.scenes] == [0, 3, 6, 9, *range(15, 36, 3)]
    assert summary.faces_missed == [[12, 14], [56, 58]]
    assert "0, 3, 6, 9, 15 and 6 more on)" in summary.text()


def test_windows_are_read_again_for_the_next_visit():
    calls = []

    def read(first, count):
        calls.append(first)
        return np.repeat(np.arange(first, first + count)[:, None], 2, 1)

    buffer = completion.MelBuffer(read, 10)
    for first in (0, 5, 15, 5, 10, 20, 60, 70, 60):
        got = buffer.windows(first, 10)
        assert got[:, 0].tolist() == list(range(first, first + 10))
    assert calls == sorted(calls) and len(buffer._rows) <= 20
    with pytest.raises(ValueError, match="earlier"):
        buffer.windows(20, 10)


def test_lips_are_in_place_after_a_cut(tmp_path, shared_data):
    """Measured against a detection in each frame alone; up to 23 pixels when tracking ran on."""
    video = shared_data / "field" / "cut_closer.mp4"
    pictures = [frame.rgb for frame in VideoReader(video)]
    made = []
    Sampler.from_pretrained().generate(
        video=video, audio=fakes.make_speech(tmp_path / "s.wav", 2.2), out=tmp_path / "o.mp4",
        options=Options(steps=1), callback=lambda *values: made.append(values),
    )  # fmt: skip
    corners = [conventions.ALL.index(i) for i in (61, 291)]
    with FaceMesh() as mesh:
        for i in range(40, 47):
            mesh.reset()
            alone = mesh.detect(pictures[i])[0][[61, 291], :2].mean(0)
            _, face, landmarks, _ = made[i]
            to_frame = head_pose.invert(face.transform[None])
            lips = head_pose.apply_transforms(landmarks[None], to_frame)[0][corners].mean(0)
            assert np.linalg.norm(lips - alone) < 4.0, i
