"""From footage to a checkpoint, on a tiny network and footage that is no video."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import talkjax
from talkjax import commands, pipelines, runs
from talkjax.personalization import command, comparison, landmarks, personalize
from talkjax.sampling import checkpoint as sampling_checkpoint
from tests.personalization import footage_files
from tests.sampling import fakes

CHANGES = {"crop_size": footage_files.SIZE, "data.window": 25, "optimizer.learning_rate": 1e-3}


@pytest.fixture
def base(tmp_path):
    return fakes.save_checkpoint(tmp_path / "base", **CHANGES)


@pytest.fixture
def adapt(base, tmp_path, monkeypatch):
    """(**options) -> (report, folder of the result)."""
    video = fakes.make_template(tmp_path / "person.mp4")
    made = footage_files.make_pipeline()
    monkeypatch.setattr(pipelines, "load", lambda name: made)
    monkeypatch.setattr(comparison, "compare_videos", lambda shown, *_: {k: {} for k in shown})
    monkeypatch.setattr(landmarks, "_MOST_STEPS", 12)
    monkeypatch.setattr(landmarks, "_EVERY", 6)

    def adapt(**options):
        out = tmp_path / "out"
        return talkjax.personalize(video, out, checkpoint=base, **{"quiet": True, **options}), out

    return adapt


def fingerprint(folder: Path):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def test_the_checkpoint_learns_the_person_and_the_base_stays(adapt, base, capsys):
    before = fingerprint(base)
    report, out = adapt(quiet=False)
    assert report["adapted"] == ["landmark"]
    assert report["landmarks"]["after"]["l1"] < report["landmarks"]["before"]["l1"]
    assert json.loads((out / "report.json").read_text()) == report
    assert fingerprint(base) == before
    assert "held-out footage" in capsys.readouterr().out

    params, config, _ = sampling_checkpoint.load(out)
    old, _, _ = runs.load_weights(base)
    kernel = ("denoiser", "landmark")
    same = [
        all(np.array_equal(a, b) for a, b in zip(*map(leaves, (params[k], old[k])), strict=True))
        for k in kernel
    ]
    assert same == [True, False]
    assert config["networks"]["landmark"]["steps"] in (6, 12)
    assert "/" not in json.dumps(config["init_from"])  # no path of this machine

    # Once more: everything is there already.
    again, _ = adapt()
    assert again["landmarks"] == report["landmarks"]


def leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def test_networks_stay_where_they_are_not_better(adapt, base, monkeypatch, capsys):
    monkeypatch.setattr(personalize, "is_better", lambda after, before: False)
    report, out = adapt(quiet=False)
    assert report["adapted"] == [] and "networks stay" in capsys.readouterr().out
    found, old = (runs.load_weights(path)[0] for path in (out, base))
    assert all(np.array_equal(a, b) for a, b in zip(leaves(found), leaves(old), strict=True))


@pytest.mark.parametrize(
    ("l1", "correlation", "better"),
    [
        (0.9, 0.5, True),
        (0.9, 0.47, True),
        (0.9, 0.4, False),
        (1.0, 0.9, False),
        (1.1, 0.9, False),
        (None, 0.9, False),
        (0.9, None, False),
    ],
)
def test_what_is_better(l1, correlation, better):
    before = {"l1": 1.0, "opening_correlation": 0.5}
    after = {"l1": l1, "opening_correlation": correlation}
    assert personalize.is_better(after, before) is better


def test_training_ends_when_it_no_longer_helps(monkeypatch):
    should_stop = landmarks.end_when_best(1000)
    falling = {50 * i: 1.0 / i for i in range(1, 20)}
    assert not should_stop({}) and not should_stop(falling)
    flat = {**falling, **{50 * i: 1.0 for i in range(20, 23)}}
    assert not should_stop(flat)
    assert should_stop(flat | {50 * 23: 1.0})
    clock = iter([0.0, 0.0, 9.0, 11.0, 11.0])
    monkeypatch.setattr(landmarks.time, "monotonic", lambda: next(clock))
    timed = landmarks.end_when_best(10)
    assert not timed({})
    assert timed({})


def test_the_face_and_some_space_stay():
    transforms = np.array([[[0.005, 0, -1.0], [0, 0.005, -0.5]]])  # a crop of 200 px at (200, 100)
    rows, columns = comparison.face_surroundings(transforms, 1000, 1000)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 420, 80, 520)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=o"], "--video"),
        (["--video=nothing.mp4", "--out=o"], "nothing.mp4: not found"),
        (["--video=v.mp4", "--out=gs://b/o"], "bucket"),
        (["--video=v.mp4", "--out=full"], "full is not empty"),
        (["--video=v.mp4", "--out=base", "--checkpoint=base"], "is the checkpoint to start from"),
        (["--video=v.mp4", "--out=v.mp4"], "v.mp4 cannot be created"),
        (["--video=v.mp4", "--out=o", "--minutes=0"], "at least 0.1"),
        (["--video=v.mp4", "--out=o", "--checkpoint=none"], "none: is not a directory"),
        (["--video=v.mp4", "--out=o", "--face=me", "--checkpoint=base"], "--face=me"),
    ],
)
def test_mistakes(arguments, message, base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fakes.make_template(tmp_path / "v.mp4")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.png").touch()
    code = commands.run_main(command.main, arguments)
    error = capsys.readouterr().err
    assert code == 2 and message in error and len(error.splitlines()) == 1
    assert "Traceback" not in error
