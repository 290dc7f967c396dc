"""A run in several processes: how they find each other, and how they end together.

When a process dies, the others would wait forever in a collective operation or in the barrier of a
checkpoint. JAX's coordination service notices (at once if it was process 0, which hosts the
service; otherwise when its heartbeats have been missing for `--heartbeat_timeout`) and aborts the
others, from a thread that no Python code can catch. So the training runs in a child process, and
its parent reports in one line what happened.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from talkjax import commands
from talkjax.errors import UserError

# Seconds; JAX's own default is 100. A separate thread sends heartbeats twice in this time, so a
# long compilation does not miss any, and a migrated or throttled host may pause for a while.
HEARTBEAT_TIMEOUT = 60
# Exit code of a process that ended because another one did: all should be started again. (The code
# of a mistake, which a restart would only repeat, is 2.)
LOST = 75  # EX_TEMPFAIL of sysexits.h
_CHILD = "TALKJAX_SUPERVISED"
# Messages of collective operations (gloo, NCCL) and barriers whose other end is gone.
_GONE = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|Socket closed"
    r"|Failed to send RPC|ncclRemoteError|coordination service",
    re.IGNORECASE,
)


def run_main(main: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> int:
    """Runs `commands.run_main` for one of several processes of a run, in a child process.

    Any failure in `main` ends the process without waiting for the others, which then end too.

    Returns:
      The exit code of `main`, `LOST`, or 128 + the number of a signal.
    """
    if _CHILD not in os.environ:
        return _supervise()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        code = commands.run_main(main, argv)
    except Exception as error:
        if reason := another_is_gone(error):
            print(reason, file=sys.stderr)
            code = LOST
        else:
            traceback.print_exc()
            code = 1
    if code:
        # Not through the interpreter's exit, where JAX would wait for all processes.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def another_is_gone(error: BaseException) -> str:
    """Returns the message by which an error, or its cause, reports a lost process, or "".

    A collective operation that notices before the coordination service raises such errors.
    """
    while error is not None:
        if isinstance(error, RuntimeError) and _GONE.search(
            str(error)
        ):  # which JAX's errors are too
            return " ".join(str(error).split())[:300]
        error = error.__cause__ or error.__context__
    return ""


def join(heartbeat_timeout: int = HEARTBEAT_TIMEOUT, initialization_timeout: int = 300) -> None:
    """Joins the other processes of the run. Call it before anything asks for devices.

    Args:
      heartbeat_timeout: Seconds without a heartbeat after which a process counts as dead.
      initialization_timeout: Seconds to wait for all processes at the start.

    Raises:
      UserError: The environment does not describe the processes, or the coordinator's port is in
        use.
    """
    import jax  # not needed by a parent

    if ":" not in (address := os.environ.get("JAX_COORDINATOR_ADDRESS", ":")):
        raise UserError(f"JAX_COORDINATOR_ADDRESS={address!r} is not HOST:PORT")
    try:
        jax.distributed.initialize(
            num_processes=_number("JAX_NUM_PROCESSES"),
            process_id=_number("JAX_PROCESS_ID"),
            initialization_timeout=initialization_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout,
        )
    except ValueError as error:
        raise UserError(
            f"--distributed: {error} No cluster (TPU, Slurm, Open MPI, Kubernetes) was detected; "
            "set JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0, JAX_NUM_PROCESSES and "
            "JAX_PROCESS_ID"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--distributed: process 0 cannot serve the others ({reason}); use a free port"
        ) from error


def _number(name: str) -> int | None:
    """Reads an integer from the environment, of which JAX itself reads the address alone."""
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isdigit():
        raise UserError(f"{name}={text!r} is not a number")
    return int(text)


def _supervise() -> int:
    command = [sys.executable, *sys.orig_argv[1:]]
    # In a session of its own, so that a signal to the group reaches it once, through this process.
    child = subprocess.Popen(
        command, env={**os.environ, _CHILD: "1"}, stdin=subprocess.PIPE, start_new_session=True
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _: child.send_signal(caught))
    code = child.wait()
    if code >= 0 and code != LOST:
        return code
    again = "start all of them again: a run resumes from its newest checkpoint"
    if code in (LOST, -signal.SIGABRT):
        why = "died, was cut off or never started"
        print(f"error: another process of the run {why}; {again}", file=sys.stderr)
        return LOST
    name = signal.Signals(-code).name
    why = " (perhaps because memory ran out)" if code == -signal.SIGKILL else ""
    print(f"error: this process of the run was killed by {name}{why}; {again}", file=sys.stderr)
    return 128 - code


def _end_with_parent() -> None:
    """Ends the child when its parent is killed, which closes the child's standard input."""
    os.read(0, 1)
    os._exit(128 + signal.SIGKILL)
