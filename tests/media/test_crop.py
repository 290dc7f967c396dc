import numpy as np
import pytest

from talkjax import conventions, head_pose
from talkjax.conventions import FULL, MASK, MOUTH_REGION, mask_region, to_float
from talkjax.media import crop


def face(n=12, seed=0, scale=80.0, angle=0.2, centre=(170.0, 120.0)):
    """A clip's (n, 478, 2) points in frame coordinates whose rigid part is the template, moved."""
    rng = np.random.default_rng(seed)
    mesh = rng.uniform(0, 300, (1, 478, 2)).repeat(n, 0)
    template = (head_pose.TEMPLATE - head_pose.EYE_CENTRE) / head_pose.INTEROCULAR
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    drift = np.linspace(0, 5, n)[:, None, None]
    mesh[:, list(conventions.RIGID)] = template @ turn.T * scale + centre + drift
    return mesh, np.arange(n) / 25


def test_fit_puts_the_template_where_it_belongs():
    mesh, _ = face()
    parameters = head_pose.fit_similarity(conventions.select(mesh, conventions.RIGID))
    transforms = head_pose.transforms_from_parameters(parameters)
    found = head_pose.apply_transforms(conventions.select(mesh, conventions.RIGID), transforms)
    np.testing.assert_allclose(found, np.broadcast_to(head_pose.TEMPLATE, found.shape), atol=1e-9)


def masked(cropped):
    return mask_region(to_float(cropped), FULL, MASK, 64)


def test_jaw_and_lips_reach_neither_crop_nor_mask_nor_pose():
    """The leak test: wherever the content moves, all inputs of the network stay bit-identical."""
    mesh, times = face()
    frame = np.random.default_rng(1).integers(0, 255, (240, 320, 3), np.uint8)
    moved = mesh.copy()
    rng = np.random.default_rng(2)
    moved[:, list(conventions.CONTENT)] += rng.normal(
        0, 50, (len(mesh), conventions.NUM_CONTENT, 2)
    )
    first, second = head_pose.fit_transforms(mesh, times), head_pose.fit_transforms(moved, times)
    assert np.array_equal(first, second)
    pose = [
        head_pose.apply_transforms(conventions.select(points, conventions.POSE), transforms)
        for points, transforms in ((mesh, first), (moved, second))
    ]
    assert np.array_equal(*pose)
    images = [masked(crop.warp_crop(frame, t[0], 64)) for t in (first, second)]
    assert np.array_equal(*images)
    # A rigid point, in contrast, moves them.
    moved[:, conventions.RIGID[0]] += 5
    assert not np.array_equal(first, head_pose.fit_transforms(moved, times))


def test_mouth_pixels_do_not_reach_the_masked_image():
    mesh, times = face()
    transform = head_pose.fit_transforms(mesh, times)[0]
    rng = np.random.default_rng(3)
    frame = rng.integers(0, 255, (240, 320, 3), np.uint8)
    cropped = crop.warp_crop(frame, transform, 64)
    other = cropped.copy()
    y0, x0, y1, x1 = MASK.pixels(64)
    other[y0:y1, x0:x1] = rng.integers(0, 255, (y1 - y0, x1 - x0, 3))
    assert np.array_equal(masked(cropped), masked(other))
    assert np.ptp(masked(cropped)) > 0.5  # the rest is still there


@pytest.mark.parametrize("scale", [0.4, 1.0, 7.3])
def test_warp_shows_what_the_transform_says(scale):
    """A smooth ramp in frame coordinates has the same values in the crop, at any scale."""
    size, height, width = 32, 400, 500
    y, x = np.mgrid[0:height, 0:width] + 0.5
    frame = np.stack([x / width * 255, y / height * 255, 0 * x], -1).round().astype(np.uint8)
    side = size * scale
    transform = np.array([[1 / side, 0, -120.3 / side], [0, 1 / side, -80.7 / side]])
    out = crop.warp_crop(frame, transform, size).astype(float)
    grid = (np.arange(size) + 0.5) * scale
    np.testing.assert_allclose(out[5, :, 0], (grid + 120.3) / width * 255, atol=1.5)
    np.testing.assert_allclose(out[:, 5, 1], (grid + 80.7) / height * 255, atol=1.5)


def test_invert_undoes_and_boxes_nest():
    mesh, times = face()
    transform = head_pose.fit_transforms(mesh, times)[0]
    points = np.random.default_rng(0).uniform(0, 1, (1, 9, 2))
    there = head_pose.apply_transforms(points, transform[None])
    np.testing.assert_allclose(
        head_pose.apply_transforms(there, head_pose.invert(transform)[None]), points
    )
    inner, outer = MASK, MOUTH_REGION
    assert outer.y0 < inner.y0 < inner.y1 < outer.y1 and outer.x0 < inner.x0 < inner.x1 < outer.x1
    assert outer.cut(np.zeros((128, 128, 3))).shape == (80, 112, 3)
