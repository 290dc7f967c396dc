"""Head motion without the mouth; the leak tests of crop and mask are in test_crop.py."""

import numpy as np
import pytest

from talkjax import conventions, head_pose


def clip(n=60, noise=0.0, seed=0):
    """((n, 131, 2) landmarks in crop coordinates, transforms, times) of a slowly turning head."""
    rng = np.random.default_rng(seed)
    shape = rng.uniform(0.2, 0.8, (131, 2))
    places = conventions.positions(conventions.RIGID)
    shape[places] = head_pose.TEMPLATE
    times = np.arange(n) / 25
    turn = 0.05 * np.sin(2 * np.pi * times / 8)
    maps = np.zeros((n, 2, 3))
    maps[:, 0, 0], maps[:, 1, 1] = 1 - turn**2, 1
    maps[:, 0, 1], maps[:, 0, 2] = turn, turn / 2
    landmarks = head_pose.apply_transforms(np.broadcast_to(shape, (n, 131, 2)), maps)
    transforms = np.broadcast_to([[0.01, 0.0, -1.0], [0.0, 0.01, -0.5]], (n, 2, 3))
    return landmarks + rng.normal(0, noise, landmarks.shape), transforms, times


def test_affine_fit_is_exact_for_affine_motion():
    landmarks, _, _ = clip()
    maps = head_pose.fit_affine(landmarks[:, conventions.positions(conventions.RIGID)])
    back = head_pose.pose_shape(landmarks[:, : conventions.NUM_POSE], maps)
    there = head_pose.apply_transforms(np.broadcast_to(back, (len(maps), *back.shape)), maps)
    np.testing.assert_allclose(there, landmarks[:, : conventions.NUM_POSE], atol=1e-9)


def test_steady_pose_follows_the_head():
    landmarks, transforms, times = clip()
    steady = head_pose.steady_pose(landmarks, transforms, times, np.ones(len(times), bool))
    assert steady.shape == (60, 74, 2) and steady.dtype == np.float32
    np.testing.assert_allclose(steady[20:40], landmarks[20:40, :74], atol=2e-3)


def test_steady_pose_ignores_jaw_and_lips_altogether():
    landmarks, transforms, times = clip()
    moved = landmarks.copy()
    moved[:, conventions.NUM_POSE :] += np.random.default_rng(1).normal(0, 1, (60, 57, 2))
    found = np.ones(60, bool)
    assert np.array_equal(
        head_pose.steady_pose(landmarks, transforms, times, found),
        head_pose.steady_pose(moved, transforms, times, found),
    )


def test_a_detectors_echo_of_the_mouth_does_not_get_through():
    """Pose points that tremble with the opening, as FaceMesh's do, come out still."""
    landmarks, transforms, times = clip()
    opening = np.sin(2 * np.pi * 4 * times)  # four syllables a second
    rng = np.random.default_rng(2)
    echo = 0.004 * opening[:, None, None] * rng.normal(0, 1, (1, 74, 2))
    landmarks[:, :74] += echo
    steady = head_pose.steady_pose(landmarks, transforms, times, np.ones(60, bool))
    quiet = head_pose.steady_pose(clip()[0], transforms, times, np.ones(60, bool))
    left = (steady - quiet) - (steady - quiet).mean(0)
    share = (
        np.abs(np.einsum("nkd,n->kd", left, opening)).mean()
        / np.abs(np.einsum("nkd,n->kd", echo, opening)).mean()
    )
    assert share < 0.05


def test_compose_does_the_inner_map_first():
    rng = np.random.default_rng(0)
    outer, inner = rng.normal(0, 1, (2, 3, 2, 3))
    points = rng.normal(0, 1, (3, 5, 2))
    np.testing.assert_allclose(
        head_pose.apply_transforms(points, head_pose.compose(outer, inner)),
        head_pose.apply_transforms(head_pose.apply_transforms(points, inner), outer),
    )


def test_smoothing_keeps_a_constant_and_damps_noise():
    times = np.arange(50) / 25
    noise = np.random.default_rng(0).normal(0, 1, (50, 1))
    np.testing.assert_allclose(head_pose.smooth(np.full((50, 1), 3.0), times), 3.0)
    assert (
        head_pose.smooth(noise, times, sigma=0.3).std() < head_pose.smooth(noise, times).std() < 0.5
    )


@pytest.mark.parametrize("found", [np.zeros(60, bool), np.arange(60) % 2 == 0])
def test_shape_comes_from_measured_frames_or_any(found):
    landmarks, transforms, times = clip()
    assert np.isfinite(head_pose.steady_pose(landmarks, transforms, times, found)).all()
