"""Optical flow of the upper face, and the crop that follows the head by it."""

import numpy as np
import pytest

from talkjax import conventions, head_pose
from talkjax.media import crop, head_motion
from tests.shaken_head import EYES, FPS, misplacement, scene, shift_scene, still_mesh


def upper_face(frame, mesh):
    return head_motion.upper_face(crop.cut_faces(frame, mesh[None], head_motion.SIZE)[0])


def run(shifts, mesh_errors, background=None):
    """Transforms of a scene that is shifted as a whole, with errors in the detected points."""
    picture = scene() if background is None else background
    motion, meshes, drifts = head_motion.HeadMotion(), [], []
    for shift, error in zip(shifts, mesh_errors, strict=True):
        frame = shift_scene(picture, shift)
        meshes.append(still_mesh() + np.array([shift, 0.0]) + error)
        drifts.append(motion.push(upper_face(frame, meshes[-1])))
    times = np.arange(len(meshes)) / FPS
    return head_pose.fit_transforms(np.array(meshes), times, np.array(drifts)), np.array(drifts)


def test_place_follows_a_shaken_head_and_not_a_blink():
    times = np.arange(60) / FPS
    shifts = 24 * np.sin(2 * np.pi * times / 1.2)
    blink = np.zeros((60, 1, 2))
    blink[30:34, :, 1] = 0.03 * EYES  # the detector moves all points down for four frames
    noise = np.random.default_rng(2).normal(0, 0.004 * EYES, (60, 1, 2))
    transforms, _ = run(shifts, blink + noise)
    error = misplacement(transforms, shifts)
    assert np.quantile(error, 0.95) < 0.01 and error.max() < 0.015


def test_drift_is_the_change_of_the_fits_error():
    errors = np.zeros((4, 1, 2))
    errors[2:] = (1.2, -0.6)  # pixels
    _, drifts = run(np.array([0.0, 5.0, 10.0, 15.0]), errors)
    assert np.isnan(drifts[0]).all()
    # What a fit has too far to the right appears too far to the left in its crop.
    expected = -np.array([1.2, -0.6]) * head_pose.INTEROCULAR / EYES
    np.testing.assert_allclose(drifts[2, 2:], expected, atol=4e-4)
    np.testing.assert_allclose(drifts[[1, 3]], 0, atol=1e-3)


def test_flow_sees_nothing_of_the_mouth():
    frame, mesh = scene(), still_mesh()
    fit = head_pose.fit_similarity(conventions.select(mesh[None], conventions.RIGID))
    transform = head_pose.transforms_from_parameters(fit)[0]
    y, x = np.mgrid[:300, :400] + 0.5
    down = transform[1, 0] * x + transform[1, 1] * y + transform[1, 2]
    other = frame.copy()
    other[down > conventions.MASK.y0 + 0.01] = 255 - other[down > conventions.MASK.y0 + 0.01]
    moved = mesh.copy()
    moved[list(conventions.CONTENT)] += 40
    assert np.array_equal(upper_face(frame, mesh), upper_face(other, moved))


def test_faces_without_structure_have_no_drift():
    grey = np.full((300, 400, 3), 128, np.uint8)
    transforms, drifts = run(np.zeros(10), np.zeros((10, 1, 2)), grey)
    assert np.isnan(drifts).all() and np.isfinite(transforms).all()


@pytest.mark.parametrize("begins", [False, True])
def test_nothing_is_measured_across_a_cut_or_a_gap(begins):
    picture = upper_face(scene(), still_mesh())
    motion = head_motion.HeadMotion()
    motion.push(picture)
    assert np.isfinite(motion.push(picture)).all()
    if begins:
        assert np.isnan(motion.push(picture, begins=True)).all()
    else:
        assert np.isnan(motion.push(None)).all() and np.isnan(motion.push(picture)).all()


def test_robust_fit_ignores_what_moves_otherwise():
    rng = np.random.default_rng(3)
    start = rng.uniform(0.2, 0.8, (60, 2))
    turn, scale, shift = 0.02, 1.03, np.array([0.01, -0.02])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    end = (start - head_pose.EYE_CENTRE) @ (scale * rotation).T + head_pose.EYE_CENTRE + shift
    end[:15] += 0.05  # a brow
    motion, _ = head_motion.fit_motion(start, end)
    np.testing.assert_allclose(motion, [np.log(scale), turn, *shift], atol=1e-3)


def test_crop_shows_the_same_part_of_a_moving_face():
    times = np.arange(50) / FPS
    shifts = 24 * np.sin(2 * np.pi * times / 1.2)
    transforms, _ = run(shifts, np.zeros((50, 1, 2)))
    picture = scene()
    crops = []
    for shift, transform in zip(shifts, transforms, strict=True):
        frame = shift_scene(picture, shift)
        crops.append(crop.warp_crop(frame, transform, 64)[8:-8, 8:-8].astype(float))
    assert np.abs(np.stack(crops) - np.median(crops, 0)).mean() < 2.0  # levels of 255
