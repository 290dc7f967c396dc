"""Face landmarks: the client of `facemesh_worker.py`, which runs MediaPipe elsewhere.

    with FaceMesh(max_faces=1) as mesh:
        for clip in clips:
            mesh.reset()
            for rgb in clip:
                faces = mesh.detect(rgb)  # (n,478,3) float32, frame pixels

The worker is started through `uv`, which builds its pinned environment on first use (this needs
the network once, about 110 MB) and finds it ready in its cache from then on. One client owns one
worker; several clients, in one process or many, do not disturb each other.
"""

import collections
import contextlib
import json
import logging
import os
import pathlib
import signal
import struct
import subprocess
import sys
import threading
from typing import Self

import numpy as np

from talkjax import uv_scripts
from talkjax.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

PROTOCOL_VERSION = 1
POINTS = 478
WORKER = pathlib.Path(__file__).with_name("facemesh_worker.py")

_HEADER = struct.Struct("<IB")
_MAX_REPLY = 64 << 20  # bytes; a longer reply is garbage, not landmarks
_STDERR_LINES = 40
_NOISE = ("WARNING:", "INFO:", "W0000", "I0000")  # what MediaPipe logs whenever it starts
_log = logging.getLogger(__name__)


class _WorkerLostError(Exception):
    """The worker died, hung or spoke nonsense; a fresh one may do better."""


def worker_command() -> list[str]:
    """The argument list that starts the worker through uv.

    Raises:
        UserError: if there is no uv.
    """
    # No project: neither talkjax's own pyproject.toml nor the caller's may reach the environment.
    uv = uv_scripts.find_uv("the face landmarks")
    return [uv, "run", "--quiet", "--no-project", "--script", str(WORKER)]


