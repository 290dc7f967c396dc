"""Faces in footage that is upside down or on its side without saying so.

FaceMesh takes the person of an upside-down picture for an upright one: it finds a face in every
frame, with the eyes where the mouth is. It is right about faces that lie on their side, so a
picture that is turned by a quarter tells which way up the person is.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol, Self

import numpy as np

_FOREHEAD, _CHIN = 10, 152  # FaceMesh's numbers
_UPRIGHT = 0.5  # cosine of the largest angle, 60 degrees, between a face and its supposed "up"
_AGREEING = 3  # frames that must agree before only one orientation is tried
_NOTED = 0.1  # share of the frames with a face that must be turned to be worth a note
_EAGER, _PATIENT = 100, 10  # after so many tries without a face, try only every tenth frame


class Mesh(Protocol):
    """Interface of what finds faces: `talkjax.media.facemesh.FaceMesh` or a stand-in."""

    versions: dict[str, str]

    def reset(self) -> None:
        """Forgets earlier frames."""

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        """Detects the faces of a frame, see `FaceMesh.detect`."""


class TurnedFaces:
    """A face detector for footage of any orientation; a context manager around a `FaceMesh`.

    The frames that show the first face decide how the following ones are turned before they are
    searched, until `reset`. Points are always in the coordinates of the frame as it was given.
    """

    def __init__(self, mesh: Any) -> None:
        """Wraps a detector (`Mesh`), which becomes part of the context if it is one itself."""
        self._mesh: Mesh = mesh
        self._found: Counter[int] = Counter()  # frames with a face, by quarters
        self._forget()

    def __enter__(self) -> Self:
        self._mesh.__enter__()  # type: ignore[attr-defined]
        return self

    def __exit__(self, *error) -> None:
        self._mesh.__exit__(*error)  # type: ignore[attr-defined]

    @property
    def versions(self) -> dict[str, str]:
        """Versions that the results depend on."""
        return self._mesh.versions

    def notes(self) -> list[str]:
        """Returns what a user should know of the frames so far, in lines."""
        turned = {turn: count for turn, count in self._found.items() if turn}
        if sum(turned.values()) <= _NOTED * self._found.total():
            return []
        how = "upside down" if max(turned, key=turned.__getitem__) == 2 else "on its side"
        return [
            f"the template's picture is {how}, which its file does not say; faces are found all "
            "the same, and the result is turned like the template"
        ]

    def reset(self) -> None:
        """Forgets earlier frames and their orientation."""
        self._mesh.reset()
        self._forget()

    def _forget(self) -> None:
        self._turn: int | None = None  # quarters counterclockwise, once it is known
        self._verdicts: list[int] = []
        self._tries = 0

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        """Detects the faces of the next frame; see `FaceMesh.detect`."""
        if self._turn is None:
            turn, faces = self._choose(rgb)
        else:
            turn, faces = self._turn, self._search(rgb, self._turn)
        self._found[turn] += len(faces) > 0
        return faces

    def _choose(self, rgb: np.ndarray) -> tuple[int, np.ndarray]:
        """Returns the orientation of a frame and its faces, and keeps what becomes certain."""
        self._tries += 1
        if self._tries > _EAGER and self._tries % _PATIENT:
            return 0, self._afresh(rgb, 0)
        turn, faces, certain = self._try(rgb)
        if turn is None:
            return 0, faces
        if self._verdicts[-1:] != [turn]:
            self._verdicts = []
        self._verdicts.append(turn)
        if certain or len(self._verdicts) >= _AGREEING:
            self._turn = turn
        return turn, faces

    def _try(self, rgb: np.ndarray) -> tuple[int | None, np.ndarray, bool]:
        """Returns the frame's orientation or None, its faces, and whether this is certain.

        The orientation that is returned is tried last, so that tracking can go on from there.
        """
        sides = [self._afresh(rgb, 1), self._afresh(rgb, 3)]
        if any(_shows(side, 2) for side in sides) and not any(_shows(side, 0) for side in sides):
            flipped = self._afresh(rgb, 2)
            if _shows(flipped, 2):
                return 2, flipped, False
        upright = self._afresh(rgb, 0)
        if len(upright):
            return 0, upright, all(_shows(side, 0) for side in sides)
        # FaceMesh may see a person on the side as upright in both turned pictures: none counts.
        found = [turn for turn, side in zip((1, 3), sides, strict=True) if _shows(side, turn)]
        for turn in found if len(found) == 1 else [2]:
            faces = self._afresh(rgb, turn)
            if _shows(faces, turn):
                return turn, faces, False
        return None, upright, False

    def _afresh(self, rgb: np.ndarray, turn: int) -> np.ndarray:
        self._mesh.reset()
        return self._search(rgb, turn)

    def _search(self, rgb: np.ndarray, turn: int) -> np.ndarray:
        """Detects faces in a frame that is turned by quarters counterclockwise."""
        if not turn:
            return self._mesh.detect(rgb)
        faces = self._mesh.detect(np.ascontiguousarray(np.rot90(rgb, turn)))
        return turn_back(faces, turn, *rgb.shape[:2])


def turn_back(faces: np.ndarray, turn: int, height: int, width: int) -> np.ndarray:
    """Maps points of `np.rot90(frame, turn)` to the frame.

    Args:
      faces: (n, K, 3) x, y and z.
      turn: Quarters counterclockwise, from 0 to 3.
      height, width: Size of the frame.
    """
    x, y, z = np.moveaxis(faces, -1, 0)
    x, y = ((x, y), (width - y, x), (width - x, height - y), (y, height - x))[turn]
    return np.stack([x, y, z], -1)


def _shows(faces: np.ndarray, turn: int) -> bool:
    """Returns whether the largest face is upright in a picture that is turned by quarters."""
    if not len(faces):
        return False
    down = faces[:, _CHIN, :2] - faces[:, _FOREHEAD, :2]  # (n, 2)
    length = np.linalg.norm(down, axis=-1)
    largest = int(np.argmax(length))
    expected = ((0, 1), (-1, 0), (0, -1), (1, 0))[turn]
    return bool(down[largest] @ np.array(expected) > _UPRIGHT * length[largest])
