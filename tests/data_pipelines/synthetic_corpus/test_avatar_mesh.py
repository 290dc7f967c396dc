import numpy as np

from data_pipelines.synthetic import face_model, head, shape


def test_the_mesh_has_three_holes_and_one_rim():
    model = face_model.load()
    edge, _, count = face_model.edges(model.triangles)
    assert model.points.shape == (478, 3) and model.triangles.shape == (852, 3)
    assert count.max() == 2
    rim = np.unique(edge[count == 1])
    assert len(rim) == 20 + 16 + 16 + len(face_model.OVAL)
    assert face_model.SURFACE - len(edge) + len(model.triangles) == 1 - 3  # Euler


def test_the_mirror_is_an_involution_of_the_mean_face():
    model = face_model.load()
    np.testing.assert_array_equal(model.mirror[model.mirror], np.arange(478))
    mirrored = model.points[model.mirror] * (-1, 1, 1)
    np.testing.assert_allclose(mirrored, model.points, atol=1e-3)


def test_triangles_face_the_viewer():
    model = face_model.load()
    a, b, c = model.points[model.triangles].swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    assert (normal[:, 2] < 0).mean() > 0.9


def test_subdivision_keeps_planes_and_sums_to_one():
    model = face_model.load()
    matrix, triangles = face_model.refine(model.triangles, face_model.SURFACE, 2, (78, 308))
    np.testing.assert_allclose(matrix.sum(1), 1)
    assert len(triangles) == 16 * 852 and triangles.max() == matrix.shape[0] - 1
    corner = matrix[[78, 308]] @ model.points[: face_model.SURFACE]
    np.testing.assert_allclose(corner, model.points[[78, 308]])


def test_control_points_bring_the_surface_to_the_landmarks():
    points = face_model.load().points
    back, triangles, _ = head.extend(points)
    everything = np.concatenate([points[: face_model.SURFACE], back])
    triangles = np.concatenate([face_model.load().triangles, triangles])
    count = face_model.edges(triangles)[2]
    assert count.max() == 2 and (count == 1).sum() == 20 + 16 + 16
    matrix, _ = face_model.refine(triangles, len(everything), 1)
    control = face_model.control_points(matrix, everything)
    error = np.linalg.norm((matrix @ control)[:468] - points[:468], axis=1)
    assert np.median(error) < 0.005 and error.max() < 0.05


def test_shapes_are_reproducible_and_leave_the_lips_closed():
    model = face_model.load()
    first = shape.sample_shape(np.random.default_rng(5))
    assert first == shape.sample_shape(np.random.default_rng(5))
    points = shape.neutral_points(model, first)
    np.testing.assert_array_equal(
        points[list(face_model.UPPER_SEAM)], points[list(face_model.LOWER_SEAM)]
    )
    assert 0.05 < np.abs(points - model.points).max() < 0.5
