"""Pasting is exact outside the mask and accurate inside, at any scale, angle and place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkjax.conventions import FULL, MASK, MOUTH_REGION
from talkjax.media import composite, crop


def transform(side: float, x: float, y: float, angle: float = 0.0) -> np.ndarray:
    """Frame to crop: a crop of `side` frame pixels, turned by `angle`, its centre at (x, y)."""
    c, s = np.cos(angle) / side, np.sin(angle) / side
    linear = np.array([[c, s], [-s, c]])
    return np.concatenate([linear, (0.5 - linear @ (x, y))[:, None]], 1)


def picture(height: int, width: int, x0: float = 0.0, y0: float = 0.0) -> np.ndarray:
    """A smooth colourful picture, a function of position alone; waves of 40 pixels and more."""
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = x + x0, y + y0
    waves = [np.sin(x / 9), np.cos(y / 8 + 1), np.sin((x + y) / 11 + 2)]
    return np.rint(128 + 60 * np.stack(waves, -1)).astype(np.uint8)


def mask_area(shape, matrix) -> np.ndarray:
    """(H, W) bool: pixels whose centre is inside the mask, computed independently."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    v = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    return (u > MASK.x0) & (u < MASK.x1) & (v > MASK.y0) & (v < MASK.y1)


@pytest.mark.parametrize("colour", [True, False])
@given(
    side=st.floats(3, 600),
    x=st.floats(-200, 400),
    y=st.floats(-200, 400),
    angle=st.floats(-3.2, 3.2),
    dtype=st.sampled_from([np.uint8, np.float32]),
)
@settings(max_examples=40, deadline=None)
def test_outside_of_the_mask_nothing_changes(colour, side, x, y, angle, dtype):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (120, 160, 3), np.uint8)
    before = frame.copy()
    region = rng.integers(0, 256, (80, 112, 3)).astype(dtype)
    matrix = transform(side, x, y, angle)
    out = composite.paste(frame, region, matrix, colour=colour)
    assert out.dtype == np.uint8 and out.shape == frame.shape and out is not frame
    np.testing.assert_array_equal(frame, before)
    outside = ~mask_area(frame.shape, matrix)
    np.testing.assert_array_equal(out[outside], frame[outside])


def test_inside_it_is_replaced():
    frame = np.full((300, 400, 3), 100, np.uint8)
    matrix = transform(200, 200, 150)
    out = composite.paste(frame, np.full((80, 112, 3), 200, np.uint8), matrix, colour=False)
    changed = (out != frame).any(-1)
    area = mask_area(frame.shape, matrix)
    assert 0.7 < (changed & area).sum() / area.sum() < 1  # feather and round corners
    assert (out == 200).all(-1).sum() > 0.4 * area.sum()
    y, x = np.argwhere(area).min(0)
    assert not changed[y, x]  # the corner is round


@pytest.mark.parametrize("side", [40, 128, 300])
@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0])
def test_what_was_cut_out_comes_back(side, angle):
    """Pasting puts back what was cut out, except for rounding and lost detail."""
    frame = picture(400, 400)
    matrix = transform(side, 203.3, 190.7, angle)
    region = MOUTH_REGION.cut(crop.warp_crop(frame, matrix, 128))
    out = composite.paste(frame, region, matrix)
    area = mask_area(frame.shape, matrix)
    error = np.abs(out.astype(float) - frame)[area].mean()
    slipped = np.abs(np.roll(frame, 1, axis=1).astype(float) - frame)[area].mean()
    assert error < (0.15 if side >= 128 else 0.35) * slipped


@pytest.mark.parametrize(("box", "shape"), [(MOUTH_REGION, (160, 224)), (FULL, (256, 256))])
def test_any_region(box, shape):
    frame = picture(300, 300)
    matrix = transform(250, 150, 150)
    region = box.cut(crop.warp_crop(frame, matrix, 256))
    assert region.shape[:2] == shape
    out = composite.paste(frame, region, matrix, box)
    assert np.abs(out.astype(int) - frame).max() <= 4