class _Worker:
    """One worker process and its pipes. Reads and writes may raise `_WorkerLostError`."""

    def __init__(self, command: list[str]):
        self.expired = None  # seconds, once the watchdog has struck
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                # Not the caller's folder: a uv.toml or .python-version there is the caller's.
                cwd=pathlib.Path(sys.executable).anchor or None,
                env=uv_scripts.clean_environment(),
                # A group of its own: ^C reaches the client alone, and uv and Python die together.
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            raise _WorkerLostError(f"cannot start {command[0]}: {error.strerror}") from error
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux; a large frame arrives sooner
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.process.stdin, fcntl.F_SETPIPE_SZ, 1 << 20)
        self.stderr = collections.deque(maxlen=_STDERR_LINES)
        self.drain = threading.Thread(target=self._drain_stderr, daemon=True)
        self.drain.start()

    def _drain_stderr(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := self.process.stderr.readline(2000):
                if line.strip():
                    self.stderr.append(line.decode("utf-8", "replace").strip())

    def kill(self) -> None:
        """Ends the process group at once."""
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def close(self, grace: float) -> None:
        """Asks to quit, waits `grace` seconds, kills, reaps. Never raises."""
        with self.limit(grace), contextlib.suppress(_WorkerLostError):
            self.write(b"Q")
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self.kill()  # also what a dead uv may have left behind
        self.process.wait()
        self.drain.join(grace)
        self.process.stdout.close()
        if not self.drain.is_alive():
            self.process.stderr.close()

    @contextlib.contextmanager
    def limit(self, seconds: float):
        """Kills the worker if the body takes longer: a blocked read or write then ends."""

        def strike():
            self.expired = seconds
            self.kill()

        timer = threading.Timer(seconds, strike)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def lost(self, what: str) -> _WorkerLostError:
        """The error for a failed read or write, with what the worker last said."""
        if self.expired is not None:
            return _WorkerLostError(f"no answer within {self.expired:g} s")
        self.drain.join(1.0)  # the last words arrive with the end
        with contextlib.suppress(subprocess.TimeoutExpired):
            what = f"{what} (exit code {self.process.wait(1.0)})"
        words = [line for line in self.stderr if not line.startswith(_NOISE)]
        return _WorkerLostError(f"{what}: {' '.join(words[-4:])[-400:]}" if words else what)

    def write(self, kind: bytes, *parts) -> None:
        try:
            self._write_all(_HEADER.pack(sum(map(len, parts)), kind[0]))
            for part in parts:
                self._write_all(part)
        except (OSError, ValueError) as error:
            raise self.lost("the worker ended") from error

    def _write_all(self, data) -> None:
        view = memoryview(data)
        while len(view):
            view = view[self.process.stdin.write(view) :]

    def _read_exactly(self, count: int) -> bytearray:
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:
            try:
                step = self.process.stdout.readinto(view[got:])
            except (OSError, ValueError):
                step = 0
            if not step:
                raise self.lost("the worker ended")
            got += step
        return data

    def read(self, kind: bytes) -> bytearray:
        """The payload of the next message, which must be of this type."""
        length, got = _HEADER.unpack(self._read_exactly(_HEADER.size))
        if got != kind[0] or length > _MAX_REPLY:
            raise _WorkerLostError("the worker sent something that is not a message")
        return self._read_exactly(length)


class FaceMesh:
    """MediaPipe FaceMesh with tracking, in a worker process.

    Args:
        max_faces: at most this many faces are returned. One is the fastest (4 ms against 7 ms a
            frame); choosing among faces needs more.
        frame_timeout: seconds after which a frame's worker counts as hung.
        start_timeout: seconds for the start, which includes building the environment once.
        command: argument list that starts a worker (for tests); default `worker_command()`.

    Raises (any method that talks to the worker):
        UserError: the environment cannot be built, or a frame fails a second time.

    Not for use after a fork: a child process makes its own. Threads may share one, but then
    share its tracking too.
    """

    def __init__(
        self,
        max_faces: int = 1,
        *,
        frame_timeout: float = 60.0,
        start_timeout: float = 1800.0,
        command: list[str] | None = None,
    ):
        if max_faces < 1:
            raise ValueError(f"max_faces must be at least 1, not {max_faces}")
        self.max_faces = max_faces
        self.versions: dict[str, str] = {}  # of MediaPipe and its Python, from the worker's hello
        self._command = command
        self._frame_timeout = frame_timeout
        self._start_timeout = start_timeout
        self._worker: _Worker | None = None
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
        # At the interpreter's end the pipes close by themselves, and the worker with them.
        if not sys.is_finalizing() and getattr(self, "_worker", None) is not None:
            self._drop()

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        """Finds the faces of the clip's next frame.

        Args:
            rgb: (H,W,3) uint8.

        Returns:
            (n,478,3) float32, n <= max_faces, in no order that means anything: x to the right and
            y down in frame pixels (0 is the frame's edge, so the first pixel's centre is 0.5), z
            at x's scale, towards the camera negative. n is 0 where there is no face.

        Raises:
            UserError: the worker cannot be started, or fails on this frame twice.
        """
        rgb = np.ascontiguousarray(rgb)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ValueError(f"want (H,W,3) uint8, not {rgb.shape} {rgb.dtype}")
        if not rgb.size:
            return np.zeros((0, POINTS, 3), np.float32)
        if rgb.nbytes >= 1 << 31:
            raise UserError(f"a frame of {rgb.shape[1]}x{rgb.shape[0]} is too large; scale it down")
        with self._lock:
            try:
                return self._exchange(rgb)
            except _WorkerLostError as first:
                _log.warning("face landmarks: %s; starting again", first)
            try:
                return self._exchange(rgb)
            except _WorkerLostError as second:
                raise UserError(
                    f"face landmarks failed twice on one frame ({second}); "
                    "leave this video out or re-encode it"
                ) from second

    def reset(self) -> None:
        """Forgets the clip so far: what follows does not depend on what came before."""
        with self._lock:
            if self._worker is None:
                return  # the next frame starts a fresh one
            try:
                with self._worker.limit(self._frame_timeout):
                    self._worker.write(b"R")
            except _WorkerLostError as error:
                _log.warning("face landmarks: %s; starting again", error)
                self._drop()

    def close(self) -> None:
        """Ends the worker; safe to call twice."""
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
            if len(payload) != 4 + count * POINTS * 12:
                raise _WorkerLostError("the worker sent landmarks of the wrong length")
        except BaseException:  # ^C too: its late answer must not become the next frame's
            self._drop()
            raise
        return np.frombuffer(payload, "<f4", offset=4).reshape(count, POINTS, 3).copy()

    def _started(self) -> _Worker:
        """The running worker; starts one if there is none."""
        if self._pid != os.getpid():
            raise RuntimeError("a FaceMesh cannot be used in a forked process; make one there")
        if self._closed:
            raise RuntimeError("this FaceMesh is closed")
        if self._worker is not None:
            return self._worker
        command = [*(self._command or worker_command()), f"--max-faces={self.max_faces}"]
        notice = threading.Timer(
            8.0, _log.warning, ["preparing the face landmark environment (once, some minutes) ..."]
        )
        notice.daemon = True
        notice.start()
        worker = None
        try:
            worker = _Worker(command)
            with worker.limit(self._start_timeout):
                hello = json.loads(worker.read(b"H"))
            if hello.get("protocol") != PROTOCOL_VERSION:
                raise _WorkerLostError(f"it speaks protocol {hello.get('protocol')}")
        except (_WorkerLostError, ValueError, AttributeError) as error:
            if worker is not None:
                worker.close(0.0)
            raise UserError(
                f"cannot start the face landmark worker ({error}); its environment is built once "
                "and needs the network then: go online and run "
                f"`uv sync --script {WORKER}`, or set UV_CACHE_DIR to a cache that has it"
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
