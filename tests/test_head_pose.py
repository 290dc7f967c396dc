"""Head pose; tests/media/test_crop.py tests that nothing leaks into crop and mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkjax import conventions, head_pose
from tests.sampling import fakes


def clip(n=60, noise=0.0, seed=0):
    """((n, 131, 2) landmarks in crop coordinates, times) of a head that turns slowly to a side."""
    rng = np.random.default_rng(seed)
    shape = rng.uniform(0.2, 0.8, (131, 2))
    places = conventions.positions(conventions.RIGID)
    shape[places] = head_pose.TEMPLATE
    times = np.arange(n) / 25
    turn = 0.05 * np.sin(2 * np.pi * times / 8)
    maps = np.zeros((n, 2, 3))
    maps[:, 0, 0], maps[:, 1, 1] = 1 - turn**2, 1
    maps[:, 0, 2] = turn**2 / 2
    landmarks = head_pose.apply_transforms(np.broadcast_to(shape, (n, 131, 2)), maps)
    crops = head_pose.fit_similarity(landmarks[:, places])
    landmarks = head_pose.apply_transforms(landmarks, head_pose.transforms_from_parameters(crops))
    return landmarks + rng.normal(0, noise, landmarks.shape), times


def test_affine_fit_is_exact_for_affine_motion():
    landmarks, _ = clip()
    maps = head_pose.fit_affine(landmarks[:, conventions.positions(conventions.RIGID)])
    back = head_pose.pose_shape(landmarks)
    there = head_pose.apply_transforms(np.broadcast_to(back, (len(maps), *back.shape)), maps)
    np.testing.assert_allclose(there, landmarks[:, : conventions.NUM_POSE], atol=1e-9)


def test_normalized_pose_follows_the_head():
    landmarks, times = clip()
    normalized = head_pose.normalize_pose(landmarks, times, np.ones(len(times), bool))
    assert normalized.shape == (60, 74, 2) and normalized.dtype == np.float32
    np.testing.assert_allclose(normalized[20:40], landmarks[20:40, :74], atol=2e-3)


def test_normalized_pose_ignores_jaw_and_lips_altogether():
    landmarks, times = clip()
    moved = landmarks.copy()
    moved[:, conventions.NUM_POSE :] += np.random.default_rng(1).normal(0, 1, (60, 57, 2))
    found = np.ones(60, bool)
    assert np.array_equal(
        head_pose.normalize_pose(landmarks, times, found),
        head_pose.normalize_pose(moved, times, found),
    )


def test_a_detectors_echo_of_the_mouth_does_not_get_through():
    """Pose points that tremble with the opening, as FaceMesh's do, come out still."""
    landmarks, times = clip()
    opening = np.sin(2 * np.pi * 4 * times)  # four syllables a second
    rng = np.random.default_rng(2)
    echo = 0.004 * opening[:, None, None] * rng.normal(0, 1, (1, 74, 2))
    landmarks[:, :74] += echo
    normalized = head_pose.normalize_pose(landmarks, times, np.ones(60, bool))
    quiet = head_pose.normalize_pose(clip()[0], times, np.ones(60, bool))
    left = (normalized - quiet) - (normalized - quiet).mean(0)
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


@pytest.mark.parametrize("found", [np.zeros(60, bool), np.arange(60) % 2 == 0])
def test_shape_comes_from_measured_frames_or_any(found):
    landmarks, times = clip()
    assert np.isfinite(head_pose.normalize_pose(landmarks, times, found)).all()


@given(
    steps=st.lists(st.floats(0.005, 0.19), min_size=1, max_size=60),
    turn=st.floats(-0.5, 0.5),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_streaming_head_pose_equals_that_of_the_whole_clip(steps, turn, seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(steps)
    angle = np.cumsum(turn * rng.uniform(0.5, 1, len(times)))  # several turns need unwrapping
    face = fakes.face_shape() * 60
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    rotated = [cos * face[:, 0] - sin * face[:, 1], sin * face[:, 0] + cos * face[:, 1]]
    mesh = np.stack(rotated, -1) + rng.normal(0, 0.5, (len(times), 478, 2))
    rigid = conventions.select(mesh, conventions.RIGID)
    stream = head_pose.StreamingHeadPose()
    pieces = [stream.push(times[i : i + 1], rigid[i : i + 1]) for i in range(len(times))]
    pieces.append(stream.flush())
    transforms, motions = (np.concatenate(part) for part in zip(*pieces, strict=True))
    whole = head_pose.fit_transforms(mesh, times)
    np.testing.assert_allclose(transforms, whole, rtol=1e-9, atol=1e-12)

    landmarks = head_pose.apply_transforms(conventions.select(mesh), transforms)
    shape = head_pose.pose_shape(landmarks)
    pose = head_pose.apply_transforms(np.repeat(shape[None], len(times), 0), motions)
    whole = head_pose.normalize_pose(landmarks, times, np.ones(len(times), bool))
    np.testing.assert_allclose(pose, whole, atol=1e-5)


def test_clip_without_frames():
    assert head_pose.fit_transforms(np.zeros((0, 478, 3)), np.zeros(0)).shape == (0, 2, 3)
