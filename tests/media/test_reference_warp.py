"""References are warped at the template's resolution as the networks' are at theirs."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.conventions import LIPS_SLICE, Box
from talkjax.media import reference_warp
from talkjax.models import warp

REGION = Box(0.375, 0.0625, 1.0, 0.9375)


def smooth_images(count, height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, height // 8, width // 8, 3)).astype(np.float32)
    shown = [cv2.resize(x, (width, height), interpolation=cv2.INTER_CUBIC) for x in coarse]
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8)


@pytest.fixture
def field():
    rng = np.random.default_rng(1)
    target = rng.uniform(0.2, 0.8, (1, 131, 2)).astype(np.float32)
    references = target[:, None] + rng.normal(0, 0.01, (1, 2, 131, 2)).astype(np.float32)
    return warp.make_field(
        jnp.asarray(references), jnp.asarray(target), REGION, (80, 112), LIPS_SLICE
    )


def test_is_the_networks_warp(field):
    images = smooth_images(2, 80, 112)
    theirs = warp.warp_references(jnp.asarray(images, jnp.float32)[None], field, REGION)[0]
    ours = reference_warp.warp_references(images, tuple(np.asarray(x[0]) for x in field), REGION)
    difference = np.abs(ours - np.asarray(theirs))  # cubic and linear interpolation
    assert difference.mean() < 1 and np.quantile(difference, 0.99) < 5
    assert np.abs(ours - images[0]).mean() > 5


def test_detail_of_the_references_comes_back(field):
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 256, (2, 160, 224, 3), np.uint8)
    small = reference_warp.shrink(sharp, (80, 112))
    assert small.shape == (2, 80, 112, 3)
    field = tuple(np.asarray(x[0]) for x in field)
    filled = reference_warp.warp_references(small, field, REGION)
    filled = np.rint(np.clip(filled, 0, 255)).astype(np.uint8)
    want = reference_warp.warp_references(sharp, field, REGION)
    got = reference_warp.sharpen(filled, filled, sharp, field, REGION)
    np.testing.assert_array_equal(got, want)  # the networks changed nothing
    brighter = np.minimum(filled.astype(int) + 20, 255).astype(np.uint8)
    got = reference_warp.sharpen(brighter, filled, sharp, field, REGION)
    assert np.mean(got - want) == pytest.approx(np.mean(brighter.astype(int) - filled), abs=0.5)


def test_nothing_changes_where_the_networks_have_the_templates_resolution(field):
    images = smooth_images(2, 80, 112)
    made = smooth_images(1, 80, 112, seed=3)[0]
    field = tuple(np.asarray(x[0]) for x in field)
    assert reference_warp.sharpen(made, made, images, field, REGION) is made
    assert reference_warp.shrink(images, (80, 112)) is images


def test_crops_have_the_resolution_of_the_face():
    for side, want in ((100, 256), (300, 304), (5000, 1024)):
        transform = np.array([[1 / side, 0, 0.1], [0, 1 / side, 0.2]])
        assert reference_warp.native_size(transform, 256) == want
