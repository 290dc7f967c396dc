"""Which frames become references."""

import dataclasses

import cv2
import numpy as np
import pytest

from talkjax import conventions
from talkjax.conventions import FULL, MASK
from talkjax.media import crop
from talkjax.sampling import faces, reference
from talkjax.sampling.template import VideoTemplate
from tests.sampling import fakes


def candidates(points, transforms=None):
    """Candidates of (N, 131, 2) crop coordinates under crops of 64 px in the middle."""
    still = np.array([[1 / 64, 0, -16 / 64], [0, 1 / 64, -8 / 64]])
    made = []
    for i, landmarks in enumerate(points.astype(np.float32)):
        face = faces.Face(still if transforms is None else transforms[i], landmarks[:74], True)
        made.append(faces.Candidate(i, i / 25, face, landmarks))
    return made


@pytest.fixture
def still():
    return np.repeat(fakes.face_shape()[None, list(conventions.ALL)], 9, 0)


SIZE = (fakes.WIDTH, fakes.HEIGHT)


def test_first_of_equal_frames_is_chosen(still):
    assert reference.choose_images(candidates(still), SIZE, FULL)[0] == 0
    assert reference.choose_images(candidates(still[:1]), SIZE, FULL)[0] == 0


def test_an_unusual_pose_is_avoided(still):
    still[:4, :74] += np.random.default_rng(0).normal(0, 0.02, (4, 74, 2))
    assert reference.choose_images(candidates(still), SIZE, FULL)[0] >= 5  # 4 comes after a jump


def test_the_mouth_is_moderately_open(still):
    lower = conventions.positions((14,))
    still[:, lower, 1] += np.linspace(0.0, 0.16, 9)[:, None]
    assert reference.choose_images(candidates(still), SIZE, FULL)[0] in (5, 6)


def test_more_images_show_other_mouths(still):
    lower = conventions.positions((14,))
    order = np.array([3, 8, 0, 5, 1, 7, 2, 6, 4])
    still[:, lower, 1] += order[:, None] * 0.02
    closed, opened = int(order.argmin()), int(order.argmax())
    chosen = reference.choose_images(candidates(still), SIZE, FULL, 5)
    assert order[chosen[0]] in (5, 6) and chosen[1] == closed and opened in chosen
    assert reference.choose_images(candidates(still[:1]), SIZE, FULL, 3) == [0, 0, 0]


def test_no_image_is_dim_because_it_differs(still):
    lower = conventions.positions((14,))
    still[:, lower, 1] += np.arange(9)[:, None] * 0.02
    good = np.random.default_rng(0).integers(60, 200, (64, 64, 3)).astype(np.float32)
    shown = [good] * 8 + [good * 0.4]
    made = [
        dataclasses.replace(c, thumbnail=image.astype(np.uint8))
        for c, image in zip(candidates(still), shown, strict=True)
    ]
    assert 8 not in reference.choose_images(made, SIZE, FULL, 5)


def test_a_face_that_leaves_the_picture_is_avoided(still):
    inside = np.array([[1 / 64, 0, -16 / 64], [0, 1 / 64, -8 / 64]])
    outside = np.array([[1 / 64, 0, 0.5], [0, 1 / 64, -8 / 64]])
    transforms = [outside] * 6 + [inside] * 3
    assert reference.choose_images(candidates(still, transforms), SIZE, FULL)[0] in (7, 8)


@pytest.mark.parametrize("spoil", ["dim", "white", "blurred", "grey"])
def test_a_frame_in_bad_light_is_avoided(still, spoil):
    """The first of equal frames would be chosen, but most others show more."""
    good = np.random.default_rng(0).integers(60, 200, (64, 64, 3)).astype(np.float32)
    good += (30, 0, -30)
    bad = {
        "dim": good * 0.5,
        "white": good * 0.5 + 127,
        "blurred": cv2.GaussianBlur(good, (0, 0), 3) * 3 - 260,
        "grey": good.mean(-1, keepdims=True) * 1.4 - 50 + np.zeros(3),
    }[spoil]
    shown = [bad] * 4 + [good] * 5
    made = [
        dataclasses.replace(c, thumbnail=np.clip(image, 0, 255).astype(np.uint8))
        for c, image in zip(candidates(still), shown, strict=True)
    ]
    assert reference.choose_images(made, SIZE, FULL)[0] == 4
    usual = [dataclasses.replace(c, thumbnail=(good * 0.95).astype(np.uint8)) for c in made[:4]]
    assert reference.choose_images(usual + made[4:], SIZE, FULL)[0] == 0


def test_landmarks_are_spread_evenly(still):
    still[:, 0, 0] = np.arange(9)
    got = reference.choose_landmarks(candidates(still), 3)
    assert got.landmarks.shape == (3, 131, 2) and got.landmarks.dtype == np.float32
    assert got.landmarks[:, 0, 0].tolist() == [2, 4, 6]
    assert got.mel.shape == (3, 16, 80) and not got.heard.any()
    one = reference.choose_landmarks(candidates(still[:1]), 4)
    assert one.landmarks.shape == (4, 131, 2) and one.heard.shape == (4,)


def test_image_is_the_chosen_frame_unmasked(template):
    video = VideoTemplate(template)
    transform = np.array([[1 / 64, 0, -16 / 64], [0, 1 / 64, -8 / 64]])
    chosen = faces.Candidate(7, 7 / 25, faces.Face(transform, None, True), None)
    (got,), _ = reference.read_crops(video.frames(), [chosen], [], 32, MASK)
    want = crop.warp_crop(list(video.frames())[7].rgb, transform, 32)
    np.testing.assert_array_equal(got, want)


def test_several_images_are_read_in_one_pass(template):
    video = VideoTemplate(template)
    transform = np.array([[1 / 64, 0, -16 / 64], [0, 1 / 64, -8 / 64]])
    face = faces.Face(transform, None, True)
    chosen = [faces.Candidate(i, i / 25, face, None) for i in (7, 2, 7)]
    got, _ = reference.read_crops(video.frames(), chosen, [], 32, MASK)
    shown = list(video.frames())
    for image, candidate in zip(got, chosen, strict=True):
        want = crop.warp_crop(shown[candidate.index].rgb, transform, 32)
        np.testing.assert_array_equal(image, want)
    with pytest.raises(RuntimeError, match="frame 999 of the template is missing"):
        late = [faces.Candidate(999, 40.0, face, None)]
        reference.read_crops(video.frames(), late, [], 32, MASK)
