"""A Hugging Face Hub on this machine: repositories, uploads and downloads, and ways to fail."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHA = "c0ffee" + 34 * "0"


class FakeHub:
    """Attributes:
    url: Its address.
    files: {path: content} of the one repository.
    private: What `create` asked for, or None.
    fail: "403", "drop" or "".
    tokens: The tokens that were sent.
    """

    def __init__(self):
        self.files, self.objects, self.private, self.fail, self.tokens = {}, {}, None, "", set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *unused):
                pass

            def do_GET(self):
                hub.answer(self)

            do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        body = self._body(request)
        self.tokens.add(request.headers.get("Authorization"))
        if self.fail == "drop":
            request.connection.close()
            return
        path = request.path.partition("?")[0]
        if self.fail == "403":
            self.reply(request, {"error": "You don't have the rights"}, 403)
        elif path == "/api/repos/create":
            given = json.loads(body)
            self.private = given.get("visibility", given.get("private")) in ("private", True)
            self.reply(request, {"url": f"{self.url}/owner/name"})
        elif path == "/api/validate-yaml":
            self.reply(request, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            self.reply(request, {"files": [_mode(f["path"]) for f in json.loads(body)["files"]]})
        elif path.endswith("/info/lfs/objects/batch"):
            self.reply(request, {"objects": [self._lfs(o) for o in json.loads(body)["objects"]]})
        elif path.startswith("/lfs/"):
            self.objects[path.rpartition("/")[2]] = body
            self.reply(request, {})
        elif "/commit/" in path:
            self._commit(body)
            url = f"{self.url}/owner/name/commit/{SHA}"
            self.reply(request, {"commitUrl": url, "commitOid": SHA})
        elif "/resolve/" in path and path.rpartition("/")[2] in self.files:
            content = self.files[path.rpartition("/")[2]]
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.reply(request, content, headers={"ETag": tag, "X-Repo-Commit": SHA})
        elif "/tree/" in path:
            self.reply(request, [_entry(name, c) for name, c in self.files.items()])
        elif path.startswith("/api/models/"):
            names = [{"rfilename": name} for name in self.files]
            self.reply(request, {"id": "owner/name", "sha": SHA, "siblings": names})
        else:
            self.reply(request, {"error": path}, 404)

    def _body(self, request):
        if "chunked" not in request.headers.get("Transfer-Encoding", ""):
            return request.rfile.read(int(request.headers.get("Content-Length") or 0))
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        return body

    def _lfs(self, given):
        action = {"href": f"{self.url}/lfs/{given['oid']}", "header": {}}
        return given | {"actions": {"upload": action}}

    def _commit(self, body):
        for line in filter(None, body.split(b"\n")):
            given = json.loads(line)
            value = given["value"]
            if given["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif given["key"] == "lfsFile":
                self.files[value["path"]] = self.objects[value["oid"]]

    def reply(self, request, content, code=200, headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        with contextlib.suppress(OSError):
            request.send_response(code)
            for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
                request.send_header(name, value)
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(data)


def _mode(path):
    kind = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": kind, "shouldIgnore": False}


def _entry(name, content):
    return {"type": "file", "path": name, "size": len(content), "oid": SHA}
