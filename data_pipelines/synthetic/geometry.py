"""Where the points of a face are: from an identity's shape and a pose to places in a picture."""

import functools

import numpy as np

from data_pipelines.synthetic import face_model, head
from data_pipelines.synthetic.expression import Expression
from data_pipelines.synthetic.shape import Shape, close_lips, neutral_points
from talkjax.conventions import POSE

PIVOT = np.array([0.0, 0.95, 1.25])  # about which the head turns
_STEPS = 2
_RIM_CORNERS = (78, 308, 33, 133, 362, 263)


@functools.cache
def topology():
    """What all identities share: the refined head's matrix, triangles, open rims."""
    model = face_model.load()
    back, triangles, jaw = head.extend(model.points)
    count = face_model.SURFACE + len(back)
    triangles = np.concatenate([model.triangles, triangles]).astype(np.int32)
    matrix, refined = face_model.refine(triangles, count, _STEPS, _RIM_CORNERS)
    rims = _rims(refined)
    uv = model.uv[: face_model.SURFACE]
    whole = np.concatenate([uv, face_model.texture_coordinates(back)])
    # Where the back of the head passes the texture's edge, behind the ears, it is clamped.
    whole = face_model.control_points(matrix, whole)
    return matrix.astype(np.float64), refined, rims, (matrix @ whole), jaw


def _rims(triangles):
    """Open boundaries as closed loops of vertices, in the order mouth, left eye, right eye."""
    edge, _, count = face_model.edges(triangles)
    follow = {}
    for a, b in edge[count == 1].tolist():
        follow.setdefault(a, []).append(b)
        follow.setdefault(b, []).append(a)
    loops = []
    for start in (78, 33, 263):
        loop, last = [start], None
        while True:
            here = loop[-1]
            step = [v for v in follow[here] if v != last]
            last = here
            if (step[0] == start and len(loop) > 2) or (len(step) == 1 and step[0] == start):
                break
            loop.append(step[0])
        loops.append(np.array(loop))
    return loops


def pose_support() -> np.ndarray:
    """Indices of the control points on which eyes, brows, nose and the rim's upper half depend."""
    matrix = topology()[0]
    return np.unique(matrix[list(POSE)].nonzero()[1])


class FaceGeometry:
    """One identity's face without any colour: enough for its landmarks.

    Attributes:
      shape: its `Shape`.
      points: (478, 3) the face at rest, in inter-ocular units.
      control: (N, 3) control points of the head's surface at rest.
      expression: what moves them.
    """

    def __init__(self, shape: Shape):
        self.shape = shape
        self.points = neutral_points(face_model.load(), shape)
        matrix, _, _, _, jaw = topology()
        back, _, _ = head.extend(self.points, shape.skull)
        rest = np.concatenate([self.points[: face_model.SURFACE], back])
        self.control = face_model.control_points(matrix, rest)
        self._surface = matrix[: face_model.SURFACE]
        mean = close_lips(face_model.load().points)
        self.expression = Expression(self.control, mean, jaw, pose_support(), shape.droop)

    def move(self, pose) -> np.ndarray:
        """(N, 3) control points in the neutral head's frame; `pose` is an `avatar.Pose`."""
        return self.expression.move(pose.visemes, pose.blink, pose.brow)

    def landmarks(self, pose, camera, size: int) -> np.ndarray:
        """The landmarks that `avatar.Avatar.render` returns, but for the ten of the irises.

        Returns:
          (468, 3) float32 in pixels (0 is the frame's edge), z at x's scale.
        """
        surface = self._surface @ self.move(pose)
        return to_landmarks(place(surface, None, pose), pose, camera, size)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) rotation of the head: first roll, then pitch, then yaw."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])  # the nose (-z) goes to +x
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])  # and to +y
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return turn @ nod @ tilt


def place(points: np.ndarray, follow: np.ndarray | None, pose) -> np.ndarray:
    """Points of the neutral head's frame to the camera's, in inter-ocular units.

    Args:
      points: (N, 3).
      follow: (N,) how far each goes with the head rather than with the chest; None for all.
      pose: an `avatar.Pose`.
    """
    turned = (points - PIVOT) @ rotation(pose.yaw, pose.pitch, pose.roll).T + PIVOT
    if follow is not None:
        still = points - np.array([0, 0.02 * pose.breath, 0])
        turned = still + follow[:, None] * (turned - still)
    return turned + np.array([pose.x, pose.y, pose.z])


def project(points: np.ndarray, camera, size: int) -> np.ndarray:
    """(N, 3) points in an `avatar.Camera`'s frame to (N, 3) float32: x, y px and 1 / distance."""
    inverse = 1 / (points[:, 2] + camera.distance)
    out = np.empty(points.shape, np.float32)
    out[:, 0] = points[:, 0] * inverse * (camera.scale * size * camera.distance)
    out[:, 1] = points[:, 1] * inverse * (camera.scale * size * camera.distance)
    out[:, 0] += camera.centre[0] * size
    out[:, 1] += camera.centre[1] * size
    out[:, 2] = inverse
    return out


def to_landmarks(placed: np.ndarray, pose, camera, size: int) -> np.ndarray:
    """Placed points as FaceMesh gives them: (N, 3) px, z relative to the head at x's scale."""
    out = project(placed, camera, size)
    out[:, 2] = (placed[:, 2] - pose.z) * camera.scale * size
    return out
