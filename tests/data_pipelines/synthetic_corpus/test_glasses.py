import numpy as np
import pytest

from data_pipelines.synthetic.geometry import face_model, glasses, shape
from data_pipelines.synthetic.painting import appearance as appearances


def fitted(kind, seed=0):
    person = shape.sample_shape(np.random.default_rng(seed))
    points = shape.deform_mean_face(face_model.load_face_model(), person)
    return points, glasses.make_glasses(kind, points, points[: face_model.SURFACE])


def test_one_person_in_five_wears_glasses():
    people = [appearances.sample_appearance(np.random.default_rng(i)) for i in range(300)]
    share = np.mean([person.glasses != "none" for person in people])
    assert 0.12 < share < 0.28
    assert {person.glasses for person in people} == set(appearances.GLASSES)
    assert set(appearances.GLASSES) == {"none", *glasses.FRAMES}


def test_glasses_take_nothing_from_the_caller_s_random_numbers(monkeypatch):
    rng, other = np.random.default_rng(4), np.random.default_rng(4)
    appearances.sample_appearance(rng)
    monkeypatch.setattr(appearances, "_add_glasses", lambda look: look)
    appearances.sample_appearance(other)
    assert rng.random() == other.random()


@pytest.mark.parametrize("kind", glasses.FRAMES)
def test_a_frame_is_before_the_eyes_and_above_the_mouth(kind):
    points, parts = fitted(kind)
    flat = np.concatenate([part.vertices for part in parts])
    assert np.isfinite(flat).all()
    front = flat[flat[:, 2] < points[[159, 386], 2].min()]
    for corner in (33, 133, 362, 263):
        assert np.abs(front - points[corner]).min(0)[2] < 0.6
    assert front[:, 0].min() < points[33, 0] and front[:, 0].max() > points[263, 0]
    assert flat[:, 1].max() < points[4, 1]  # the nose's tip
    assert flat[:, 2].max() > points[234, 2]  # as far as the ears
    for part in parts:
        assert part.triangles.max() == len(part.vertices) - 1


def test_no_glasses():
    assert fitted("none")[1] == []
