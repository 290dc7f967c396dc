"""One identity's face and head: subdivision surface, expressions and landmarks."""

import functools
from typing import NamedTuple

import numpy as np
from scipy import sparse

from talkjax.conventions import POSE

from .. import scene
from . import face_model, mesh
from .expression import Expression
from .head import extend_face
from .shape import Shape, close_lips, deform_mean_face

_STEPS = 2  # Of subdivision.
_BOUNDARY_CORNERS = (78, 308, 33, 133, 362, 263)  # Corners of the mouth and the eyes.


class HeadTopology(NamedTuple):
    """The parts of the head's mesh that all identities share.

    Attributes:
      matrix: Subdivision matrix from N control points to V vertices, sparse (V, N).
      triangles: Vertex indices, (T, 3).
      boundaries: Vertices around the mouth, the left and the right eye, three (n,) loops.
      uv: Texture coordinates of the vertices, (V, 2).
      jaw: Jaw weights of the control points behind the face, (N - 468,).
    """

    matrix: sparse.csr_matrix
    triangles: np.ndarray
    boundaries: list[np.ndarray]
    uv: np.ndarray
    jaw: np.ndarray


@functools.cache
def head_topology() -> HeadTopology:
    """Builds the subdivided mesh of the mean head once."""
    model = face_model.load_face_model()
    back, triangles, jaw = extend_face(model.points)
    count = face_model.SURFACE + len(back)
    triangles = np.concatenate([model.triangles, triangles]).astype(np.int32)
    matrix, refined = mesh.refine(triangles, count, _STEPS, _BOUNDARY_CORNERS)
    uv = np.concatenate([model.uv[: face_model.SURFACE], face_model.texture_coordinates(back)])
    uv = matrix @ mesh.fit_control_points(matrix, uv)
    return HeadTopology(matrix.astype(np.float64), refined, _find_boundaries(refined), uv, jaw)


def _find_boundaries(triangles):
    """Finds the boundaries of the mouth, the left and the right eye as loops of vertices."""
    edge, _, count = mesh.find_edges(triangles)
    neighbours = {}
    for a, b in edge[count == 1].tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    loops = []
    for start in (78, 33, 263):
        loop = [start, neighbours[start][0]]
        while loop[-1] != start:
            previous, here = loop[-2:]
            loop += [v for v in neighbours[here] if v != previous]
        loops.append(np.array(loop[:-1]))
    return loops


def pose_support() -> np.ndarray:
    """Returns the indices of the control points on which the pose landmarks depend."""
    return np.unique(head_topology().matrix[list(POSE)].nonzero()[1])


class FaceGeometry:
    """One identity's face without colours, which is all that its landmarks need.

    Attributes:
      shape: The identity's `Shape`.
      points: Face at rest in interocular distances, (478, 3).
      control: Control points of the head's surface at rest, (N, 3).
      expression: Deformation of the control points.
    """

    def __init__(self, shape: Shape):
        self.shape = shape
        model, topology = face_model.load_face_model(), head_topology()
        self.points = deform_mean_face(model, shape)
        back, _, _ = extend_face(self.points, shape.skull)
        rest = np.concatenate([self.points[: face_model.SURFACE], back])
        self.control = mesh.fit_control_points(topology.matrix, rest)
        self._surface = topology.matrix[: face_model.SURFACE]
        self.expression = Expression(
            self.control,
            close_lips(model.points),
            topology.jaw,
            pose_support(),
            shape.droop,
            shape.lopsided,
        )

    def deform(self, pose: scene.Pose) -> np.ndarray:
        """Computes the (N, 3) control points of an expression in the neutral head's frame."""
        return self.expression.deform(pose.visemes, pose.blink, pose.brow)

    def landmarks(self, pose: scene.Pose, camera: scene.Camera, size: int) -> np.ndarray:
        """Computes the landmarks of a frame without rendering it.

        Args:
          pose: Pose of the frame.
          camera: Camera of the clip.
          size: Side of the image in pixels.

        Returns:
          (468, 3) float32 pixels, the landmarks of `Avatar.render` without the irises.
        """
        points = scene.apply_head_pose(self._surface @ self.deform(pose), pose)
        return scene.project_landmarks(points, pose, camera, size)
