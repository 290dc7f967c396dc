import dataclasses

import numpy as np
import pytest

from data_pipelines.synthetic import sidecar
from talkjax.errors import UserError
from talkjax.metrics import closures


def truth(frames=5):
    rng = np.random.default_rng(0)
    return sidecar.GroundTruth(
        times=np.arange(frames) / 25,
        landmarks=rng.uniform(0, 256, (frames, 478, 3)).astype(np.float32),
        curves=rng.uniform(0, 1, (4 * frames, 7)).astype(np.float32),
        poses=rng.normal(0, 1, (frames, len(sidecar.POSE_CHANNELS))).astype(np.float32),
        bilabial=np.array([[0.01, 0.08]]),
        info={"plan": {"clip_id": "ä"}, "settings": {"size": 256}, "seconds": 0.2},
    )


def test_what_is_saved_is_loaded(tmp_path):
    video, made = tmp_path / "a.mp4", truth()
    sidecar.save_truth(video, made)
    found = sidecar.load_truth(video)
    for field in dataclasses.fields(made):
        if field.name == "info":
            assert found.info | made.info == found.info
        else:
            a, b = getattr(made, field.name), getattr(found, field.name)
            assert a.dtype == b.dtype and np.array_equal(a, b), field.name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.npz"]


def test_the_files_are_the_same_byte_for_byte(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        sidecar.save_truth(tmp_path / name, truth())
    for one, other in zip(
        *(sidecar.sidecar_paths(tmp_path / n) for n in ("a.mp4", "b.mp4")), strict=True
    ):
        assert one.read_bytes() == other.read_bytes()


def test_the_evaluator_reads_the_closures(tmp_path):
    sidecar.save_truth(tmp_path / "a.mp4", truth())
    assert closures.read_closures(tmp_path / "a.mp4").tolist() == [[0.01, 0.08]]


def test_a_clip_is_finished_when_all_of_it_is_there_and_to_the_plan(tmp_path):
    video = tmp_path / "a.mp4"
    made = truth()
    arguments = (made.info["plan"], made.info["settings"])
    assert not sidecar.is_finished(video, *arguments)
    sidecar.save_truth(video, made)
    assert not sidecar.is_finished(video, *arguments)
    video.write_bytes(b"x")
    assert sidecar.is_finished(video, *arguments)
    assert not sidecar.is_finished(video, {"clip_id": "b"}, arguments[1])
    assert not sidecar.is_finished(video, arguments[0], {"size": 128})
    arrays, info = sidecar.sidecar_paths(video)
    arrays.rename(tmp_path / "away")
    assert not sidecar.is_finished(video, *arguments)
    (tmp_path / "away").rename(arrays)
    info.write_text(info.read_text()[:-30])
    assert not sidecar.is_finished(video, *arguments)


def test_damage_is_told_in_one_line(tmp_path):
    video = tmp_path / "a.mp4"
    with pytest.raises(UserError, match="missing or damaged"):
        sidecar.load_truth(video)
    sidecar.save_truth(video, truth())
    path = sidecar.sidecar_paths(video)[0]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="missing or damaged"):
        sidecar.load_truth(video)
