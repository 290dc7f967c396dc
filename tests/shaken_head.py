"""A head that is shaken: pictures, detections and the truth."""

import cv2
import numpy as np

from talkjax import conventions, head_pose

FPS = 25
EYES = 60.0  # pixels between the eyes' centres


def scene() -> np.ndarray:
    """(300, 400, 3) uint8 with structure of all sizes."""
    rng = np.random.default_rng(0)
    layers = [cv2.resize(rng.uniform(0, 255, (n, n)), (400, 300)) for n in (8, 30, 90)]
    return np.repeat(np.mean(layers, 0)[..., None], 3, 2).astype(np.uint8)


def still_mesh() -> np.ndarray:
    """(478, 2) frame pixels of a face in the middle of the scene."""
    rng = np.random.default_rng(1)
    points = rng.uniform(0.2, 0.8, (478, 2))
    points[list(conventions.RIGID)] = head_pose.TEMPLATE
    return (points - head_pose.EYE_CENTRE) * EYES / head_pose.INTEROCULAR + (200.0, 120.0)


def shift_scene(picture: np.ndarray, shift: float) -> np.ndarray:
    """Moves a picture to the right by so many pixels."""
    move = np.array([[1, 0, shift], [0, 1, 0]], float)
    size = picture.shape[1::-1]
    return cv2.warpAffine(picture, move, size, borderMode=cv2.BORDER_REPLICATE)


def misplacement(transforms, shifts):
    """(n,) distances of the mouth's place from where the head has it, in eye distances."""
    mouth = np.array([[0.5, 0.69]])
    at = head_pose.apply_transforms(
        np.repeat(mouth[None], len(shifts), 0), head_pose.invert(transforms)
    )
    at = at[:, 0] - np.stack([shifts, np.zeros(len(shifts))], -1)
    return np.linalg.norm(at - np.median(at, 0), axis=1) / EYES


class ShakenHead:
    """Frames of a shaken head, and a stand-in for FaceMesh that is wrong where the person blinks.

    Attributes:
      shifts: (N,) pixels by which the head is moved.
      frames: N pictures.
    """

    versions = {"mesh": "shaken"}  # noqa: RUF012

    def __init__(self, count: int = 50) -> None:
        self.shifts = 24 * np.sin(2 * np.pi * np.arange(count) / FPS / 1.2)
        self.frames = [shift_scene(scene(), shift) for shift in self.shifts]
        self._calls = 0

    def reset(self) -> None:
        """Forgets nothing."""

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        """Returns the face of the next frame."""
        number, self._calls = self._calls, self._calls + 1
        down = 0.03 * EYES * (number % 15 in (7, 8, 9))
        points = still_mesh() + np.array([self.shifts[number], down])
        return np.concatenate([points, np.zeros((478, 1))], 1)[None].astype(np.float32)
