"""Face landmarks from MediaPipe, which runs in a worker process (`facemesh_worker.py`).

    with FaceMesh(max_faces=1) as mesh:
        for clip in clips:
            mesh.reset()
            for rgb in clip:
                faces = mesh.detect(rgb)  # (n, 478, 3) float32, frame pixels

The worker is started through `uv`, which builds its pinned environment on first use and keeps it in
its cache. This needs the network once, for about 110 MB and, if the machine has neither Python 3.11
nor 3.12, for Python 3.12. Each client owns one worker. Several clients, in one process or in many,
are independent of each other.
"""

import json
import logging
import os
import pathlib
import struct
import subprocess
import sys
import threading
from typing import Self

import numpy as np

from talkjax import uv_scripts
from talkjax.conventions import FACEMESH_POINTS
from talkjax.errors import UserError
from talkjax.media.worker_process import WorkerLostError, WorkerProcess

PROTOCOL_VERSION = 1
WORKER = pathlib.Path(__file__).with_name("facemesh_worker.py")

_PYTHONS = ">=3.11,<3.13"  # as in the header of the worker
# The worker starts in a root directory, because a uv.toml or .python-version in the caller's folder
# belongs to the caller.
_ANYWHERE = pathlib.Path(sys.executable).anchor or None
_log = logging.getLogger(__name__)


def worker_command() -> list[str]:
    """Returns the argument list that starts the worker through uv.

    Raises:
      UserError: uv is not installed.
    """
    # No project: neither talkjax's own pyproject.toml nor the caller's may reach the environment.
    uv = uv_scripts.find_uv("the face detector")
    return [uv, "run", "--quiet", "--no-project", "--script", str(WORKER)]


