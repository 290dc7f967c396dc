"""A prepared template, in one file: everything that does not depend on what will be said.

The file is safetensors: arrays and a few strings, nothing that could be executed. Pictures are kept
compressed and are read one by one, so that memory does not depend on the template's length.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from typing import Any

import cv2
import numpy as np
import safetensors
import safetensors.numpy

from talkjax import files
from talkjax.conventions import MEL_WINDOW, NUM_CONTENT, NUM_LANDMARKS, NUM_MELS, NUM_POSE
from talkjax.errors import UserError
from talkjax.media.appearance import THUMBNAIL, Look
from talkjax.media.light import Light, Toning
from talkjax.media.overlay import Overlay
from talkjax.models.landmark_completion import References

FORMAT = "talkjax-avatar-1"
_REMEDY = "make it with talkjax.prepare_avatar"
_ANY = None  # a size that differs between avatars

# Name -> (type, shape). N is the number of frames, R that of references; -1 is N, -2 is R.
_N, _R = -1, -2
_TENSORS: dict[str, tuple[str, tuple]] = {
    "pictures": ("uint8", (_ANY,)),
    "picture_ends": ("int64", (_N,)),
    "transforms": ("float64", (_N, 2, 3)),
    "poses": ("float32", (_N, NUM_POSE, 2)),
    "rest": ("float32", (_N, NUM_CONTENT, 2)),
    "usable": ("bool", (_N,)),
    "regions": ("uint8", (_N, _ANY, _ANY, 3)),
    "light": ("float32", (_N, 2, 3)),
    "toning": ("float64", (_N, 8)),
    "cover_of": ("int64", (_N,)),
    "covers": ("float32", (_ANY, THUMBNAIL, THUMBNAIL)),
    "overlay": ("float32", (_ANY, _ANY)),
    "images": ("uint8", (_R, _ANY, _ANY, 3)),
    "sharp_images": ("uint8", (_R, _ANY, _ANY, 3)),
    "image_landmarks": ("float32", (_R, NUM_LANDMARKS, 2)),
    "reference_landmarks": ("float32", (_ANY, NUM_LANDMARKS, 2)),
    "reference_mel": ("float32", (_ANY, MEL_WINDOW, NUM_MELS)),
    "reference_heard": ("bool", (_ANY,)),
}
_INFO = {
    "frames": int, "references": int, "width": int, "height": int, "photograph": bool,
    "widest": float, "overlay_top": int, "overlay_left": int, "name": str,
}  # fmt: skip


@dataclasses.dataclass
class Avatar:
    """A prepared template of N frames, 25 a second.

    Attributes:
      name: Name of the template for messages.
      checkpoint: `Sampler.fingerprint` of the checkpoint that it was prepared with.
      size: (width, height) of the frames in pixels.
      frames: N.
      photograph: Whether the template is one photograph.
      widest: How wide the mouth opens (`outline.widest`).
      tensors: All arrays but the pictures, see `_TENSORS`.
    """

    name: str
    checkpoint: str
    size: tuple[int, int]
    frames: int
    photograph: bool
    widest: float
    tensors: dict[str, np.ndarray]
    _file: Any
    _overlay: Overlay | None
    _lock: threading.Lock

    @classmethod
    def load(cls, path: files.PathLike) -> Avatar:
        """Opens a file of `prepare_avatar`; the pictures stay on disk.

        Raises:
          UserError: The file is missing, truncated or not an avatar.
        """
        path = os.fspath(path)
        if not os.path.isfile(path):
            raise UserError(f"{path}: is not a file; {_REMEDY}")
        try:
            file = safetensors.safe_open(path, framework="numpy")
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise UserError(f"{path}: is not an avatar of this version; {_REMEDY}")
            info = json.loads(metadata["info"])
            for name, kind in _INFO.items():
                if not isinstance(info[name], kind):
                    raise ValueError(f"{name} is not a {kind.__name__}")
            _check_shapes(file, info)
            tensors = {name: file.get_tensor(name) for name in _TENSORS if name != "pictures"}
            _check_values(tensors, file.get_slice("pictures").get_shape()[0])
        except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            reason = files.one_line(error)
            raise UserError(
                f"{path}: is truncated or not an avatar ({reason}); {_REMEDY}"
            ) from error
        weight = tensors["overlay"]
        corner = info["overlay_top"], info["overlay_left"]
        return cls(
            name=info["name"],
            checkpoint=metadata.get("checkpoint", ""),
            size=(info["width"], info["height"]),
            frames=info["frames"],
            photograph=info["photograph"],
            widest=info["widest"],
            tensors=tensors,
            _file=file,
            _overlay=Overlay(corner, weight) if weight.size else None,
            _lock=threading.Lock(),
        )

    def picture(self, index: int) -> np.ndarray:
        """Reads a frame: (H, W, 3) uint8.

        Raises:
          UserError: It cannot be decoded, or has another size than the others.
        """
        ends = self.tensors["picture_ends"]
        with self._lock:  # sessions share the file
            part = self._file.get_slice("pictures")[ends[index - 1] if index else 0 : ends[index]]
        image = cv2.imdecode(part, cv2.IMREAD_COLOR) if len(part) else None
        if image is None or image.shape != (self.size[1], self.size[0], 3):
            raise UserError(f"avatar of {self.name}: frame {index} is damaged; {_REMEDY}")
        return np.ascontiguousarray(image[..., ::-1])

    def look(self, index: int) -> Look:
        """Returns what is special about a frame."""
        light, toning = self.tensors["light"][index], self.tensors["toning"][index]
        cover = int(self.tensors["cover_of"][index])
        return Look(
            Light(light[0], light[1]),
            Toning(toning[:6].reshape(3, 2), float(toning[6]), float(toning[7])),
            self.tensors["covers"][cover] if cover >= 0 else None,
            True,
            self._overlay,
        )

    def references(self) -> References:
        """Returns the reference faces of the landmark network, without a batch axis."""
        return References(
            *(self.tensors[f"reference_{part}"] for part in ("landmarks", "mel", "heard"))
        )


def save(
    path: files.PathLike, tensors: dict[str, np.ndarray], checkpoint: str, info: dict[str, Any]
) -> None:
    """Writes an avatar, complete or not at all.

    Args:
      path: The file.
      tensors: The arrays of `_TENSORS`.
      checkpoint: `Sampler.fingerprint`.
      info: The fields of `_INFO`.

    Raises:
      UserError: The file cannot be written.
    """
    arrays = {
        name: np.ascontiguousarray(tensors[name], kind) for name, (kind, _) in _TENSORS.items()
    }
    metadata = {"format": FORMAT, "checkpoint": checkpoint, "info": json.dumps(info)}
    with files.replacing(path) as temporary:
        try:
            safetensors.numpy.save_file(arrays, os.fspath(temporary), metadata)
        except safetensors.SafetensorError as error:  # among others, a full disk
            raise OSError(files.one_line(error)) from error


def _check_shapes(file: Any, info: dict[str, Any]) -> None:
    sizes = {_N: info["frames"], _R: info["references"]}
    if missing := sorted(_TENSORS.keys() - set(file.keys())):
        raise ValueError(f"it lacks {', '.join(missing[:3])}")
    if min(*sizes.values(), info["width"], info["height"]) < 1:
        raise ValueError("it has no frames")
    kinds = {"uint8": "U8", "int64": "I64", "float32": "F32", "float64": "F64", "bool": "BOOL"}
    for name, (kind, shape) in _TENSORS.items():
        part = file.get_slice(name)
        found, wanted = part.get_shape(), [sizes.get(side, side) for side in shape]
        fits = len(found) == len(wanted) and all(
            w is None or f == w for f, w in zip(found, wanted, strict=True)
        )
        if not fits or part.get_dtype() != kinds[kind]:
            raise ValueError(f"{name} has the type {part.get_dtype()} and the shape {found}")


def _check_values(tensors: dict[str, np.ndarray], length: int) -> None:
    ends, cover_of = tensors["picture_ends"], tensors["cover_of"]
    if (np.diff(ends, prepend=0) < 0).any() or ends[-1] > length:
        raise ValueError("its pictures are out of order")
    if (cover_of >= len(tensors["covers"])).any() or not len(tensors["reference_landmarks"]):
        raise ValueError("its frames do not fit each other")
    for name, value in tensors.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinity")
