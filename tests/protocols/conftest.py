"""A real server in a thread, and raw sockets to talk to it."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from support import PATIENCE_S

from clewline.project import Project
from clewline.protocols.http.request import (
    HttpApplication,
    HttpLimits,
    HttpRefusal,
    HttpRequest,
    HttpResponse,
)
from clewline.protocols.http.server import HttpServer
from clewline.protocols.http.tls import Certificate
from clewline.serve.endpoint_server import EndpointServer
from clewline.workers import server as servers


class Echo:
    """Answers with what it was asked; `/later` keeps its answers until `release` is called."""

    def __init__(self) -> None:
        self.kept: list[HttpRequest] = []
        self.handled = 0
        self.answers = 0
        self.refused = 0
        self.targets: list[str] = []

    def handle(self, request: HttpRequest) -> None:
        self.handled += 1
        self.targets.append(request.target.decode("latin-1"))
        if request.target in (b"/later", b"/stream"):
            self.kept.append(request)
        elif request.target == b"/broken":
            raise ZeroDivisionError
        elif request.target.startswith(b"/large"):
            request.answer(HttpResponse(200, b"x" * int(request.target[6:]), b"text/plain"))
        else:
            request.answer(HttpResponse(200, self.echo(request)))

    def echo(self, request: HttpRequest) -> bytes:
        return msgspec.json.encode(
            {"target": request.target.decode(), "body": request.body.decode()}
        )

    def admit(self, request: HttpRequest) -> HttpResponse | None:
        return HttpResponse(404, b"{}") if request.target == b"/nowhere" else None

    def answered(self, request: HttpRequest) -> None:
        self.answers += 1

    def screen(self, request: HttpRequest) -> HttpResponse | None:
        return HttpResponse(401, b"{}") if request.target == b"/private" else None

    def refuse(self, request: HttpRequest, refused: HttpRefusal) -> HttpResponse:
        self.refused += 1
        return HttpResponse(refused.status, msgspec.json.encode(refused.message))

    def release(
        self, order: Callable[[list[HttpRequest]], list[HttpRequest]] = lambda kept: kept
    ) -> None:
        for request in order(self.kept):
            request.answer(HttpResponse(200, self.echo(request)))
        self.kept = []


class Running:
    """A server on a thread of its own."""

    def __init__(
        self,
        limits: HttpLimits,
        certificate: Certificate | None = None,
        application: HttpApplication | None = None,
    ) -> None:
        self.echo = Echo()
        self.server = HttpServer(application or self.echo, limits, certificate)
        self.is_tls = certificate is not None
        self.port = 0
        self.loop: asyncio.AbstractEventLoop
        self._up = threading.Event()
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=uvloop.run, args=(self._main(),))
        self._thread.start()
        assert self._up.wait(PATIENCE_S)

    async def _main(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.port = self.server.listen()
        await self.server.start()
        self._up.set()
        await self._stop.wait()
        await self.server.drain()

    def call(self, what: Callable[[], None]) -> None:
        """Do something on the server's thread, and wait for it."""
        done = threading.Event()

        def do() -> None:
            what()
            done.set()

        self.loop.call_soon_threadsafe(do)
        assert done.wait(PATIENCE_S)

    def begin_to_stop(self) -> None:
        with suppress(RuntimeError):  # the loop may have ended already
            self.loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        with suppress(RuntimeError):  # it ends by itself when what is under way is answered
            self.loop.call_soon_threadsafe(self.echo.release)
        self.begin_to_stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


class Caller:
    """A raw connection."""

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        if tls:
            self.socket = trusting().wrap_socket(self.socket)
        self.file = self.socket.makefile("rb")

    def send(self, *data: bytes) -> None:
        self.socket.sendall(b"".join(data))

    def head(self) -> tuple[int, dict[str, str]]:
        """Read a status line and headers."""
        line = self.file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = {}
        while (field := self.file.readline()) != b"\r\n":
            name, _, value = field.decode().partition(":")
            headers[name] = value.strip()
        return int(line.split()[1]), headers

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read an answer whole."""
        status, headers = self.head()
        return status, headers, self.file.read(int(headers["content-length"]))

    def half_close(self) -> None:
        """Send no more, and go on to read; over TLS without the close_notify that should be."""
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    def ended(self) -> bool:
        """Tell that the server has ended the connection, with nothing more to read."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine, signed by its own key."""
    return make_pem(tmp_path_factory.mktemp("pem"))


