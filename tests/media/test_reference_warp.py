"""References are warped at the template's resolution as the networks' are at theirs."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.conventions import LIPS_SLICE, MASK, Box, masked_slices
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


def on_host(field):
    return tuple(np.asarray(x[0]) for x in field)


@pytest.mark.parametrize("wanted", [None, MASK])
def test_is_the_networks_warp(field, wanted):
    images = smooth_images(2, 80, 112)
    field = field._replace(weights=jnp.full((1, 2), 0.5))
    part = (slice(None),) * 2 if wanted is None else masked_slices(REGION, wanted, 128)
    theirs = warp.warp_references(jnp.asarray(images, jnp.float32)[None], field, REGION, part)[0]
    ours = reference_warp.warp_references(images, on_host(field), REGION, wanted)
    assert ours.shape == theirs.shape and ours.dtype == np.uint8
    difference = np.abs(ours - np.asarray(theirs))  # cubic and linear interpolation
    assert difference.mean() < 1 and np.quantile(difference, 0.99) < 5
    assert np.abs(ours - images[0][part].astype(float)).mean() > 5


def test_the_part_that_is_wanted_is_that_of_the_whole(field):
    images = smooth_images(2, 160, 224)
    whole = reference_warp.warp_references(images, on_host(field), REGION)
    part = reference_warp.warp_references(images, on_host(field), REGION, MASK)
    want = whole[masked_slices(REGION, MASK, 256)].astype(int)
    assert np.abs(part - want).max() <= 2  # cv2 rounds places


def test_references_that_hardly_count_are_left_out(field):
    images = smooth_images(2, 80, 112)
    moved, _ = on_host(field)
    alone = reference_warp.warp_references(images, (moved, np.array([1.0, 0.0])), REGION)
    weights = np.array([0.99, 0.01], np.float32)
    got = reference_warp.warp_references(images, (moved, weights), REGION)
    np.testing.assert_array_equal(got, alone)
    weights = np.array([0.9, 0.1], np.float32)
    assert (reference_warp.warp_references(images, (moved, weights), REGION) != alone).any()


def test_detail_of_the_references_comes_back():
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 200, (2, 160, 224, 3), np.uint8)
    shown = reference_warp.shrink(sharp, (80, 112))
    assert shown.shape == (2, 80, 112, 3)
    got = reference_warp.add_change(sharp[0], shown[0], shown[0])
    np.testing.assert_array_equal(got, sharp[0])  # the networks changed nothing
    got = reference_warp.add_change(sharp[0], shown[0] + 20.0, shown[0])
    np.testing.assert_allclose(got, sharp[0] + 20.0, atol=0.01)


def test_nothing_changes_where_the_networks_have_the_templates_resolution():
    images = smooth_images(2, 80, 112)
    made = smooth_images(1, 80, 112, seed=3)[0]
    assert reference_warp.add_change(images[0], made, images[0]) is made
    assert reference_warp.shrink(images, (80, 112)) is images


def test_crops_have_the_resolution_of_the_face():
    for side, want in ((100, 256), (300, 304), (5000, 1024)):
        transform = np.array([[1 / side, 0, 0.1], [0, 1 / side, 0.2]])
        assert reference_warp.native_size(transform, 256) == want
