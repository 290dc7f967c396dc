import numpy as np
import pytest

from data_pipelines.synthetic.geometry import face_model, hair, head, mesh, shape


def test_the_mesh_has_three_holes_and_one_rim():
    model = face_model.load_face_model()
    edge, _, count = mesh.find_edges(model.triangles)
    assert model.points.shape == (478, 3) and model.triangles.shape == (852, 3)
    assert count.max() == 2
    rim = np.unique(edge[count == 1])
    assert len(rim) == 20 + 16 + 16 + len(face_model.OVAL)
    assert face_model.SURFACE - len(edge) + len(model.triangles) == 1 - 3  # Euler


def test_the_mirror_is_an_involution_of_the_mean_face():
    model = face_model.load_face_model()
    np.testing.assert_array_equal(model.mirror[model.mirror], np.arange(478))
    mirrored = model.points[model.mirror] * (-1, 1, 1)
    np.testing.assert_allclose(mirrored, model.points, atol=1e-3)


def test_triangles_face_the_viewer():
    model = face_model.load_face_model()
    a, b, c = model.points[model.triangles].swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    assert (normal[:, 2] < 0).mean() > 0.9


def test_subdivision_keeps_planes_and_sums_to_one():
    model = face_model.load_face_model()
    matrix, triangles = mesh.refine(model.triangles, face_model.SURFACE, 2, (78, 308))
    np.testing.assert_allclose(matrix.sum(1), 1)
    assert len(triangles) == 16 * 852 and triangles.max() == matrix.shape[0] - 1
    corner = matrix[[78, 308]] @ model.points[: face_model.SURFACE]
    np.testing.assert_allclose(corner, model.points[[78, 308]])


def test_control_points_bring_the_surface_to_the_landmarks():
    points = face_model.load_face_model().points
    back, triangles, _ = head.extend_face(points)
    everything = np.concatenate([points[: face_model.SURFACE], back])
    triangles = np.concatenate([face_model.load_face_model().triangles, triangles])
    count = mesh.find_edges(triangles)[2]
    assert count.max() == 2 and (count == 1).sum() == 20 + 16 + 16
    matrix, _ = mesh.refine(triangles, len(everything), 1)
    control = mesh.fit_control_points(matrix, everything)
    error = np.linalg.norm((matrix @ control)[:468] - points[:468], axis=1)
    assert np.median(error) < 0.005 and error.max() < 0.05


def test_shapes_are_reproducible_and_leave_the_lips_closed():
    model = face_model.load_face_model()
    first = shape.sample_shape(np.random.default_rng(5))
    assert first == shape.sample_shape(np.random.default_rng(5))
    points = shape.deform_mean_face(model, first)
    np.testing.assert_array_equal(
        points[list(face_model.UPPER_SEAM)], points[list(face_model.LOWER_SEAM)]
    )
    assert 0.05 < np.abs(points - model.points).max() < 0.5
    other = shape.deform_mean_face(model, shape.sample_shape(np.random.default_rng(6)))
    assert np.abs(points - other).max() > 0.02


@pytest.mark.parametrize("style", [*hair.HAIRCUTS, "bald"])
def test_hair_lies_outside_the_skull(style):
    points = face_model.load_face_model().points
    back, _, _ = head.extend_face(points)
    surface = head.HeadSurface(np.concatenate([points[: face_model.SURFACE], back]))
    parts = hair.make_hair(style, surface, np.random.default_rng(0), 0.3, 128)
    assert bool(parts) == (style != "bald")
    for part in parts:
        offset = part.vertices - head.CENTRE
        distance = np.linalg.norm(offset, axis=1)
        on_head = part.head_weight == 1
        skin = surface(offset / distance[:, None])
        assert (distance > skin)[on_head].all() or style == "bun"  # which is set into the hair
        assert (distance < skin + 1.2)[on_head].all()
        assert part.triangles.max() == len(part.vertices) - 1
        assert part.opacity.min() >= 0 and np.isfinite(part.colours).all()
