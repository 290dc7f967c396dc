"""A filter before the web server that refuses requests which are too large, unread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

_OTHER_BYTES = 8 << 20  # of requests that are not uploads
_FORM_BYTES = 1 << 16  # what a form adds to its file


class UploadFilter:
    """An ASGI application before another one.

    The size of a request is what its header says, which the server enforces; a body of unknown size
    is refused.
    """

    def __init__(
        self,
        app: Any,
        most_bytes: float,
        has_room: Callable[[], bool],
        ignored: tuple[type[Exception], ...] = (),
    ) -> None:
        """Filters requests to `app`.

        Args:
          app: An ASGI application.
          most_bytes: Size of the largest upload.
          has_room: Whether there is room for an upload.
          ignored: Errors that say that a browser has gone, which need no traceback.
        """
        self._app, self._most, self._has_room = app, most_bytes + _FORM_BYTES, has_room
        self._ignored = ignored

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers, or passes the request on."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            with contextlib.suppress(*self._ignored):
                await self._app(scope, receive, send)
            return
        status, text = refusal
        body = f"{text}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        headers = dict(scope["headers"])
        length = headers.get(b"content-length")
        if length is None:
            if b"transfer-encoding" not in headers:
                return None  # no body
            return 411, "the size of the request is missing"
        upload = scope["path"].rstrip("/").endswith("/upload")
        if int(length) > (self._most if upload else _OTHER_BYTES):
            return 413, f"the file is larger than {self._most / 1e6:.0f} MB; make it smaller"
        if upload and not self._has_room():
            return 507, "the page has no room for more files; try again later"
        return None