def test_no_aliasing_where_the_face_is_small():
    """A fine checkerboard becomes grey and shows no moire pattern."""
    frame = np.full((80, 80, 3), 128, np.uint8)
    board = (np.indices((160, 224)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, -1)
    out = composite.paste(frame, board, transform(30, 40, 40, 0.1), colour=False)
    assert np.abs(out.astype(int) - 128).max() <= 6


def test_partly_outside_of_the_frame():
    frame = picture(100, 100)
    for x, y in ((0, 0), (100, 0), (0, 100), (100, 100), (50, 120), (-20, 40)):
        matrix = transform(120, x, y)
        region = MOUTH_REGION.cut(crop.warp_crop(frame, matrix, 128))
        out = composite.paste(frame, 255 - region, matrix, colour=False)
        assert (out != frame).any() == composite_reaches(matrix, frame)
    far = composite.paste(frame, region, transform(50, 5000, 5000))
    np.testing.assert_array_equal(far, frame)


def composite_reaches(matrix, frame) -> bool:
    return bool((composite.feathered_alpha(matrix, (0, 0, *frame.shape[:2])) > 0.02).any())


def test_alpha():
    matrix = transform(1000, 500, 500)
    alpha = composite.feathered_alpha(matrix, (0, 0, 1000, 1000))
    area = mask_area((1000, 1000), matrix)
    assert alpha.shape == (1000, 1000) and alpha.dtype == np.float32
    assert alpha.min() == 0 and alpha.max() == 1 and not alpha[~area].any()
    row = alpha[700]  # rises once, falls once, never by much: no visible edge
    assert (np.diff(row)[:500] >= 0).all() and (np.diff(row)[500:] <= 0).all()
    assert np.abs(np.diff(row)).max() < 0.03
    part = composite.feathered_alpha(matrix, (600, 100, 800, 300))
    np.testing.assert_allclose(part, alpha[600:800, 100:300], atol=1e-5)
    hard = composite.feathered_alpha(matrix, (0, 0, 1000, 1000), feather=0.0, corner=0.0)
    np.testing.assert_array_equal(hard > 0.5, area)


def test_colour_match_undoes_a_tint():
    frame = picture(400, 400)
    matrix = transform(200, 200, 200, 0.2)
    region = MOUTH_REGION.cut(crop.warp_crop(frame, matrix, 128)).astype(np.float32)
    gain, offset = composite.match_colour(frame, region, matrix)
    np.testing.assert_allclose(gain, 1, atol=1e-6)
    np.testing.assert_allclose(offset, 0, atol=1e-3)
    tinted = region * (0.95, 1.0, 1.04) + (6, -5, 3)
    gain, offset = composite.match_colour(frame, tinted, matrix)
    np.testing.assert_allclose(tinted * gain + offset, region, atol=0.5)
    area = mask_area(frame.shape, matrix)
    plain = composite.paste(frame, tinted, matrix, colour=False)
    matched = composite.paste(frame, tinted, matrix)
    errors = [np.abs(out.astype(float) - frame)[area].mean() for out in (plain, matched)]
    assert errors[1] < 0.3 * errors[0]


def test_colour_match_is_bounded_and_ignores_the_mask():
    frame = picture(400, 400)
    matrix = transform(200, 200, 200)
    region = MOUTH_REGION.cut(crop.warp_crop(frame, matrix, 128))
    painted = region.copy()
    painted[12:68, 12:100] = 0  # well inside of the mask: lips may be anything
    before, after = (composite.match_colour(frame, r, matrix) for r in (region, painted))
    np.testing.assert_array_equal(before, after)
    gain, offset = composite.match_colour(frame, np.zeros_like(region), matrix)
    assert (gain <= 1.1 + 1e-6).all() and (np.abs(offset) <= 20 + 1e-3).all()


def test_colour_match_needs_a_ring():
    frame = picture(100, 100)
    gain, offset = composite.match_colour(
        frame, np.zeros((80, 112, 3), np.uint8), transform(100, -300, 50)
    )
    assert gain.tolist() == [1, 1, 1] and offset.tolist() == [0, 0, 0]


def test_region_not_finite_stays_inside():
    frame = picture(100, 100)
    matrix = transform(80, 50, 50)
    region = np.full((80, 112, 3), np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        out = composite.paste(frame, region, matrix, colour=False)
    outside = ~mask_area(frame.shape, matrix)
    np.testing.assert_array_equal(out[outside], frame[outside])


@pytest.mark.parametrize("side", [60, 200, 500])
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_only_the_part_with_weights_is_computed(side, angle, monkeypatch):
    """What is left out would not have changed anything."""
    frame, matrix = picture(400, 500), transform(side, 250, 200, angle)
    region = picture(80, 112, 30, 50)
    inside = np.zeros((128, 128), np.float32)
    inside[66:90, 40:75] = 0.5 + 0.5 * np.outer(np.hanning(24), np.hanning(35))
    got = composite.paste(frame, region, matrix, inside=inside)
    monkeypatch.setattr(composite, "_reach", lambda inside, transform, mask: mask)
    whole = composite.paste(frame, region, matrix, inside=inside)
    assert np.abs(got.astype(int) - whole).max() <= 4  # OpenCV rounds places
    assert ((got != frame).any(-1) == (whole != frame).any(-1)).mean() > 0.999
    nowhere = composite.paste(frame, region, matrix, inside=np.zeros((128, 128), np.float32))
    np.testing.assert_array_equal(nowhere, frame)
