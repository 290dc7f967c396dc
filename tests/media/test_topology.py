import numpy as np

from talkjax.media import topology


def test_counts_and_order_are_those_of_the_paper():
    assert (topology.NUM_POSE, topology.NUM_JAW, topology.NUM_LIPS) == (74, 17, 40)
    assert topology.ALL == topology.POSE + topology.JAW + topology.LIPS
    assert len(set(topology.ALL)) == topology.NUM_ALL == 131
    assert max(topology.ALL) < topology.FACEMESH_POINTS


def test_nothing_rigid_is_content():
    assert set(topology.RIGID) <= set(topology.POSE)
    assert not set(topology.RIGID) & set(topology.CONTENT)


def test_opening_is_the_inner_gap_over_the_interocular_distance():
    points = np.zeros((1, 131, 2))
    points[:, topology.positions(topology.LEFT_EYE)] = (0.3, 0.2)
    points[:, topology.positions(topology.RIGHT_EYE)] = (0.7, 0.2)
    points[:, topology.positions((14,))] = (0.5, 0.1)
    points[:, topology.positions((13,))] = (0.5, 0.0)
    np.testing.assert_allclose(topology.mouth_opening(points), [0.25])
    np.testing.assert_allclose(topology.mouth_opening(points * 7), [0.25])
