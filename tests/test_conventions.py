import numpy as np

from talkjax import conventions


def test_counts_and_order_are_those_of_the_paper():
    assert (conventions.NUM_POSE, conventions.NUM_JAW, conventions.NUM_LIPS) == (74, 17, 40)
    assert conventions.ALL == conventions.POSE + conventions.JAW + conventions.LIPS
    assert len(set(conventions.ALL)) == conventions.NUM_LANDMARKS == 131
    assert max(conventions.ALL) < conventions.FACEMESH_POINTS


def test_nothing_rigid_is_content():
    assert set(conventions.RIGID) <= set(conventions.POSE)
    assert not set(conventions.RIGID) & set(conventions.CONTENT)


def test_opening_is_the_inner_gap_over_the_interocular_distance():
    points = np.zeros((1, 131, 2))
    points[:, conventions.positions(conventions.LEFT_EYE)] = (0.3, 0.2)
    points[:, conventions.positions(conventions.RIGHT_EYE)] = (0.7, 0.2)
    points[:, conventions.positions((14,))] = (0.5, 0.1)
    points[:, conventions.positions((13,))] = (0.5, 0.0)
    np.testing.assert_allclose(conventions.mouth_opening(points), [0.25])
    np.testing.assert_allclose(conventions.mouth_opening(points * 7), [0.25])


def test_slices_name_what_the_lists_name():
    for part, indices in (
        (conventions.LEFT_EYE_SLICE, conventions.LEFT_EYE),
        (conventions.RIGHT_EYE_SLICE, conventions.RIGHT_EYE),
        (conventions.LIPS_SLICE, conventions.LIPS),
    ):
        assert conventions.ALL[part] == indices


def test_spread_faces_differ_in_lips_and_in_pose():
    faces = np.zeros((5, 131, 2))
    faces[1, conventions.LIPS_SLICE] += 0.3  # only elsewhere
    faces[2, : conventions.NUM_POSE, 0] += 0.1  # turned
    faces[3, conventions.LIPS_SLICE, 1] += np.linspace(-0.05, 0.05, conventions.NUM_LIPS)  # open
    assert conventions.spread_faces(faces, 0, 3) == [0, 2, 3]
    assert conventions.spread_faces(faces[:1], 0, 3) == [0, 0, 0]
