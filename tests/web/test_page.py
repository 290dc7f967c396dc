"""The page and its server, without a browser."""

import json
import re

import pytest

pytest.importorskip("gradio", reason="uv run --extra web pytest ...")


@pytest.fixture
def client(service):
    from starlette.testclient import TestClient

    from talkjax.web import server

    return TestClient(server.make_app(service), base_url="http://localhost:7860")


def test_the_page_needs_no_other_server(client):
    text = client.get("/").text
    assert "talkjax" in text and client.get("/page.js").text.startswith("// What Gradio")
    loaded = re.findall(r"""<(?:script|link)[^>]+(?:src|href)=["'](https?://[^"']+)""", text)
    assert not [url for url in loaded if "localhost" not in url]
    config = client.get("/config").json()
    assert config["analytics_enabled"] is False and config["max_file_size"] == 1_000_000
    assert not [d for d in config["dependencies"] if d["api_visibility"] != "private"]


def test_uploads_that_are_too_large(client, store):
    for size, status in ((1_200_000, 413), (900_000, 200)):
        answer = client.post("/gradio_api/upload", files={"files": ("a.mp4", b"0" * size)})
        assert answer.status_code == status
    assert [p.stat().st_size for p in store.uploads.rglob("*") if p.name == "a.mp4"] == [900_000]


def test_only_files_of_the_page_are_served(client, store, tmp_path):
    made = store.folder("anna") / "talking.mp4"
    made.write_bytes(b"made")
    assert client.get(f"/gradio_api/file={made}").content == b"made"
    private = tmp_path / "private.txt"
    private.write_text("private")
    for path in (private, store.root / "lock", __file__):
        assert client.get(f"/gradio_api/file={path}").status_code == 403


def test_live(client):
    with client.websocket_connect("/live") as socket:
        socket.send_text(json.dumps({"token": "another", "rate": 16000}))
        assert "is gone; prepare it again" in socket.receive_json()["error"]
    from starlette.websockets import WebSocketDisconnect

    origin = {"origin": "http://evil.example"}
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/live", headers=origin):
        pass
