"""Where a generated region is pasted: on the lower face and a little around it."""

import numpy as np
import pytest

from talkjax import conventions
from talkjax.conventions import NUM_JAW, NUM_POSE
from talkjax.media import composite, outline


def face(low=0.75, opening=0.0):
    """A round lower face whose chin is at y = `low`; eyes are 0.2 apart."""
    points = np.zeros((131, 2), np.float32)
    points[conventions.LEFT_EYE_SLICE], points[conventions.RIGHT_EYE_SLICE] = (0.4, 0.3), (0.6, 0.3)
    angle = np.linspace(0, np.pi, NUM_JAW)
    jaw = np.stack([0.5 + 0.2 * np.cos(angle), 0.5 + (low - 0.5) * np.sin(angle)], -1)
    points[NUM_POSE : NUM_POSE + NUM_JAW] = jaw
    points[conventions.LIPS_SLICE] = (0.5, 0.6)
    upper, lower = conventions.positions((13, 14))
    points[upper], points[lower] = (0.5, 0.6), (0.5, 0.6 + 0.2 * opening)
    return points


def at(weights, x, y):
    return weights[round(y * outline.GRID - 0.5), round(x * outline.GRID - 0.5)]


def test_covers_the_face_and_little_more():
    got = outline.inside(face(), 0.0)
    assert (
        got.shape == (128, 128) and got.dtype == np.float32 and 0 <= got.min() <= got.max() < 1.001
    )
    assert at(got, 0.5, 0.6) > 0.99 and at(got, 0.5, 0.74) > 0.7
    assert at(got, 0.5, 0.83) < 0.01 and at(got, 0.2, 0.7) < 0.01


def test_covers_the_chin_that_the_template_may_have():
    assert at(outline.inside(face(), 0.5), 0.5, 0.78) > 0.7  # 0.4 * 0.5 * 0.2 lower
    assert at(outline.inside(face(opening=0.5), 0.5), 0.5, 0.78) < 0.3  # as open as the template
    assert outline.widest(np.stack([face(opening=x) for x in (0.1, 0.2, 0.3)])) == pytest.approx(
        0.29, abs=0.01
    )


def test_pixels_beside_the_face_stay_those_of_the_frame():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (200, 200, 3), np.uint8)
    region = rng.integers(0, 256, (80, 112, 3), np.uint8)
    transform = np.array([[1 / 200, 0, 0], [0, 1 / 200, 0]])
    got = composite.paste(frame, region, transform, inside=outline.inside(face(), 0.0))
    plain = composite.paste(frame, region, transform)
    changed, everywhere = ((x != frame).any(-1) for x in (got, plain))
    assert changed[110:140, 80:120].mean() > 0.9
    assert everywhere[165:180, 60:140].any() and not changed[175:180, 60:140].any()