def has_python() -> bool:
    """Returns whether uv finds a Python for the worker, so that it need not download one."""
    uv = uv_scripts.find_uv("the face detector")
    command = [uv, "python", "find", "--quiet", "--no-project", "--no-python-downloads"]
    found = subprocess.run(
        [*command, _PYTHONS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=_ANYWHERE,
        env=uv_scripts.clean_environment(),
        check=False,
    )
    return found.returncode == 0


class FaceMesh:
    """MediaPipe FaceMesh with tracking, in a worker process.

    A forked process needs a `FaceMesh` of its own. Threads may share one, but then they share its
    tracking too. All methods that use the worker raise a `UserError` if its environment cannot be
    built.

    Attributes:
      max_faces: Largest number of faces that `detect` returns.
      versions: Versions of MediaPipe and its Python, once the worker runs.
    """

    def __init__(
        self,
        max_faces: int = 1,
        *,
        frame_timeout: float = 60.0,
        start_timeout: float = 1800.0,
        command: list[str] | None = None,
    ):
        """Starts nothing yet; the worker starts with the context or the first frame.

        Args:
          max_faces: Largest number of faces to detect. One is the fastest (4 ms per frame instead
            of 7 ms); choosing among faces needs more.
          frame_timeout: Seconds after which a worker that does not answer counts as hung.
          start_timeout: Seconds for the start, which includes building the environment once.
          command: Argument list that starts a worker, for tests; `worker_command()` by default.
        """
        if max_faces < 1:
            raise ValueError(f"max_faces={max_faces} is out of range; give at least 1")
        self.max_faces = max_faces
        self.versions: dict[str, str] = {}
        self._command = command
        self._frame_timeout = frame_timeout
        self._start_timeout = start_timeout
        self._worker: WorkerProcess | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False

    def __enter__(self) -> Self:
        with self._lock:
            self._started()
        return self

    def __exit__(self, *unused) -> None:
        self.close()

    def __del__(self):
        # When the interpreter ends, its pipes are closed, which ends the worker.
        if not sys.is_finalizing() and getattr(self, "_worker", None) is not None:
            self._drop()

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        """Detects the faces of the clip's next frame.

        Args:
          rgb: (H, W, 3) uint8.

        Returns:
          (n, 478, 3) float32, n <= max_faces, in no particular order; n is 0 where there is no
          face. x (to the right) and y (down) are in frame pixels, and the centre of the first pixel
          is at 0.5. z has the scale of x and is negative towards the camera.

        Raises:
          UserError: The worker cannot be started, or fails twice on this frame.
        """
        rgb = np.ascontiguousarray(rgb)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ValueError(f"rgb is {rgb.dtype} of shape {rgb.shape}; give (H, W, 3) uint8")
        if not rgb.size:
            return np.zeros((0, FACEMESH_POINTS, 3), np.float32)
        if rgb.nbytes >= 1 << 31:
            raise UserError(f"a frame of {rgb.shape[1]}x{rgb.shape[0]} is too large; scale it down")
        with self._lock:
            try:
                return self._exchange(rgb)
            except WorkerLostError as first:
                _log.warning("face detector: %s; starting it again", first)
            try:
                return self._exchange(rgb)
            except WorkerLostError as second:
                raise UserError(
                    f"the face detector failed twice on one frame ({second}); "
                    "leave this video out or re-encode it"
                ) from second

    def reset(self) -> None:
        """Forgets earlier frames, so that the next ones do not depend on them."""
        with self._lock:
            if self._worker is None:
                return  # the next frame starts a new worker
            try:
                with self._worker.limit(self._frame_timeout):
                    self._worker.write(b"R")
            except WorkerLostError as error:
                _log.warning("face detector: %s; starting it again", error)
                self._drop()

    def close(self) -> None:
        """Ends the worker. It may be called more than once."""
        with self._lock:
            self._closed = True
            self._drop(grace=5.0)

    def _drop(self, grace: float = 0.5) -> None:
        worker, self._worker = self._worker, None
        if worker is not None and self._pid == os.getpid():
            worker.close(grace)

    def _exchange(self, rgb: np.ndarray) -> np.ndarray:
        worker = self._started()
        try:
            with worker.limit(self._frame_timeout):
                worker.write(b"F", struct.pack("<II", *rgb.shape[:2]), rgb.reshape(-1))
                payload = worker.read(b"L")
            count = struct.unpack_from("<I", payload)[0] if len(payload) >= 4 else -1
            if len(payload) != 4 + count * FACEMESH_POINTS * 12:
                raise WorkerLostError("the worker sent landmarks of the wrong length")
        except BaseException:  # also ^C: a late answer must not become that of the next frame
            self._drop()
            raise
        return np.frombuffer(payload, "<f4", offset=4).reshape(count, FACEMESH_POINTS, 3).copy()

    def _started(self) -> WorkerProcess:
        """Returns the running worker, and starts one if there is none."""
        if self._pid != os.getpid():
            raise RuntimeError("a FaceMesh cannot be used in a forked process; create one there")
        if self._closed:
            raise RuntimeError("this FaceMesh is closed")
        if self._worker is not None:
            return self._worker
        command = [*(self._command or worker_command()), f"--max-faces={self.max_faces}"]
        if self._command is None and not has_python():
            _log.warning(
                "the face detector needs Python 3.11 or 3.12, and this machine has neither; "
                "uv downloads one now (once)"
            )
        notice = threading.Timer(
            8.0,
            _log.warning,
            ["preparing the environment of the face detector (once; takes some minutes) ..."],
        )
        notice.daemon = True
        notice.start()
        worker = None
        try:
            worker = WorkerProcess(command, uv_scripts.clean_environment(), _ANYWHERE)
            with worker.limit(self._start_timeout):
                hello = json.loads(worker.read(b"H"))
            if hello.get("protocol") != PROTOCOL_VERSION:
                raise WorkerLostError(f"it has protocol {hello.get('protocol')}")
        except (WorkerLostError, ValueError, AttributeError) as error:
            if worker is not None:
                worker.close(0.0)
            raise UserError(
                f"the face detector cannot be started ({error}); its environment is built once, "
                f"which needs the network: go online and run `uv sync --script {WORKER}`, or set "
                "UV_CACHE_DIR to a cache that has it"
            ) from error
        except BaseException:
            if worker is not None:
                worker.close(0.0)
            raise
        finally:
            notice.cancel()
        self.versions = {name: str(value) for name, value in hello.items()}
        self._worker = worker
        return worker
