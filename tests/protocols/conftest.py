"""A real server in a thread, and raw sockets to talk to it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import pytest
import uvloop

from fairlead.protocols.http import Exchange, HttpServer, Limits, Refused, Response


class Echo:
    """Answers with what it was asked; `/later` keeps its answers until `release` is called."""

    def __init__(self) -> None:
        self.kept: list[Exchange] = []
        self.handled = 0

    def handle(self, exchange: Exchange) -> None:
        self.handled += 1
        if exchange.target == b"/later":
            self.kept.append(exchange)
        elif exchange.target == b"/broken":
            raise ZeroDivisionError
        elif exchange.target.startswith(b"/large"):
            exchange.answer(Response(200, b"x" * int(exchange.target[6:]), b"text/plain"))
        else:
            exchange.answer(Response(200, self.echo(exchange)))

    def echo(self, exchange: Exchange) -> bytes:
        return msgspec.json.encode(
            {"target": exchange.target.decode(), "body": exchange.body.decode()}
        )

    def admit(self, exchange: Exchange) -> Response | None:
        return Response(404, b"{}") if exchange.target == b"/nowhere" else None

    def refuse(self, refused: Refused) -> Response:
        return Response(refused.status, msgspec.json.encode(refused.message))

    def release(
        self, order: Callable[[list[Exchange]], list[Exchange]] = lambda kept: kept
    ) -> None:
        for exchange in order(self.kept):
            exchange.answer(Response(200, self.echo(exchange)))
        self.kept = []


class Running:
    """A server on a thread of its own."""

    def __init__(self, limits: Limits) -> None:
        self.echo = Echo()
        self.server = HttpServer(self.echo, limits)
        self.port = 0
        self.loop: asyncio.AbstractEventLoop
        self._up = threading.Event()
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=uvloop.run, args=(self._main(),))
        self._thread.start()
        assert self._up.wait(5)

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
        assert done.wait(5)

    def begin_to_stop(self) -> None:
        with suppress(RuntimeError):  # the loop may have ended already
            self.loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        self.begin_to_stop()
        self._thread.join(10)
        assert not self._thread.is_alive()


class Caller:
    """A raw connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
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

    def ended(self) -> bool:
        """Tell that the server has ended the connection, with nothing more to read."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """Start servers with given limits; all are stopped at the end."""
    running: list[Running] = []

    def start(**limits: float) -> Running:
        running.append(Running(Limits(**limits)))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for server in running:
        server.call(server.echo.release)
        server.stop()


@pytest.fixture
def connect() -> Iterator[Callable[[Running], Caller]]:
    """Connect to servers; all connections are closed at the end."""
    callers: list[Caller] = []

    def start(server: Running) -> Caller:
        callers.append(Caller(server.port))
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
    running = Running(Limits())
    caller = Caller(running.port)
    yield caller
    caller.close()
    running.stop()
