"""Metrics and picture grids as event files of TensorBoard (extra `tensorboard`).

Events are written by the calling thread. tensorboardX's own `SummaryWriter` hands them to a thread
that ends silently when the disk is full, after which every call waits for it forever.
"""

import numbers
import os
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from talkjax import files, pictures
from talkjax.errors import UserError

FOLDER = "tensorboard"
_PICTURES = "samples"  # the tag of picture grids


def load_package() -> ModuleType:
    """Imports tensorboardX.

    Raises:
      UserError: It is not installed.
    """
    try:
        import tensorboardX.event_file_writer
    except ImportError as error:
        raise UserError(
            "log.tensorboard=True requires tensorboardX: install talkjax with the extra "
            "`tensorboard` (uv run --extra tensorboard ...), or set --config.log.tensorboard=False"
        ) from error
    return tensorboardX


class EventWriter:
    """Writes event files to the folder `tensorboard` of a run.

    Every start of a run writes a file of its own. TensorBoard leaves out what earlier files hold
    of later steps than the one that the run resumes at.
    """

    def __init__(self, workdir: str | os.PathLike, resumed_at: int):
        """Opens a file.

        Args:
          workdir: Directory of the run.
          resumed_at: The step that the run resumes at, 0 for a new run.

        Raises:
          UserError: tensorboardX is not installed, or lacks what it needs to write to a bucket.
        """
        package = load_package()
        self._event = package.proto.event_pb2.Event
        folder = files.as_path(workdir) / FOLDER
        if not files.is_remote(workdir):
            folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names, which have the second of their start.
        suffix = f".{time.time_ns() % 10**9:09d}"
        try:
            self._file = package.event_file_writer.EventsWriter(f"{folder}/events", suffix)
        except ImportError as error:
            raise UserError(f"log.tensorboard=True cannot write to {folder}: {error}") from error
        if resumed_at:
            start = package.proto.event_pb2.SessionLog.START
            self._write(resumed_at + 1, session_log={"status": start})

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes the numbers of a row of metrics.jsonl; a number that is not known is left out."""
        values = [
            {"tag": name, "simple_value": float(x)}
            for name, x in row.items()
            if name != "step" and isinstance(x, numbers.Real)
        ]
        self._write(row["step"], summary={"value": values})

    def write_pictures(self, step: int, image: np.ndarray, caption: str) -> None:
        """Writes a picture grid, (H, W, 3) uint8."""
        encoded = {
            "height": image.shape[0],
            "width": image.shape[1],
            "colorspace": image.shape[2],
            "encoded_image_string": pictures.encode_png(image, caption),
        }
        value = {"tag": _PICTURES, "image": encoded}
        self._write(step, summary={"value": [value]})

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        self._file.write_event(self._event(wall_time=time.time(), step=step, **content))
        self._file.flush()
