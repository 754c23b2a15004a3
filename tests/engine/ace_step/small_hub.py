"""A small hub on a real socket: the few requests with which a repository is pulled, with ranges and cuts."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "8f1c0ffee0123456789abcdef0123456789abcde"


class SmallHub:
    """One repository, `owner/tiny`, whose safetensors are large files."""

    def __init__(self, folder: Path) -> None:
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self.ranges: list[tuple[str, int]] = []
        """Files that were asked for, and from which byte on."""
        self.cut: tuple[str, int] | None = None
        """A file whose transfer breaks off at that byte."""
        self.lies: dict[str, str] = {}
        """Wrong checksums to tell."""
        self.endpoint = ""

    def sha256(self, name: str) -> str:
        return self.lies.get(name) or hashlib.sha256(self.files[name]).hexdigest()

    def blob_id(self, name: str) -> str:
        data = self.files[name]
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    def tree(self) -> list[dict[str, object]]:
        """As GET /api/models/owner/tiny/tree/... answers."""
        entries = []
        for name, data in self.files.items():
            entry: dict[str, object] = {
                "type": "file",
                "path": name,
                "size": len(data),
                "oid": self.blob_id(name),
            }
            if name.endswith(".safetensors"):
                entry["lfs"] = {"oid": self.sha256(name), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        return entries

    @contextmanager
    def serving(self) -> Iterator[str]:
        """On a port of its own while the block runs; yields the endpoint."""
        hub = self

        class Handler(_Handler):
            here = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.endpoint = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self.endpoint
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    here: SmallHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Nothing: stderr belongs to the test."""

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/tiny"):
            info = {"id": "owner/tiny", "sha": COMMIT, "private": False, "siblings": []}
            answer = self.here.tree() if "/tree/" in path else info
            return self._send(200, json.dumps(answer).encode(), {}, with_body=with_body)
        _, found, name = path.partition("/owner/tiny/resolve/")
        name = name.partition("/")[2]
        if not found or name not in self.here.files:
            kind = "EntryNotFound" if found else "RepoNotFound"
            return self._send(404, b"", {"X-Error-Code": kind}, with_body=with_body)
        return self._file(name, with_body=with_body)

    def _file(self, name: str, *, with_body: bool) -> None:
        data = self.here.files[name]
        is_large = name.endswith(".safetensors")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{self.here.blob_id(name)}"', "Accept-Ranges": "bytes"}
        if is_large:
            headers |= {"X-Linked-Etag": f'"{self.here.sha256(name)}"', "X-Linked-Size": str(len(data))}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if with_body:
            self.here.ranges.append((name, start))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = self.here.cut[1] if self.here.cut is not None and self.here.cut[0] == name else None
        self._send(206 if start else 200, data[start:], headers, with_body=with_body, cut=cut and cut - start)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body if cut is None else body[: max(cut, 0)])
        if cut is not None and with_body:
            self.close_connection = True
