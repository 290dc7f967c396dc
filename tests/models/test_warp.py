"""The explicit warp: landmarks land on landmarks, what is far stays, and gradients pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.models import warp

REGION = (0.25, 0.25, 0.75, 0.75)
SIZE = 64


def dot_at(points):
    """An image (64, 64, 3) of REGION with a soft dot at each (x, y) in crop coordinates."""
    axis = 0.25 + (np.arange(SIZE) + 0.5) / SIZE / 2
    image = np.zeros((SIZE, SIZE))
    for x, y in points:
        distance = (axis[None] - x) ** 2 + (axis[:, None] - y) ** 2
        image += np.exp(-distance / (2 * 0.01**2))
    return np.repeat(image[..., None], 3, -1).astype(np.float32)


def centre(image):
    """The centre (x, y) of an image's brightness, in crop coordinates."""
    axis = 0.25 + (np.arange(SIZE) + 0.5) / SIZE / 2
    weights = np.asarray(image)[..., 0]
    weights = weights / weights.sum()
    return (weights.sum(0) * axis).sum(), (weights.sum(1) * axis).sum()


def landmarks(*points):
    return jnp.asarray(points, jnp.float32)[None]


def warped(images, references, target, lips=slice(None), part=(slice(None), slice(None))):
    field = warp.make_field(references, target, REGION, images.shape[2:4], lips)
    return warp.warp_references(images, field, REGION, part)


def test_what_lies_at_a_landmark_lies_at_the_target_landmark():
    image = dot_at([(0.45, 0.5)])[None, None]
    got = warped(image, landmarks((0.45, 0.5))[:, None], landmarks((0.47, 0.52)))
    assert got.shape == (1, SIZE, SIZE, 3)
    assert centre(got[0]) == pytest.approx((0.47, 0.52), abs=0.002)


def test_equal_landmarks_change_nothing():
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (2, 3, SIZE, SIZE, 3)).astype(np.float32)
    image[:, 1:] = image[:, :1]
    points = rng.uniform(0.3, 0.7, (2, 1, 20, 2)).astype(np.float32)
    got = warped(image, np.repeat(points, 3, 1), points[:, 0])
    np.testing.assert_allclose(got, image[:, 0], atol=1e-4)
    part = slice(8, 40), slice(16, 56)
    cut = warped(image, np.repeat(points, 3, 1), points[:, 0], part=part)
    np.testing.assert_array_equal(cut, got[:, *part])


def test_what_is_far_from_all_landmarks_stays():
    image = dot_at([(0.7, 0.7)])[None, None]
    own, target = landmarks((0.3, 0.3))[:, None], landmarks((0.34, 0.3))
    got = warped(image, own, target)
    moved = np.subtract(centre(got[0]), (0.7, 0.7))
    assert np.abs(moved).max() < 1e-4


def test_the_reference_with_the_nearest_mouth_counts():
    images = np.stack([np.full((8, 8, 3), v, np.float32) for v in (-1.0, 1.0)])[None]
    own = jnp.stack([landmarks((0.5, 0.4), (0.5, y))[0] for y in (0.5, 0.6)])[None]
    for y, want in ((0.5, -1.0), (0.6, 1.0), (0.55, 0.0)):
        got = warped(images, own, landmarks((0.5, 0.4), (0.5, y)))
        np.testing.assert_allclose(got, want, atol=0.02)


def test_gradients_reach_the_landmarks():
    image = dot_at([(0.47, 0.497)])[None, None]  # no displacement by whole pixels
    own = landmarks((0.47, 0.497))[:, None]

    def loss(x):
        got = warped(image, own, landmarks((0.5, 0.5)) + x.reshape(1, 1, 2))
        return jnp.square(got[0] - dot_at([(0.52, 0.5)])).sum()

    gradient = jax.grad(loss)(jnp.zeros(2))
    assert gradient[0] < -1 and abs(gradient[1]) < 0.2 * abs(gradient[0])  # to the right


def test_places_outside_repeat_the_border():
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
    places = np.array([[[-5, 1], [9, 9], [1.5, 0.5]]], np.float32)[None]
    got = warp.sample_bilinear(image, places.reshape(1, 1, 3, 2))
    np.testing.assert_allclose(np.asarray(got).ravel(), [4, 11, 3.5])
