"""A hub on loopback that serves the layouts of Hugging Face, and a project beside it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from projects import make_project
from sklearn.linear_model import LogisticRegression

from clewline.project import Project
from clewline.store.store import Store

COMMIT = "c0ffee" + "0" * 34


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's `hub` says, and writes down what it was asked."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: Any) -> None:
        """Say nothing on stderr."""

    def _answer(self, *, body: bool) -> None:
        hub: Hub = self.server.hub
        hub.asked.append((self.server.role, self.command, self.path, self.headers))
        status, headers, data = hub.answer(self.server.role, self.path, self.headers)
        self.send_response(status)
        self.close_connection = True
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if body:
            self._send(hub, data)

    def _send(self, hub: Hub, data: bytes) -> None:
        if self.server.role == "cdn" and hub.cut_times > 0:
            hub.cut_times -= 1
            data = data[: len(data) // 2]
        self.wfile.write(data)
        if self.server.role == "cdn" and hub.stalls:
            self.wfile.flush()
            hub.released.wait(10)


class Hub:
    """The hub, its CDN on a port of its own, and what they were asked."""

    gated: ClassVar[str] = "secret/gated"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}  # OWNER/REPO/PATH → content
        self.plain: dict[str, Any] = {}  # path → (status, headers, body) of any server
        self.asked: list[tuple[str, str, str, Any]] = []
        self.lfs, self.cut_times, self.stalls = True, 0, False
        self.cdn_says: bytes | None = None  # in place of the file
        self.to = ""  # redirect there in place of the CDN
        self.released = threading.Event()
        self._servers = [self._server("hub"), self._server("cdn")]
        self.url, self.cdn = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)

    def _server(self, role: str) -> Any:
        server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.hub, server.role = self, role
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def close(self) -> None:
        self.released.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def put(self, path: str, data: bytes) -> str:
        """Publish a file; gives its pinned digest."""
        self.files[path] = data
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def answer(self, role: str, path: str, headers: Any) -> tuple[int, dict[str, Any], bytes]:
        if path in self.plain:
            status, more, data = self.plain[path]
            return status, more, data
        if role == "cdn":
            return 200, {}, self.cdn_says or self.files[path.lstrip("/")]
        if path.startswith("/api/models/"):
            return self._repository("/".join(path.split("/")[3:5]))
        owner, repo, _, revision, *rest = path.lstrip("/").split("/")
        return self._file(f"{owner}/{repo}", revision, "/".join(rest), headers)

    def _repository(self, repo: str) -> tuple[int, dict[str, Any], bytes]:
        mine = [p.removeprefix(f"{repo}/") for p in self.files if p.startswith(f"{repo}/")]
        told = {"siblings": [{"rfilename": each} for each in mine], "tags": ["license:mit"]}
        return 200, {}, json.dumps(told).encode()

    def _file(
        self, repo: str, revision: str, path: str, headers: Any
    ) -> tuple[int, dict[str, Any], bytes]:
        if repo == self.gated and headers.get("Authorization") != "Bearer right":
            return 401, {"X-Error-Code": "GatedRepo"}, b""
        if revision not in ("main", "v1", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        data = self.files.get(f"{repo}/{path}")
        if data is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        if not self.lfs:
            return 200, {"X-Repo-Commit": COMMIT, "ETag": '"' + "a" * 40 + '"'}, data
        linked = f'"{hashlib.sha256(data).hexdigest()}"'
        told = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": linked, "X-Linked-Size": str(len(data))}
        return 302, {**told, "Location": self.to or f"{self.cdn}/{repo}/{path}"}, b""

    def methods(self, role: str | None = None) -> list[str]:
        """What was asked, of one server or both."""
        return [f"{m} {p}" for r, m, p, _ in self.asked if role in (None, r)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield made
    made.close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, in which we are."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, "p")


@pytest.fixture
def store(project: Project) -> Iterator[Store]:
    with Store.open(project.store_root) as opened:
        yield opened


@pytest.fixture(scope="session")
def onnx_file() -> bytes:
    """A classifier of two columns, as somebody publishes one."""
    from skl2onnx import to_onnx

    rows = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    model = LogisticRegression().fit(rows, np.where(rows[:, 0] > 0, "yes", "no"))
    data: bytes = to_onnx(model, rows).SerializeToString()
    return data
