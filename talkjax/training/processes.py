"""One run in several processes: how they find each other, and how they end together.

A process that dies leaves the others waiting in a collective operation, or in a barrier of a
checkpoint, for ever, unless that notices and raises. JAX's coordination service notices (at once if
it was process 0, which holds the service; else when its heartbeats have been missing for
`--heartbeat_timeout`) and aborts the others, from a thread that no Python code can catch. So the
training runs in a child process, and its parent says in one line what happened.
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

# Seconds. JAX's own default is 100; heartbeats come from a thread of their own every half of it,
# so a long compilation does not miss them, and a host that is moved or throttled may pause a while.
HEARTBEAT_TIMEOUT = 60
# Exit code of a process that ended because another one did: start all of them again. (A mistake,
# which would only be made again, has 2.)
LOST = 75  # EX_TEMPFAIL of sysexits.h
_CHILD = "TALKJAX_SUPERVISED"
# What a collective operation (gloo, NCCL) or a barrier says when who was at its other end is gone.
_GONE = re.compile(
    r"Connection (closed|reset) by peer|Connection refused|Broken pipe|Socket closed"
    r"|Failed to send RPC|ncclRemoteError|coordination service",
    re.IGNORECASE,
)


def run_main(main: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> int:
    """`commands.run_main` for one of several processes of a run, in a child process.

    Whatever goes wrong in `main` ends the process without waiting for the others, which then
    end too.

    Returns:
      The exit code: main's, `LOST`, or 128 + a signal's number.
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
        # Not through the interpreter's exit: there JAX would wait for all processes to come.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def another_is_gone(error: BaseException) -> str:
    """The line in which an error, or one that led to it, says that another process has gone, or "".

    Where a collective operation notices sooner than the coordination service, it raises.
    """
    while error is not None:
        if isinstance(error, RuntimeError) and _GONE.search(str(error)):  # JAX's are such, too
            return " ".join(str(error).split())[:300]
        error = error.__cause__ or error.__context__
    return ""


def join(heartbeat_timeout: int = HEARTBEAT_TIMEOUT, initialization_timeout: int = 300) -> None:
    """Joins the run's other processes; before anything asks for devices.

    Args:
      heartbeat_timeout: seconds without a sign of life after which a process counts as dead.
      initialization_timeout: seconds to wait for all of them at the start; then JAX aborts, too.

    Raises:
      UserError: the environment does not tell who they are; the coordinator's port is taken.
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
            f"--distributed: {error} Nothing here (TPU, Slurm, Open MPI, Kubernetes) tells; set "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--distributed: process 0 cannot serve the others ({reason}); take a port that is free"
        ) from error


def _number(name: str) -> int | None:
    """An integer from the environment; JAX itself reads but the coordinator's address there."""
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isdigit():
        raise UserError(f"{name}={text!r} is not a number")
    return int(text)


def _supervise() -> int:
    command = [sys.executable, *sys.orig_argv[1:]]
    # A session of its own: a signal to the group reaches it through us, and once only.
    child = subprocess.Popen(
        command, env={**os.environ, _CHILD: "1"}, stdin=subprocess.PIPE, start_new_session=True
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _: child.send_signal(caught))
    code = child.wait()
    if code >= 0 and code != LOST:
        return code
    again = "start all of them again: a run goes on from its newest checkpoint"
    if code in (LOST, -signal.SIGABRT):
        why = "died, was cut off or never came"
        print(f"error: another process of the run {why}; {again}", file=sys.stderr)
        return LOST
    name = signal.Signals(-code).name
    why = " (perhaps because memory ran out)" if code == -signal.SIGKILL else ""
    print(f"error: this process of the run was killed by {name}{why}; {again}", file=sys.stderr)
    return 128 - code


def _end_with_parent() -> None:
    """Ends the child when its parent is killed, which closes the pipe that is its input."""
    os.read(0, 1)
    os._exit(128 + signal.SIGKILL)
