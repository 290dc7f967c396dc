"""Things at the face."""

import dataclasses
import json

import numpy as np
import pytest

from data_pipelines.synthetic import props
from data_pipelines.synthetic.geometry import face_model, things, torso

POINTS = face_model.load_face_model().points
BODY = torso.Torso(neck=0.0, chin=float(POINTS[152, 1]))


def test_most_clips_have_none_and_every_thing_occurs():
    drawn = [props.sample_props(np.random.default_rng(i)) for i in range(600)]
    assert {p.headset for p in drawn} == set(props.HEADSETS)
    assert {p.microphone for p in drawn} == set(props.MICROPHONES)
    assert {p.cover for p in drawn} == set(props.COVERS)
    assert np.mean([p.headset == p.microphone == p.cover == "none" for p in drawn]) > 0.4
    assert drawn == [props.sample_props(np.random.default_rng(i)) for i in range(600)]
    assert json.loads(json.dumps(dataclasses.asdict(drawn[0])))["cover"] == drawn[0].cover
    for p in drawn:
        assert 0 <= p.covered[0] <= p.covered[1] <= 1


def test_a_hand_comes_stays_and_goes():
    times = np.arange(100) / 25
    reach = props.compute_reach(props.Props(cover="hand", covered=(0.25, 0.75)), times, 4.0)
    assert (reach[times < 1] == 0).all() and (reach[times > 3] == 0).all()
    assert reach[50] == 1 and np.abs(np.diff(reach)).max() < 0.2
    always = props.compute_reach(props.Props(cover="cup", covered=(0.0, 1.0)), times, 4.0)
    assert (always == 1).all()
    assert props.compute_reach(props.Props(covered=(0.2, 0.8)), times, 4.0).max() == 0


@pytest.mark.parametrize("kind", props.HEADSETS)
def test_headsets_leave_the_eyes_free(kind):
    parts = things.make_headset(props.Props(headset=kind), POINTS, -1.6)
    assert bool(parts) == (kind != "none")
    for part in parts:
        points = part.vertices
        near = np.linalg.norm(points[:, None, :2] - POINTS[[33, 263], :2], axis=-1)
        assert np.isfinite(points).all() and near.min() > 0.25
        assert part.triangles.max() < len(points)


@pytest.mark.parametrize("kind", props.MICROPHONES)
def test_microphones_are_before_the_body(kind):
    parts = things.make_microphone(props.Props(microphone=kind), POINTS[152], BODY)
    assert bool(parts) == (kind != "none")
    for part in parts:
        assert np.isfinite(part.vertices).all() and (part.head_weight == 0).all()
        assert part.vertices[:, 1].min() > POINTS[152, 1] - 0.3


@pytest.mark.parametrize("kind", props.COVERS)
def test_covers_are_before_the_chin(kind):
    parts = things.make_cover(props.Props(cover=kind), POINTS[152])
    assert bool(parts) == (kind != "none")
    if parts:
        points = np.concatenate([part.vertices for part in parts])
        near = np.linalg.norm(points[:, :2] - POINTS[152, :2], axis=1) < 0.5
        assert near.sum() > 30 and points[near, 2].min() < POINTS[152, 2]
        assert points[:, 1].min() > POINTS[4, 1]  # Below the nose.
