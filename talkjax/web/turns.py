"""One after the other: who waits for the sampler, and work in the background that can be stopped.

A sampler serves one visitor at a time, because two would only make each other slower.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from talkjax.errors import UserError

_POLL_S = 0.2  # how often somebody who waits looks whether they were stopped
BROKEN = "something went wrong in the program; its terminal shows what"


class StoppedError(Exception):
    """The visitor stopped the work or left."""


class Turns:
    """A queue of visitors, first come, first served."""

    def __init__(self, waiting: int) -> None:
        """At most `waiting` can wait while one is served."""
        self._most = waiting + 1
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Number of those who are served or wait."""
        return len(self._line)

    @contextlib.contextmanager
    def take(
        self, stopped: Callable[[], bool] = lambda: False, tell: Callable[[int], None] = print
    ) -> Iterator[None]:
        """Waits for a turn, and holds it.

        Args:
          stopped: Returns whether to wait no longer.
          tell: Called with the number of those before this one whenever it changes.

        Raises:
          UserError: Too many wait already.
          StoppedError: `stopped` returned True.
        """
        ticket = object()
        with self._changed:
            if len(self._line) >= self._most:
                raise UserError(
                    f"{len(self._line)} people use this page already, and it is one at a time; "
                    "try again in some minutes"
                )
            self._line.append(ticket)
        try:
            self._wait(ticket, stopped, tell)
            yield
        finally:
            with self._changed:
                self._line.remove(ticket)
                self._changed.notify_all()

    def _wait(
        self, ticket: object, stopped: Callable[[], bool], tell: Callable[[int], None]
    ) -> None:
        told = 0
        while True:
            if stopped():
                raise StoppedError
            with self._changed:
                before = self._line.index(ticket)
                if not before:
                    return
                if before == told:
                    self._changed.wait(_POLL_S)
            if before != told:
                told = before
                tell(before)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far work has come.

    Attributes:
      text: What is done now.
      share: Share that is done, from 0 to 1, or None where it is not known.
    """

    text: str
    share: float | None = None


class Work:
    """Work in a thread of its own, which waits for its turn.

    Attributes:
      progress: How far it has come.
      result: What it returned, once it has succeeded.
      error: One line that says why it failed, once it has.
      stopped: Whether it was stopped.
    """

    def __init__(
        self,
        turns: Turns,
        do: Callable[[Work], Any],
        explain: Callable[[UserError], str] = str,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts the work.

        Args:
          turns: Whose turn it is.
          do: Does the work: calls `report` on its argument often, and returns the result.
          explain: Turns an error into the line for the visitor.
          after: Called in the end, whatever happened.
        """
        self.progress = Progress("Starting")
        self.result: Any = None
        self.error: str | None = None
        self.stopped = False
        self._stop = threading.Event()
        self._turns, self._do, self._explain, self._after = turns, do, explain, after
        self._thread = threading.Thread(target=self._run, name="talkjax-web", daemon=True)
        self._thread.start()

    def report(self, text: str, share: float | None = None) -> None:
        """Notes how far the work has come; raises `StoppedError` where it should end."""
        self.progress = Progress(text, share)
        if self._stop.is_set():
            raise StoppedError

    def stop(self) -> None:
        """Asks the work to end; it does at its next `report`."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for the end, at most so long; returns whether it has come."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with self._turns.take(self._stop.is_set, self._tell_place):
                self.result = self._do(self)
        except StoppedError:
            self.stopped = True
        except UserError as error:
            self.error = self._explain(error)
        except BaseException:
            traceback.print_exc()
            self.error = BROKEN
        finally:
            self._after()

    def _tell_place(self, before: int) -> None:
        people = "one person is" if before == 1 else f"{before} people are"
        self.progress = Progress(f"Waiting: {people} before you")