def make_pem(folder: Path, days: int = 365, name: str = "server") -> tuple[Path, Path]:
    """Write a certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=500))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    chain_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    chain_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key_file.write_bytes(private)
    return chain_file, key_file


def trusting() -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.fixture
def pem_in() -> Callable[..., tuple[Path, Path]]:
    """Write certificates."""
    return make_pem


@pytest.fixture
def client_tls() -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    return trusting()


@pytest.fixture
def run_http() -> Callable[..., Running]:
    """Run a server of any application; whoever asks stops it."""
    return Running


@pytest.fixture
def call() -> Callable[..., Caller]:
    """Connect to a port; whoever asks closes it."""
    return Caller


@pytest.fixture(params=["clear", "tls"])
def certificate(request: pytest.FixtureRequest, pem: tuple[Path, Path]) -> Certificate | None:
    """Every test of the server is one with TLS as well."""
    return Certificate(*pem) if request.param == "tls" else None


@pytest.fixture
def serve(certificate: Certificate | None) -> Iterator[Callable[..., Running]]:
    """Start servers with given limits; all are stopped at the end."""
    running: list[Running] = []

    def start(**limits: float) -> Running:
        running.append(Running(HttpLimits(**limits), certificate))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def connect() -> Iterator[Callable[[Running], Caller]]:
    """Connect to servers; all connections are closed at the end."""
    callers: list[Caller] = []

    def start(server: Running) -> Caller:
        tls = isinstance(server, Running) and server.is_tls
        callers.append(Caller(server.port, tls=tls))
        return callers[-1]

    yield start
    for caller in callers:
        caller.close()


@pytest.fixture
def server(serve: Callable[..., Running]) -> Running:
    return serve(drain_s=3.0)


@pytest.fixture
def caller(server: Running, connect: Callable[[Running], Caller]) -> Caller:
    return connect(server)


@pytest.fixture(scope="module")
def long_lived_caller() -> Iterator[Caller]:
    """A connection that many examples of one test use."""
    running = Running(HttpLimits())
    caller = Caller(running.port)
    yield caller
    caller.close()
    running.stop()


class Up:
    """The prediction server of a project, on a thread."""

    def __init__(self, project: Project, limits: HttpLimits, **settings: Any) -> None:
        self.project = project
        self.url = ""
        self.endpoints: EndpointServer
        self._failure: BaseException | None = None
        self._known = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(limits, settings))
        self._thread.start()
        assert self._known.wait(PATIENCE_S)
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def _run(self, limits: HttpLimits, settings: dict[str, Any]) -> None:
        try:
            uvloop.run(self._main(limits, settings))
        except BaseException as error:
            self._failure = error
            self._known.set()

    async def _main(self, limits: HttpLimits, settings: dict[str, Any]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        endpoints = EndpointServer(self.project, **settings)
        await servers.serve(endpoints, "127.0.0.1", 0, limits, self._ready, self._stop)

    def _ready(self, endpoints: EndpointServer, url: str) -> None:
        self.endpoints, self.url = endpoints, url
        self._known.set()

    def begin_to_stop(self) -> None:
        with suppress(RuntimeError):  # the loop may have ended already
            self._loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        self.begin_to_stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Send one request; give status, decoded body and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            raw = answer.read()
            is_json = answer.headers["content-type"] == "application/json"
            decoded = msgspec.json.decode(raw) if is_json else raw.decode()
            return answer.status, decoded, dict(answer.headers)
        finally:
            connection.close()

    def predict(
        self, body: Any, endpoint: str = "income", **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Send a body to predict, as JSON unless it is bytes."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        named = {"content-type": "application/json"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/v1/endpoints/{endpoint}/predict", data, **named)


def _bring_up() -> Iterator[Callable[..., Up]]:
    """Bring servers up; all are stopped at the end."""
    running: list[Up] = []

    def start(project: Project, limits: HttpLimits | None = None, **settings: Any) -> Up:
        running.append(Up(project, limits or HttpLimits(drain_s=5.0), **settings))
        return running[-1]

    yield start
    for server in running:
        server.stop()


up = pytest.fixture(_bring_up)
module_up = pytest.fixture(_bring_up, scope="module")


@pytest.fixture(scope="module")
def income(
    tmp_path_factory: pytest.TempPathFactory, make_loans: Callable[[Path], Any]
) -> Iterator[Up]:
    """A server that many tests share: nothing that they send may bring it down."""
    server = Up(make_loans(tmp_path_factory.mktemp("loans")).project, HttpLimits(drain_s=5.0))
    yield server
    server.stop()
