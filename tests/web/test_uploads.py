"""Requests that are too large are refused before their body is read."""

import asyncio

import pytest

from talkjax.web.uploads import UploadFilter

MOST = 1_000_000


def answer(method="POST", path="/gradio_api/upload", room=True, **headers):
    """Returns the status and the text of an answer; 200 where the request is passed on."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"passed"})

    async def receive():
        raise AssertionError("the body is not read")

    async def send(message):
        sent.append(message)

    named = [
        (name.replace("_", "-").encode(), str(value).encode()) for name, value in headers.items()
    ]
    scope = {"type": "http", "method": method, "path": path, "headers": named}
    asyncio.run(UploadFilter(app, MOST, lambda: room)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"].decode()


def test_five_gigabytes():
    status, text = answer(content_length=5 << 30)
    assert status == 413 and text == "the file is larger than 1 MB; make it smaller\n"
    assert answer(content_length=MOST)[0] == 200


def test_a_request_that_hides_its_size():
    assert answer(transfer_encoding="chunked")[0] == 411


def test_no_room():
    assert answer(content_length=1000, room=False)[0] == 507
    assert answer(path="/gradio_api/queue/join", content_length=1000, room=False)[0] == 200


@pytest.mark.parametrize(("length", "status"), [(1 << 20, 200), (9 << 20, 413)])
def test_other_requests_are_small(length, status):
    assert answer(path="/gradio_api/queue/join", content_length=length)[0] == status


def test_what_has_no_body_passes():
    assert answer("GET", "/")[0] == 200 and answer("POST", "/gradio_api/reset")[0] == 200


def test_a_browser_that_goes_in_the_middle_is_no_failure():
    async def app(scope, receive, send):
        raise ConnectionAbortedError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asyncio.run(UploadFilter(app, 1, bool, (ConnectionAbortedError,))(scope, None, None))
    with pytest.raises(ConnectionAbortedError):
        asyncio.run(UploadFilter(app, 1, bool)(scope, None, None))
