import jax
import jax.numpy as jnp
import numpy as np

from talkjax.models import lip_shape

REGION = (0.375, 0.0625, 1.0, 0.9375)
_TURN = np.linspace(0, 2 * np.pi, 21)[:-1]


def face(opening, lips=0.05):
    """A face whose lips and opening are ellipses around (0.5, 0.7)."""
    points = np.zeros((131, 2), np.float32)
    for where, width, height in ((slice(91, 111), 0.12, lips), (slice(111, 131), 0.1, opening)):
        circle = np.stack([-width * np.cos(_TURN), height * np.sin(_TURN)], -1)
        points[where] = circle + np.array([0.5, 0.7])
    return points


def shares(points):
    """The two pictures on the fine grid: (B, 40, 56, 2)."""
    drawn = np.asarray(lip_shape.draw_lips(jnp.asarray(points), (10, 14), REGION))
    assert drawn.shape == (len(points), 10, 14, lip_shape.CHANNELS)
    drawn = drawn.reshape(-1, 10, 14, lip_shape.FINE, lip_shape.FINE, 2)
    return drawn.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 40, 56, 2)


def test_areas_and_places_are_those_of_the_outlines():
    drawn = shares([face(0.02), face(0.04)])
    part = (1.0 - 0.375) / 40 * (0.9375 - 0.0625) / 56
    areas = drawn.sum((1, 2)) * part
    polygon = 10 * np.sin(2 * np.pi / 20) / np.pi  # a polygon of 20 corners over its ellipse
    want = polygon * np.pi * np.array([[0.12 * 0.05, 0.1 * 0.02], [0.12 * 0.05, 0.1 * 0.04]])
    np.testing.assert_allclose(areas, want, rtol=0.03)
    y = (np.arange(40) + 0.5) / 40 * 0.625 + 0.375
    x = (np.arange(56) + 0.5) / 56 * 0.875 + 0.0625
    radius = np.hypot((x[None] - 0.5) / 0.1, (y[:, None] - 0.7) / 0.04)
    assert (drawn[1, ..., 1][radius < 0.75] > 0.5).all()
    assert (drawn[1, ..., 1][radius > 1.25] < 0.5).all()


def test_a_shut_mouth_has_next_to_no_opening():
    shut, ajar = (shares([face(opening)])[0, ..., 1].sum() for opening in (0.0, 0.01))
    assert shut < 0.5 * ajar


def test_the_opening_has_a_finite_gradient_that_opens_the_mouth():
    def area(height):
        points = jnp.asarray(face(1.0)).at[111:131, 1].add(-0.7)
        points = points.at[111:131, 1].mul(height).at[111:131, 1].add(0.7)
        return lip_shape.draw_lips(points[None], (10, 14), REGION)[..., 1::2].sum()

    for height in (0.0, 0.003, 0.05):
        gradient = jax.grad(area)(height)
        assert np.isfinite(gradient) and (gradient > 0 or height == 0)
