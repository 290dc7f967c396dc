"""A worker process that exchanges length-prefixed messages over pipes, with a limit on their time.

A message consists of `<IB` (the length of the payload and the type) and the payload.
"""

import collections
import contextlib
import os
import signal
import struct
import subprocess
import threading

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_HEADER = struct.Struct("<IB")
_MAX_REPLY = 64 << 20  # bytes; a longer reply cannot be valid
_STDERR_LINES = 40
_NOISE = ("WARNING:", "INFO:", "W0000", "I0000")  # MediaPipe logs such lines at every start


class WorkerLostError(Exception):
    """The worker ended, hung or sent something invalid; a new one may work."""


class WorkerProcess:
    """A worker process and its pipes. Reading and writing may raise `WorkerLostError`."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: str | None):
        """Starts the process.

        Args:
          command: Argument list.
          environment: Environment variables.
          folder: Working directory, or None for that of this process.
        """
        self.expired: float | None = None  # the limit in seconds that was exceeded
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=folder,
                env=environment,
                # With a process group of its own, ^C reaches the client alone, and uv and Python
                # end together.
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            raise WorkerLostError(f"cannot start {command[0]}: {error.strerror}") from error
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # on Linux; large frames arrive sooner
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
        """Kills the process group."""
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def close(self, grace: float) -> None:
        """Ends the worker, and kills it if it is still running after `grace` seconds."""
        with self.limit(grace), contextlib.suppress(WorkerLostError):
            self.write(b"Q")
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self.kill()  # also ends what uv may have left running
        self.process.wait()
        self.drain.join(grace)
        self.process.stdout.close()
        if not self.drain.is_alive():
            self.process.stderr.close()

    @contextlib.contextmanager
    def limit(self, seconds: float):
        """Kills the worker if the body takes longer, which ends a blocked read or write."""

        def expire():
            self.expired = seconds
            self.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def lost(self, what: str) -> WorkerLostError:
        """Returns the error for a failed read or write, with the worker's last messages."""
        if self.expired is not None:
            return WorkerLostError(f"no answer within {self.expired:g} s")
        self.drain.join(1.0)  # the last messages arrive when the process ends
        with contextlib.suppress(subprocess.TimeoutExpired):
            what = f"{what} (exit code {self.process.wait(1.0)})"
        lines = [line for line in self.stderr if not line.startswith(_NOISE)]
        return WorkerLostError(f"{what}: {' '.join(lines[-4:])[-400:]}" if lines else what)

    def write(self, kind: bytes, *parts) -> None:
        """Sends a message; the concatenated parts are its payload."""
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
        """Returns the payload of the next message, which must be of the type `kind`."""
        length, got = _HEADER.unpack(self._read_exactly(_HEADER.size))
        if got != kind[0] or length > _MAX_REPLY:
            raise WorkerLostError("the worker sent something that is not a message")
        return self._read_exactly(length)
