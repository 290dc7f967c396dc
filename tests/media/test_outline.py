"""Where a generated region is pasted: on the lower face and a little around it."""

import numpy as np

from talkjax.conventions import NUM_POSE
from talkjax.media import composite, outline


def face(low=0.75):
    points = np.zeros((131, 2), np.float32)
    angle = np.linspace(0, np.pi, 57)
    points[NUM_POSE:] = np.stack([0.5 + 0.2 * np.cos(angle), 0.5 + (low - 0.5) * np.sin(angle)], -1)
    return points


def at(weights, x, y):
    return weights[round(y * outline.GRID - 0.5), round(x * outline.GRID - 0.5)]


def test_covers_the_face_and_little_more():
    got = outline.inside(outline.envelope(face()[None]), face())
    assert got.shape == (128, 128) and got.dtype == np.float32 and 0 <= got.min() <= got.max() <= 1
    assert at(got, 0.5, 0.6) > 0.99 and at(got, 0.5, 0.74) > 0.7  # the chin's edge
    assert at(got, 0.5, 0.85) < 0.01 and at(got, 0.2, 0.7) < 0.01


def test_covers_the_chin_of_the_template_and_of_the_generated_face():
    closed, opened = face(0.7), face(0.8)
    for known, made in ((closed, opened), (opened, closed)):
        got = outline.inside(outline.envelope(known[None]), made)
        assert at(got, 0.5, 0.79) > 0.7


def test_pixels_beside_the_face_stay_those_of_the_frame():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (200, 200, 3), np.uint8)
    region = rng.integers(0, 256, (80, 112, 3), np.uint8)
    transform = np.array([[1 / 200, 0, 0], [0, 1 / 200, 0]])
    inside = outline.inside(outline.envelope(face()[None]), face())
    got = composite.paste(frame, region, transform, inside=inside)
    plain = composite.paste(frame, region, transform)
    changed, everywhere = ((x != frame).any(-1) for x in (got, plain))
    assert changed[110:140, 80:120].mean() > 0.9
    assert everywhere[165:180, 60:140].any() and not changed[175:180, 60:140].any()
