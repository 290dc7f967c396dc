"""What people and places are painted like, on small pictures."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from data_pipelines.synthetic.geometry import face_model
from data_pipelines.synthetic.painting import appearance as appearances
from data_pipelines.synthetic.painting.backgrounds import _PAINTERS, paint_background
from data_pipelines.synthetic.painting.portrait import paint_portrait

SIZE = 128


@functools.cache
def someone(seed=0, size=SIZE, **changes):
    rng = np.random.default_rng(seed)
    look = dataclasses.replace(appearances.sample_appearance(rng), **changes)
    return look, paint_portrait(look, face_model.load_face_model().uv, rng, size)


def spot(image, *indices):
    """Mean colour at landmarks."""
    x, y = np.clip(face_model.load_face_model().uv[list(indices)].T * SIZE, 0, SIZE - 1).astype(int)
    return image[y, x].mean(0)


def check(image, shape):
    assert image.shape == shape and image.dtype == np.float32
    assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1


def test_textures_have_their_shapes_and_range():
    _, textures = someone()
    check(textures.face, (SIZE, SIZE, 3))
    check(textures.gloss, (SIZE, SIZE))
    check(textures.eye, (64, 64, 3))
    for image in (textures.hair, textures.cloth, textures.trim, textures.neckwear):
        check(image, (len(image), len(image), 3))


def test_same_seed_same_person():
    _, first = someone(3)
    someone.cache_clear()
    _, second = someone(3)
    for name in ("face", "gloss", "eye", "hair", "cloth", "trim", "neckwear", "beard"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_other_seed_other_person():
    assert abs(someone(1)[1].face - someone(2)[1].face).mean() > 0.02


def test_looks_are_json_and_cover_skin_sex_and_hair():
    people = [appearances.sample_appearance(np.random.default_rng(i)) for i in range(200)]
    for person in people[:5]:
        data = json.loads(json.dumps(dataclasses.asdict(person)))
        assert data["hair_style"] == person.hair_style
    tones = np.array([person.tone for person in people])
    assert tones.min() < 0.1 and tones.max() > 0.9
    assert {person.sex for person in people} == {"female", "male"}
    assert {person.hair_style for person in people} == set(appearances.HAIR_STYLES)
    assert {person.beard for person in people} == set(appearances.BEARDS)
    assert {person.shirt_pattern for person in people} == set(appearances.SHIRTS)


@pytest.mark.parametrize("beard", appearances.BEARDS)
def test_beards_darken_the_chin_and_spare_the_lips(beard):
    kept = {"sex": "male", "tone": 0.1, "hair_colour": (0.1, 0.08, 0.07)}
    kept |= {"beard_colour": (0.1, 0.08, 0.07), "beard_density": 1.0}
    _, shaved = someone(5, beard="none", **kept)
    _, grown = someone(5, beard=beard, **kept)
    check(grown.face, (SIZE, SIZE, 3))
    chin = spot(shaved.face, 199, 200).mean() - spot(grown.face, 199, 200).mean()
    assert chin > 0.15 if beard in ("goatee", "full") else chin > -0.05
    assert abs(spot(shaved.face, 16, 15) - spot(grown.face, 16, 15)).max() < 0.15


@pytest.mark.parametrize("style", appearances.HAIR_STYLES)
def test_every_hair_style_is_painted(style):
    _, textures = someone(6, hair_style=style)
    check(textures.face, (SIZE, SIZE, 3))
    check(textures.hair, (len(textures.hair), len(textures.hair), 3))


@pytest.mark.parametrize("pattern", appearances.SHIRTS)
def test_cloth_and_hair_repeat_without_seams(pattern):
    _, textures = someone(7, shirt_pattern=pattern)
    for image in (textures.hair, textures.cloth):
        for axis in (0, 1):
            step = abs(np.diff(image, axis=axis)).mean((0, 1, 2) if axis else (1, 2)).max()
            seam = abs(np.take(image, 0, axis) - np.take(image, -1, axis)).mean()
            assert seam <= 1.5 * step + 0.35 * (axis == 1)


@pytest.mark.parametrize("seed", range(8, 13))
def test_lips_are_redder_than_the_skin_around(seed):
    _, textures = someone(seed, sex="female", lipstick_amount=0.0, blush=0.0)
    mouth, skin = spot(textures.face, 16, 85, 315), spot(textures.face, 205, 425)
    assert mouth[0] / mouth[1] > skin[0] / skin[1]


def test_faces_are_about_symmetric():
    _, textures = someone(9, moles=0)
    face = textures.face[SIZE // 8 : -SIZE // 8]
    assert abs(face - face[:, ::-1]).mean() < 0.04


def test_the_pupil_is_dark_and_in_the_middle():
    eye = someone(10)[1].eye
    assert eye[30:34, 30:34].mean() < 0.15 < eye[32, 4:14].mean()


def test_dark_skin_is_darker():
    assert someone(11, tone=0.95)[1].face.mean() < someone(11, tone=0.05)[1].face.mean() - 0.2


@pytest.mark.parametrize("kind", sorted(_PAINTERS))
def test_every_background_is_painted(kind, monkeypatch):
    shares = {name: float(name == kind) for name in _PAINTERS}
    monkeypatch.setattr("data_pipelines.synthetic.painting.backgrounds._SHARES", shares)
    check(paint_background(np.random.default_rng(0), 64), (64, 64, 3))


def test_backgrounds_differ_and_repeat():
    images = [paint_background(np.random.default_rng(i), 32) for i in (0, 1, 1)]
    assert np.array_equal(images[1], images[2])
    assert abs(images[0] - images[1]).mean() > 0.02
