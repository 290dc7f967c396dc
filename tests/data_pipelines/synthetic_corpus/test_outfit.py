"""What people wear at the neck, and hair and beards with volume."""

import dataclasses
import json

import numpy as np
import pytest

from data_pipelines.synthetic import outfit as outfits
from data_pipelines.synthetic.geometry import (
    beard,
    face_model,
    garments,
    head,
    locks,
    shape,
    torso,
)
from data_pipelines.synthetic.painting import appearance, tileable

BODY = torso.Torso(neck=0.3, chin=1.85)


def people(count):
    looks = [appearance.sample_appearance(np.random.default_rng(i)) for i in range(count)]
    return [(look, np.random.default_rng([1, i])) for i, look in enumerate(looks)]


def stack(parts):
    return np.concatenate([part.vertices for part in parts])


def test_outfits_cover_all_kinds_and_repeat():
    drawn = [outfits.sample_outfit(rng, look) for look, rng in people(400)]
    assert {o.collar for o in drawn} == set(outfits.COLLARS)
    assert {o.neckwear for o in drawn} == set(outfits.NECKWEAR)
    assert drawn == [outfits.sample_outfit(rng, look) for look, rng in people(400)]
    assert json.loads(json.dumps(dataclasses.asdict(drawn[0])))["collar"] == drawn[0].collar
    assert all(o.collar in ("suit", "shirt") for o in drawn if o.neckwear == "tie")
    assert all(o.opening == 0 for o in drawn if o.neckwear == "tie")


def test_an_appearance_does_not_depend_on_outfit_or_grooming():
    look = appearance.sample_appearance(np.random.default_rng(3))
    assert look.outfit == outfits.Outfit() and look.grooming == outfits.Grooming()


def test_only_long_hair_falls_beside_the_jaw_and_only_beards_have_length():
    drawn = [(look, outfits.sample_grooming(rng, look)) for look, rng in people(400)]
    for look, grooming in drawn:
        if look.hair_style in ("bald", "short", "crop"):
            assert grooming.locks == (0, 0) and grooming.loose == 0
        if look.beard in ("none", "stubble"):
            assert grooming.beard_length == grooming.moustache_length == 0
    assert sum(max(g.locks) > 0 for _, g in drawn) > 60
    lengths = [g.beard_length for _, g in drawn if g.beard_length]
    assert min(lengths) < 0.1 and max(lengths) > 0.6


@pytest.mark.parametrize("collar", outfits.COLLARS)
@pytest.mark.parametrize("opening", [0.0, 0.8])
def test_garments_stay_with_the_shoulders_and_below_the_mouth(collar, opening):
    worn = outfits.Outfit(collar=collar, collar_height=1.0, opening=opening, seed=4)
    parts = garments.make_garments(worn, BODY)
    points = stack(parts)
    assert np.isfinite(points).all()
    front = points[(points[:, 2] < 0.8) & (np.abs(points[:, 0]) < 0.5)]
    assert front[:, 1].min() > 1.6  # The mouth is at 1.23, the chin at 1.85.
    for part in parts:
        assert (part.head_weight == 0).all()
        assert part.triangles.max() < len(part.vertices)
        assert part.opacity.min() >= 0 and part.opacity.max() <= 1


def test_collars_come_nearer_to_the_chin_with_their_height():
    def top(height):
        worn = outfits.Outfit(collar="turtleneck", collar_height=height)
        points = stack(garments.make_garments(worn, BODY)[1:])
        return points[np.abs(points[:, 0]) < 0.1][:, 1].min()

    assert top(1.0) < top(0.0) - 0.3


def test_an_opening_shows_the_skin_below():
    def skin(opening):
        worn = outfits.Outfit(collar="shirt", opening=opening)
        return any(part.material == torso.NECK for part in garments.make_garments(worn, BODY))

    assert skin(0.8) and not skin(0.0)


@pytest.mark.parametrize("neckwear", outfits.NECKWEAR[1:])
def test_neckwear_is_before_the_garment(neckwear):
    without = outfits.Outfit(collar="crew", seed=1)
    plain = garments.make_garments(without, BODY)
    more = garments.make_garments(dataclasses.replace(without, neckwear=neckwear), BODY)
    added = stack(more[len(plain) :])
    assert np.isfinite(added).all() and len(added) > 20
    assert added[:, 2].min() < 0.6  # The front of the neck is at 0.7.
    assert added[:, 1].min() > 1.5


@pytest.mark.parametrize("fabric", outfits.FABRICS)
def test_fabrics_repeat_and_differ_from_plain_cloth(fabric):
    def paint(name):
        rng = np.random.default_rng(0)
        return tileable.paint_fabric((0.2, 0.3, 0.6), (0.9, 0.9, 0.2), name, rng, 256)

    image = paint(fabric)
    assert image.shape == (256, 256, 3) and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 1
    assert fabric == "plain" or np.abs(image - paint("plain")).mean() > 0.004


@pytest.fixture(scope="module")
def face():
    points = shape.deform_mean_face(face_model.load_face_model(), shape.Shape())
    back, _, _ = head.extend_face(points)
    return points, head.HeadSurface(np.concatenate([points[: face_model.SURFACE], back]))


def test_locks_hang_at_their_side_and_as_long_as_they_are(face):
    def lowest(length):
        parts = locks.make_locks(outfits.Grooming(locks=(length, 0.0), seed=2), face[1], 0.13, 5)
        points = stack(parts)
        assert np.isfinite(points).all() and np.mean(points[:, 0] < 0.2) > 0.98
        return points[:, 1].max()

    assert lowest(1.0) > lowest(0.3) + 0.8
    assert locks.make_locks(outfits.Grooming(), face[1], 0.13, 5) == []


def test_a_beard_grows_at_the_chin_and_follows_the_skin():
    model = face_model.load_face_model()
    points = model.points[: face_model.SURFACE]
    uv = model.uv[: face_model.SURFACE]
    mask = np.zeros((64, 64), np.float32)
    mask[44:58, 16:48] = 1

    def grow(length):
        grooming = outfits.Grooming(beard_length=length, seed=1)
        return beard.make_beard(grooming, mask, points, model.triangles, uv, points[152])

    assert grow(0.0) == []
    short, long = grow(0.1)[-1], grow(0.8)[-1]
    assert long.part.vertices[:, 1].max() > short.part.vertices[:, 1].max() + 0.3
    down = np.array([0, 0.2, 0])
    np.testing.assert_allclose(long.deform(points + down), long.part.vertices + down)
    # It never covers the eyes.
    assert long.part.vertices[:, 1].min() > points[[33, 263], 1].max()
