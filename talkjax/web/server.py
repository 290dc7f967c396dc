"""The web server: the page, live sessions, and the filter of uploads behind one address."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from talkjax.errors import UserError
from talkjax.web import live
from talkjax.web.limits import Limits
from talkjax.web.service import Service
from talkjax.web.store import Store
from talkjax.web.uploads import UploadFilter

_SWEEP_S = 30.0
_LOCAL = ("127.0.0.1", "localhost", "::1")
_HERE = Path(__file__).resolve().parent


def serve(
    checkpoint: str | None, limits: Limits, host: str, port: int, compilation_cache: bool
) -> None:
    """Loads a checkpoint and serves the page until the program is interrupted.

    Raises:
      UserError: The checkpoint cannot be used, or the address is not free.
    """
    listening = listen(host, port)
    with contextlib.closing(listening), _open_store(limits) as store:
        from talkjax.sampling import Sampler, compile_cache

        if compilation_cache:
            compile_cache.enable()
        service = Service(Sampler.from_pretrained(checkpoint), limits, store)
        server = make_server(service)
        address = listening.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        print(f"the page is at http://{shown}:{address[1]} (Ctrl+C stops it)", flush=True)
        if address[0] not in _LOCAL:
            print(
                "warning: everybody who can reach this computer can use the page, and browsers "
                "allow microphone and camera only on localhost or over HTTPS", file=sys.stderr,
            )  # fmt: skip
        server.run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Opens the socket.

    Raises:
      UserError: The address is taken or not one of this computer.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"--host={host} --port={port} cannot be used ({reason}); give another one, or --port=0"
        ) from error
    return opened


@contextlib.contextmanager
def _open_store(limits: Limits) -> Iterator[Store]:
    """Opens the store, sweeps it now and then, and removes it in the end."""
    store = Store(limits.keep_minutes * 60)
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(_SWEEP_S):
            store.sweep()

    threading.Thread(target=sweep, name="talkjax-web-sweep", daemon=True).start()
    try:
        yield store
    finally:
        ended.set()
        store.close()


def make_server(service: Service) -> Any:
    """Returns a `uvicorn.Server` of a service."""
    import uvicorn

    app = make_app(service)
    config = uvicorn.Config(
        app, ws="wsproto", ws_max_size=live.MOST_BYTES, log_level="warning", access_log=False,
        timeout_graceful_shutdown=3,
    )  # fmt: skip
    return uvicorn.Server(config)


def make_app(service: Service) -> Any:
    """Returns the ASGI application of a service."""
    # Gradio reads these when it is imported.
    os.environ["GRADIO_TEMP_DIR"] = str(service.store.uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import fastapi
    import gradio
    from starlette.requests import ClientDisconnect
    from starlette.responses import FileResponse
    from starlette.routing import Route, WebSocketRoute

    from talkjax.web import page

    app = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    async def hold_live(websocket: Any) -> None:
        await live.converse(websocket, service)

    async def send_script(request: Any) -> FileResponse:
        return FileResponse(_HERE / "page.js", media_type="text/javascript")

    app.router.routes += [WebSocketRoute("/live", hold_live), Route("/page.js", send_script)]
    # These are served where they are and not copied.
    gradio.set_static_paths([service.store.made])
    gradio.mount_gradio_app(
        app,
        page.make_page(service),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=int(service.limits.upload_mb * 1e6),
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        allowed_paths=[str(page.EXAMPLES)],
        theme=page.make_theme(),
        css_paths=[_HERE / "page.css"],
        head='<script src="page.js" defer></script>',
    )
    has_room = lambda: service.store.used_bytes() < service.limits.storage_mb * 1e6  # noqa: E731
    return UploadFilter(app, service.limits.upload_mb * 1e6, has_room, (ClientDisconnect,))
