"""The protocol of live sessions, with a browser that is not there."""

import asyncio
import json
import struct

import cv2
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.sampling.output_queue import StreamItem
from talkjax.web import live

pytest.importorskip("starlette", reason="uv sync --extra web")
SOUND = np.arange(-3, 3, dtype="<i2")


def test_items_are_packed():
    frame = np.full((100, 2000, 3), (200, 30, 30), np.uint8)
    data = live.pack_item(StreamItem(7, frame, np.array([0.5, -2.0], np.float32)))
    tick, count = struct.unpack("<II", data[:8])
    assert (tick, count) == (7, 4)
    assert np.frombuffer(data[8:12], "<i2").tolist() == [16384, -32768]
    picture = cv2.imdecode(np.frombuffer(data[12:], np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture.shape == (36, 720, 3) and abs(int(picture[5, 5, 0]) - 200) < 8


@pytest.mark.parametrize("text", ["", "[]", '{"token": 1, "rate": 8000}', '{"token": "a"}'])
def test_another_first_message(text):
    with pytest.raises(UserError, match="names no token and rate"):
        live.parse_hello(text)
    assert live.parse_hello('{"token": "a", "rate": 8000}') == live.Hello("a", 8000)


def test_half_a_sample():
    with pytest.raises(UserError, match="ends within a sample"):
        live.parse_sound(b"abc")
    assert live.parse_sound(SOUND.tobytes()).tolist() == SOUND.tolist()


def test_other_sites_are_refused():
    assert live.is_own_page({"host": "localhost:7860"})
    assert live.is_own_page({"host": "localhost:7860", "origin": "http://localhost:7860"})
    for origin in ("http://evil.example", "null", "http://localhost:7861"):
        assert not live.is_own_page({"host": "localhost:7860", "origin": origin})


class Browser:
    """A WebSocket as the server sees it: says what `script` holds, then closes once it may."""

    def __init__(self, script, frames=3, origin=None):
        self.headers = {"host": "h"} | ({"origin": origin} if origin else {})
        self.script, self.frames = list(script), frames
        self.texts, self.items, self.closed = [], [], None
        self.enough = asyncio.Event()

    async def accept(self):
        pass

    async def receive_text(self):
        return self.script.pop(0)

    async def receive(self):
        while self.script and not self.items:
            await asyncio.sleep(0.01)
            if self.texts and "waiting" in self.texts[-1]:
                break
        if self.script:
            said = self.script.pop(0)
            key = "bytes" if isinstance(said, bytes) else "text"
            return {"type": "websocket.receive", key: said}
        await self.enough.wait()
        return {"type": "websocket.disconnect"}

    async def send_text(self, text):
        self.texts.append(json.loads(text))
        if "waiting" in text:
            self.enough.set()

    async def send_bytes(self, data):
        self.items.append(data)
        if len(self.items) >= self.frames:
            self.enough.set()

    async def close(self, code=1000):
        self.closed = code


def hold(service, *script, **options):
    async def main():
        browser = Browser(script, **options)
        await asyncio.wait_for(live.converse(browser, service), 60)
        return browser

    return asyncio.run(main())


@pytest.fixture
def hello(service, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"an avatar")
    return json.dumps({"token": service._register("anna", str(path)), "rate": 16000})


def test_a_session(service, hello, fake):
    browser = hold(service, hello, SOUND.tobytes(), b"abc", '{"do": "interrupt"}', "nonsense")
    (session,) = fake.sessions
    assert session.rate == 16000 and session.closed and session.interrupted == 1
    assert [piece.tolist() for piece in session.pushed] == [SOUND.tolist()]
    ready, wrong = browser.texts[:2]
    assert ready == {"ready": True, "width": 96, "height": 80, "latency_ms": 280}
    assert "ends within a sample" in wrong["error"] and len(browser.items) >= 3
    assert not len(service.turns) and browser.closed == 1000


def test_who_comes_second_waits_and_may_go(service, hello, fake):
    with service.turns.take():
        browser = hold(service, hello)
    assert browser.texts == [{"waiting": 1}] and not fake.sessions and not len(service.turns)


def test_a_session_ends_in_time(service, hello, fake):
    service.limits = type(service.limits)(live_minutes=0.0005)
    browser = hold(service, hello, frames=10**6)
    assert browser.texts[-1]["ended"].startswith("a live session lasts up to 0.0005 minutes")
    assert fake.sessions[0].closed and not len(service.turns)


def test_mistakes_are_told(service, hello, fake):
    assert "names no token" in hold(service, "nonsense").texts[0]["error"]
    wrong = json.dumps({"token": "b", "rate": 16000})
    assert "is gone; prepare it again" in hold(service, wrong).texts[0]["error"]
    browser = hold(service, hello, origin="http://evil.example")
    assert browser.closed == 1008 and not browser.texts and not fake.sessions
