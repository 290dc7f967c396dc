import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.synthetic.geometry.face_model import load_face_model
from talkjax.conventions import ALL, MIRROR
from talkjax.training import augmentation


def batch(samples=3):
    rng = np.random.default_rng(0)
    return {
        "target": jnp.asarray(rng.integers(0, 255, (samples, 2, 8, 12, 3), np.uint8)),
        "reference": jnp.asarray(rng.integers(0, 255, (samples, 1, 8, 12, 3), np.uint8)),
        "frame_landmarks": jnp.asarray(rng.random((samples, 2, 131, 2)), jnp.float32),
        "image_reference_landmarks": jnp.asarray(rng.random((samples, 1, 131, 2)), jnp.float32),
        "keep_landmarks": jnp.ones(samples, bool),
    }


def augment(data, key=0, **amounts):
    config = {"mirror": 0.0, "colour": 0.0} | amounts
    return jax.jit(lambda data, key: augmentation.augment(config, data, key))(
        data, jax.random.key(key)
    )


def test_a_mirrored_face_has_its_points_where_they_belong():
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(131))
    np.testing.assert_array_equal(np.array(ALL)[MIRROR], load_face_model().mirror[list(ALL)])


def test_mirroring_turns_pictures_and_landmarks_alike():
    data = batch()
    got = augment(data, mirror=1.0)
    for name in ("target", "reference"):
        np.testing.assert_array_equal(got[name], data[name][..., ::-1, :])
    for name in ("frame_landmarks", "image_reference_landmarks"):
        want = np.asarray(data[name])[..., MIRROR, :] * [-1, 1] + [1, 0]
        np.testing.assert_allclose(got[name], want, atol=1e-6)
    back = augment(got, mirror=1.0)
    np.testing.assert_allclose(back["frame_landmarks"], data["frame_landmarks"], atol=1e-6)


def test_some_samples_are_mirrored_as_a_whole():
    data = batch(64)
    got = augment(data, mirror=0.5)
    turned = (np.asarray(got["target"]) != data["target"]).any((1, 2, 3, 4))
    assert 16 < turned.sum() < 48
    moved = (np.asarray(got["frame_landmarks"]) != data["frame_landmarks"]).any((1, 2, 3))
    np.testing.assert_array_equal(moved, turned)


def test_colours_of_a_sample_change_together_and_those_of_samples_apart():
    data = batch()
    grey = {**data, "target": jnp.full_like(data["target"], 128)}
    grey["reference"] = jnp.full_like(data["reference"], 128)
    got = augment(grey, colour=1.0)
    for i in range(3):
        tones = np.unique(np.asarray(got["target"][i]).reshape(-1, 3), axis=0)
        assert len(tones) == 1
        np.testing.assert_array_equal(got["reference"][i].reshape(-1, 3)[0], tones[0])
    assert len(np.unique(np.asarray(got["target"])[:, 0, 0, 0], axis=0)) == 3
    np.testing.assert_array_equal(got["frame_landmarks"], data["frame_landmarks"])


def test_no_strength_changes_nothing():
    pictures = batch()["target"]
    same = augmentation.recolour(pictures, jnp.zeros(16))
    assert np.abs(np.asarray(same, int) - np.asarray(pictures, int)).max() <= 1
    assert augment(batch()).keys() == batch().keys()


def test_what_cannot_be_augmented_is_refused():
    config = {
        "augmentation": {"mirror": 0.5, "colour": 0.0},
        "data": {"latents": "latents"},
        "region": (0.375, 0.0625, 1.0, 0.9375),
    }
    with pytest.raises(ValueError, match="unset data"):
        augmentation.check(config)
    config["data"]["latents"] = ""
    augmentation.check(config)
    with pytest.raises(ValueError, match="middle of the crop"):
        augmentation.check({**config, "region": (0.0, 0.0, 1.0, 0.9)})
