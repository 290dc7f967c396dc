"""Live sessions over a WebSocket: the microphone's sound comes in, frames with their sound go out.

The browser first sends {"token": ..., "rate": ...}, then binary messages of int16 mono samples, and
may send {"do": "interrupt"}. It receives JSON messages ({"waiting": n}, {"ready": true, "width",
"height", "latency_ms"}, {"error": line}, {"ended": line}) and binary ones, see `pack_item`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import struct
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from talkjax.errors import UserError
from talkjax.web.turns import BROKEN, StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from talkjax.sampling.output_queue import StreamItem
    from talkjax.sampling.session import Session
    from talkjax.web.service import Service

MOST_BYTES = 1 << 20  # of one message: ten seconds of sound
_MOST_SIDE = 720  # pixels of the pictures that are sent
_QUALITY = 88
_HEAD = struct.Struct("<II")


@dataclasses.dataclass(frozen=True)
class Hello:
    """The first message of a browser: the avatar's token, and samples a second of its sound."""

    token: str
    rate: int


def parse_hello(text: str) -> Hello:
    """Parses the first message.

    Raises:
      UserError: It is another one.
    """
    found = _parse(text)
    token, rate = found.get("token"), found.get("rate")
    if not isinstance(token, str) or not isinstance(rate, int):
        raise UserError("the first message of a live session names no token and rate; reload")
    return Hello(token, rate)


def _parse(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def parse_sound(data: bytes) -> np.ndarray:
    """Returns the (n,) int16 samples of a binary message.

    Raises:
      UserError: It is not a whole number of samples.
    """
    if len(data) % 2:
        raise UserError("a message of sound ends within a sample; reload the page")
    return np.frombuffer(data, "<i2").astype(np.int16)


def pack_item(item: StreamItem) -> bytes:
    """Returns an item as a message: number of the frame, bytes of sound, int16 sound, JPEG."""
    sound = np.clip(np.rint(item.sound * 32767), -32768, 32767).astype("<i2").tobytes()
    rgb = item.frame
    scale = _MOST_SIDE / max(rgb.shape[:2])
    if scale < 1:
        size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    _, picture = cv2.imencode(".jpg", rgb[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
    return _HEAD.pack(item.tick & 0xFFFFFFFF, len(sound)) + sound + picture.tobytes()


def is_own_page(headers: Any) -> bool:
    """Returns whether a WebSocket comes from this server's page and not from another site's."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


async def converse(socket: Any, service: Service) -> None:
    """Holds one live session over a `starlette.websockets.WebSocket`."""
    if not is_own_page(socket.headers):
        await socket.close(1008)
        return
    await socket.accept()
    gone = threading.Event()
    try:
        hello = parse_hello(await socket.receive_text())
        visitor, path = service.find_avatar(hello.token)
        await _Conversation(socket, service, gone).hold(visitor, path, hello.rate)
    except UserError as error:
        await _tell(socket, error=service.explain(error))
    except (StoppedError, _left(), KeyError):  # the browser closed; KeyError: it sent no text
        pass
    except Exception as error:
        await _tell(socket, error=BROKEN)
        raise error
    finally:
        gone.set()
        with contextlib.suppress(RuntimeError):
            await socket.close()


class _Conversation:
    """One browser and one session."""

    def __init__(self, socket: Any, service: Service, gone: threading.Event) -> None:
        self._socket, self._service, self._gone = socket, service, gone
        self._session: Session | None = None
        self._loop = asyncio.get_running_loop()

    async def hold(self, visitor: str, path: str, rate: int) -> None:
        """Waits for a turn, and holds the session until one side ends it."""
        listening = asyncio.create_task(self._listen())
        turn = asyncio.to_thread(self._serve, visitor, path, rate)
        try:
            await turn
        finally:
            self._gone.set()
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await listening

    async def _listen(self) -> None:
        """Hears the browser until it closes; sound before the session is open is dropped."""
        while not self._gone.is_set():
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                self._gone.set()  # `_serve` sees it at its next item, 25 times a second
                return
            session = self._session
            if session is None:
                continue
            try:
                if message.get("bytes") is not None:
                    session.push_audio(parse_sound(message["bytes"]))
                elif _parse(message.get("text") or "").get("do") == "interrupt":
                    session.interrupt()
            except UserError as error:  # nothing was taken, and the session goes on
                await _tell(self._socket, error=str(error))

    def _serve(self, visitor: str, path: str, rate: int) -> None:
        """Runs in a thread: opens the session and sends its items."""
        service = self._service
        deadline = None
        with (
            service.store.busy(visitor),
            service.turns.take(self._gone.is_set, lambda before: self._send(waiting=before)),
            service.sampler.stream(path, rate=rate, when_full="drop") as session,
        ):
            self._session = session
            first = True
            for item in session:
                if self._gone.is_set():
                    break
                if first:
                    height, width = item.frame.shape[:2]
                    latency = round((session.latency or 0) * 1000)
                    self._send(ready=True, width=width, height=height, latency_ms=latency)
                    deadline = time.monotonic() + service.limits.live_minutes * 60
                    first = False
                self._call(self._socket.send_bytes, pack_item(item))
                if time.monotonic() > deadline:
                    minutes = f"{service.limits.live_minutes:g}"
                    self._send(ended=f"a live session lasts up to {minutes} minutes; start again")
                    break

    def _send(self, **message: Any) -> None:
        self._call(self._socket.send_text, json.dumps(message))

    def _call(self, send: Callable, data: str | bytes) -> None:
        """Sends from the thread, and waits until it is sent, so that a slow line is noticed."""
        if self._gone.is_set():
            return
        try:
            asyncio.run_coroutine_threadsafe(send(data), self._loop).result(30)
        except Exception:  # closed, or too slow for half a minute
            self._gone.set()


async def _tell(socket: Any, **message: Any) -> None:
    with contextlib.suppress(RuntimeError, _left()):
        await socket.send_text(json.dumps(message))


def _left() -> type[Exception]:
    from starlette.websockets import WebSocketDisconnect

    return WebSocketDisconnect
