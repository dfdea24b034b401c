"""
An HTTP/1.1 server on asyncio: strict about what comes in, in order about what goes out.

    bytes ─► Connection (parser, limits) ─► Application.handle(exchange)
    bytes ◄─ Connection (order, back-pressure) ◄─ exchange.answer(Response)

The application is plain callbacks on the loop's thread, no coroutine a request,
so that it can gather what arrived over all connections in one turn of the loop.
Parsing is llhttp's (through httptools), without its leniencies: a bare LF, a
folded header, a Content-Length beside a Transfer-Encoding or beside another
Content-Length are refused. What the parser leaves open is refused here: other
versions and codings, a missing Host, more than `Limits` allow.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
import time
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol, cast

import httptools
import msgspec

from fairlead.errors import Conflict

logger = logging.getLogger(__name__)

TICK_S = 0.25
"""How often deadlines are looked at; the clock that they are set by has this grain."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = b"application/json"
SINGLE = frozenset({b"host", b"content-type", b"expect", b"idempotency-key", b"authorization"})
"""Headers that must not come twice; others are joined by commas."""
STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller, and all callers together, may ask of the server."""

    head_bytes: int = 16 << 10  # request line and headers, and trailers
    body_bytes: int = 16 << 20
    buffered_bytes: int = 256 << 20  # bodies of all connections that are not answered yet
    pipelined: int = 64  # requests of one connection that are not answered yet
    connections: int = 8192
    head_s: float = 10.0  # from the first byte to the end of the headers
    body_s: float = 60.0  # from there to the end of the body
    idle_s: float = 75.0  # between two requests
    write_s: float = 30.0  # how long a caller may leave answers unread
    linger_s: float = 2.0  # how long we read on after a refusal, so that it is not lost
    drain_s: float = 30.0  # how long a stopping server waits for what is under way


class Response(msgspec.Struct, frozen=True, gc=False):
    """A status, a body, and headers beside the usual ones."""

    status: int
    body: bytes = b""
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Refused(Exception):
    """The server itself refuses a request; the connection ends after the answer."""

    def __init__(self, status: int, message: str, fix: str) -> None:
        super().__init__(status, message, fix)
        self.status, self.message, self.fix = status, message, fix


class Application(Protocol):
    """What the server calls, always on the loop's thread. None of it may block or raise."""

    def handle(self, exchange: Exchange) -> None:
        """Take a whole request; `exchange.answer` now or later, on this same thread, once."""

    def admit(self, exchange: Exchange) -> Response | None:
        """Judge a request by its head, when its caller waits for `100 Continue`. None: go on."""

    def refuse(self, refused: Refused) -> Response:
        """Give the answer to a request that the server refuses."""


class Peer(Protocol):
    """Where an exchange came from, and where its answer goes."""

    lost: bool  # nobody would read an answer

    def flush(self) -> None:
        """Send what has been answered."""


class Exchange:
    """One request, and the place to answer it."""

    __slots__ = (
        "_peer",
        "body",
        "headers",
        "keep_alive",
        "method",
        "reply",
        "target",
        "version",
    )

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.method = b""
        self.target = b""  # as it came: path and query
        self.version = "1.1"
        self.headers: dict[bytes, bytes] = {}  # names in lower case
        self.body: bytes = b""
        self.keep_alive = True
        self.reply: Response | None = None

    def is_abandoned(self) -> bool:
        """Tell that the caller has gone, so that nobody would read an answer."""
        return self._peer.lost

    def answer(self, response: Response) -> None:
        """Answer; it is sent as soon as all earlier requests of the connection are answered."""
        assert self.reply is None, "a request is answered once"
        self.reply = response
        self._peer.flush()


class HttpServer:
    """Listens on one address, owns its connections, and drains them when told to stop."""

    def __init__(self, application: Application, limits: Limits | None = None) -> None:
        self.application = application
        self.limits = limits or Limits()
        self.connections: set[Connection] = set()
        self.buffered_bytes = 0
        self.draining = False
        self.clock = time.monotonic()
        self.date = b""
        self._socket: socket.socket
        self._listener: asyncio.Server | None = None
        self._ticker: asyncio.TimerHandle | None = None

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """
        Take the address; callers wait in its queue until `start`.

        Returns:
            The port, which the system chose when `port` is 0.

        Raises:
            Conflict: Another process listens there.
        """
        self._socket = _listen(host, port)
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Begin to answer on the address that `listen` took."""
        loop = asyncio.get_running_loop()
        self._tick(loop)
        self._listener = await loop.create_server(lambda: Connection(self), sock=self._socket)

    async def drain(self) -> None:
        """Stop listening, answer what is under way, then close every connection."""
        self.draining = True
        if self._listener is not None:
            self._listener.close()
        until = time.monotonic() + self.limits.drain_s
        for connection in tuple(self.connections):
            connection.drain()
        while self.connections and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self.close()

    def close(self) -> None:
        """Let go of the address and of every connection, at once."""
        self._socket.close()
        for connection in tuple(self.connections):
            connection.abort()
        if self._ticker is not None:
            self._ticker.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self.clock = clock = time.monotonic()
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        for connection in [c for c in self.connections if c.deadline < clock]:
            connection.expire()
        self._ticker = loop.call_later(TICK_S, self._tick, loop)


class Connection(asyncio.Protocol):
    """
    One caller's connection: requests in, answers out in the order of the requests.

    It reads no further while `pipelined` requests, or more than a body's worth of
    bytes, wait for answers, or while the caller leaves answers unread.
    """

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.limits = server.limits
        self.deadline = math.inf
        self.lost = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._backlog: deque[Exchange] = deque()  # whole requests, not yet handed on
        self._waiting: deque[Exchange] = deque()  # handed on, and not yet sent an answer
        self._waiting_bytes = 0
        self._reading: Exchange | None = None  # the request that is coming in
        self._body: bytes | bytearray = b""  # pieces are joined as they come: each has overhead
        self._body_bytes = 0
        self._head_bytes = 0
        self._unparsed_bytes = 0  # fed since the last part of the request was complete
        self._in_head = False
        self._owes_continue = False
        self._deaf = False  # what still comes in is thrown away
        self._closing = False
        self._half_closed = False
        self._paused_reading = False
        self._paused_writing = False
        self._handing_on = False

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but class
        self.server.connections.add(self)
        self.deadline = self.server.clock + self.limits.idle_s
        if len(self.server.connections) > self.limits.connections:
            self._refuse(_too_many(self.limits.connections))

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        was_reading = self._reading
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError as error:
            self._refuse(_refusal_in(error))
        except httptools.HttpParserError as error:
            self._refuse(_not_http(error))
        else:
            if self._reading is not None and was_reading is self._reading:
                self._count_unparsed(len(data))

    def eof_received(self) -> bool:
        """Keep a half-closed connection for as long as answers are owed."""
        self._deaf = self._half_closed = True
        self._forget_request()
        return self._owes_answers

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.deadline = math.inf
        self.server.connections.discard(self)
        self._forget_request()
        self.server.buffered_bytes -= self._waiting_bytes
        self._waiting_bytes = 0
        self._waiting.clear()
        self._backlog.clear()

    def pause_writing(self) -> None:
        self._paused_writing = True
        self.deadline = self.server.clock + self.limits.write_s

    def resume_writing(self) -> None:
        self._paused_writing = False
        self.deadline = self._next_deadline()
        self._hand_on()

    # ---- the parser's side

    def on_message_begin(self) -> None:
        self._reading = Exchange(self)
        self._in_head = True
        self._head_bytes = self._unparsed_bytes = 0
        if not self._paused_writing:
            self.deadline = self.server.clock + self.limits.head_s

    def on_url(self, url: bytes) -> None:
        assert self._reading is not None
        self._reading.target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if not self._in_head:
            return  # a trailer: nothing here reads them
        assert self._reading is not None
        headers, name = self._reading.headers, name.lower()
        if name in headers:
            if name in SINGLE:
                raise Refused(400, f"The header {name.decode()} came twice.", "Send it once.")
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        exchange, parser = self._reading, self._parser
        assert exchange is not None
        self._in_head = False
        self._unparsed_bytes = 0
        exchange.method = parser.get_method()
        exchange.version = parser.get_http_version()
        exchange.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        headers = exchange.headers
        if exchange.version != "1.1" or b"host" not in headers:
            _check_version(exchange)
        if b"transfer-encoding" in headers:
            _check_coding(exchange)
        if (length := headers.get(b"content-length")) is not None:
            self._make_room(int(length.lstrip(b"0") or b"0"))  # int() reads 4,300 digits
        expectation = headers.get(b"expect")
        if expectation is not None and not parser.should_upgrade():
            self._expect(exchange, expectation)
        if not self._paused_writing:
            self.deadline = self.server.clock + self.limits.body_s

    def on_body(self, data: bytes) -> None:
        self._unparsed_bytes = 0
        self._make_room(self._body_bytes + len(data))
        self._body_bytes += len(data)
        self.server.buffered_bytes += len(data)
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data

    def on_message_complete(self) -> None:
        exchange = self._reading
        assert exchange is not None
        if self._is_offer():
            return  # `_feed` reads it again, with its body
        exchange.body = bytes(self._body)
        self._body = b""
        self._waiting_bytes += self._body_bytes
        self._body_bytes = 0
        self._reading = None
        self._owes_continue = False
        if not self._paused_writing:
            self.deadline = math.inf
        if not exchange.keep_alive:
            self._deaf = True
        if self._backlog or not self._has_room():
            self._backlog.append(exchange)
            self._hand_on()
        else:  # nearly always
            self._waiting.append(exchange)
            self._call_application(exchange)

    # ---- the application's side

    def flush(self) -> None:
        """Send every answer whose turn it is."""
        waiting = self._waiting
        if self.lost or not waiting or waiting[0].reply is None:
            return
        if len(waiting) == 1:  # nearly always
            exchange = waiting.popleft()
            self._transport.write(self._encode(exchange))
        else:
            parts = []
            while waiting and waiting[0].reply is not None:
                exchange = waiting.popleft()
                parts.append(self._encode(exchange))
            self._transport.write(b"".join(parts))
        if not exchange.keep_alive:
            self._close()
        elif not self._owes_answers:
            self._all_answered()
        if self._paused_reading:
            self._hand_on()

    # ---- the server's side

    def drain(self) -> None:
        """Close now when idle; else `Connection: close` goes out with the last answer."""
        if not self._owes_answers and self._reading is None:
            self._transport.close()

    def expire(self) -> None:
        """The deadline has passed: of a close, a stalled reader, an idle or a slow caller."""
        if self._closing or self._paused_writing:
            self.abort()
        elif self._reading is None:
            self._transport.close()
        else:
            self._refuse(_too_slow(self.limits, self._in_head))

    def abort(self) -> None:
        """Drop the connection with all that is in it."""
        self._transport.abort()

    # ---- helpers

    def _feed(self, data: bytes) -> None:
        """Parse; an offer to speak another protocol is passed over, as RFC 9110 allows."""
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._is_offer():
                    self._deaf = True  # what follows CONNECT is no HTTP
                    return
                # The parser has left out the body: clients that offer h2c send one.
                data = _without_upgrade(self._reading) + data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)

    def _is_offer(self) -> bool:
        return self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"

    @property
    def _owes_answers(self) -> bool:
        return bool(self._waiting or self._backlog)

    def _hand_on(self) -> None:
        """Give requests to the application, as far as their answers have room; then read on."""
        if self._handing_on:
            return  # called by an answer that was given at once: the loop below goes on
        self._handing_on = True
        while self._backlog and self._has_room():
            exchange = self._backlog.popleft()
            self._waiting.append(exchange)
            if exchange.reply is None:
                self._call_application(exchange)
            else:
                self.flush()  # a refusal, whose turn has come
        self._handing_on = False
        self._read_or_pause()

    def _has_room(self) -> bool:
        return (
            not self._paused_writing
            and len(self._waiting) < self.limits.pipelined
            and self._waiting_bytes <= self.limits.body_bytes
        )

    def _call_application(self, exchange: Exchange) -> None:
        try:
            self.server.application.handle(exchange)
        except Exception:
            logger.exception("a request could not be handled")
            exchange.keep_alive = False
            if exchange.reply is None:
                exchange.answer(self.server.application.refuse(_failed()))

    def _encode(self, exchange: Exchange) -> bytes:
        reply = exchange.reply
        assert reply is not None
        self._waiting_bytes -= len(exchange.body)
        self.server.buffered_bytes -= len(exchange.body)
        if (self._half_closed or self.server.draining) and not self._owes_answers:
            exchange.keep_alive = False
        extra = b""
        if reply.headers:
            extra = b"".join([b"%b: %b\r\n" % header for header in reply.headers])
        if not exchange.keep_alive:
            extra += b"connection: close\r\n"
        elif exchange.version == "1.0":
            extra += b"connection: keep-alive\r\n"
        return b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
            STATUS_LINES[reply.status],
            reply.content_type,
            len(reply.body),
            self.server.date,
            extra,
            b"" if exchange.method == b"HEAD" else reply.body,
        )

    def _all_answered(self) -> None:
        if self._owes_continue:
            self._owes_continue = False
            self._transport.write(CONTINUE)
        if self._reading is None and not self._paused_writing:
            self.deadline = self.server.clock + self.limits.idle_s

    def _next_deadline(self) -> float:
        if self._closing:
            unread = self._transport.get_write_buffer_size() > 0
            return self.server.clock + (self.limits.write_s if unread else self.limits.linger_s)
        if self._reading is not None:
            return self.server.clock + (self.limits.head_s if self._in_head else self.limits.body_s)
        return math.inf if self._owes_answers else self.server.clock + self.limits.idle_s

    def _read_or_pause(self) -> None:
        pause = (bool(self._backlog) or not self._has_room()) and not self._closing
        if pause == self._paused_reading or self.lost:
            return
        self._paused_reading = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.limits.head_bytes:
            raise _head_too_large(self.limits.head_bytes)

    def _count_unparsed(self, size: int) -> None:
        """Bound what the parser holds of a header, a chunk's extension or a trailer."""
        self._unparsed_bytes += size
        if self._unparsed_bytes > self.limits.head_bytes + size:
            self._refuse(_head_too_large(self.limits.head_bytes))

    def _make_room(self, body_bytes: int) -> None:
        limits = self.limits
        if body_bytes > limits.body_bytes:
            raise Refused(
                413,
                f"The body has {body_bytes} bytes or more; {limits.body_bytes} are allowed.",
                "Send the rows in several requests.",
            )
        if self.server.buffered_bytes - self._body_bytes + body_bytes > limits.buffered_bytes:
            raise Refused(
                503,
                f"Requests of {limits.buffered_bytes} bytes in all are being answered.",
                "Try again in a second.",
            )

    def _expect(self, exchange: Exchange, expectation: bytes) -> None:
        if expectation.lower() != b"100-continue":
            raise Refused(
                417, f"Expect: {expectation.decode('latin-1')} is not known.", "Leave it out."
            )
        if (refusal := self.server.application.admit(exchange)) is not None:
            raise _Refusal(refusal)
        if self._owes_answers:
            self._owes_continue = True
        else:
            self._transport.write(CONTINUE)

    def _refuse(self, refused: Refused) -> None:
        """Answer in turn, then end the connection: what follows cannot be told apart."""
        self._deaf = True
        exchange = self._reading or Exchange(self)
        exchange.keep_alive = False
        self._forget_request()
        if isinstance(refused, _Refusal):
            exchange.reply = refused.response
        else:
            exchange.reply = self.server.application.refuse(refused)
        self._backlog.append(exchange)
        self._hand_on()

    def _forget_request(self) -> None:
        self._reading = None
        self._body = b""
        self.server.buffered_bytes -= self._body_bytes
        self._body_bytes = 0

    def _close(self) -> None:
        """End our side; read on for a moment, since a reset would lose what we sent."""
        if self._closing:
            return
        self._closing = self._deaf = True
        self.deadline = self._next_deadline()
        if self._half_closed or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()
            self._read_or_pause()


class _Refusal(Refused):
    """A refusal whose answer the application has already given."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status, "", "")
        self.response = response


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    # REUSEADDR lets a restarted server have its port back at once; on Linux it
    # never lets two servers listen on one port, as REUSEPORT would.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise Conflict(
                f"Port {port} on {host} cannot be listened on: {error.strerror}.",
                "Stop the server that holds it, or choose another one with --port N.",
            ) from error
        raise
    listening.setblocking(False)
    return listening


def _without_upgrade(exchange: Exchange | None) -> bytes:
    """Write the head of a request anew, as if no other protocol had been offered."""
    assert exchange is not None
    headers = dict(exchange.headers)
    headers.pop(b"upgrade", None)
    options = [option.strip() for option in headers.pop(b"connection", b"").split(b",")]
    headers[b"connection"] = b", ".join(o for o in options if o.lower() != b"upgrade")
    lines = b"".join([b"%b: %b\r\n" % header for header in headers.items()])
    version = exchange.version.encode()
    return b"%b %b HTTP/%b\r\n%b\r\n" % (exchange.method, exchange.target, version, lines)


def _check_version(exchange: Exchange) -> None:
    if exchange.version not in ("1.0", "1.1"):
        raise Refused(505, f"HTTP/{exchange.version} is not spoken here.", "Use HTTP/1.1.")
    if exchange.version == "1.1":
        raise Refused(400, "The header host is missing.", "HTTP/1.1 requires it.")


def _check_coding(exchange: Exchange) -> None:
    coding = exchange.headers[b"transfer-encoding"].strip().lower()
    if exchange.version == "1.0":
        raise Refused(400, "HTTP/1.0 has no Transfer-Encoding.", "Send a Content-Length.")
    if coding != b"chunked":
        raise Refused(
            501,
            f"Transfer-Encoding: {coding.decode('latin-1')} is not decoded here.",
            "Send chunked, or a Content-Length.",
        )


def _refusal_in(error: httptools.HttpParserCallbackError) -> Refused:
    cause: Any = error.__context__
    if isinstance(cause, Refused):
        return cause
    logger.error("a request could not be read", exc_info=cause)
    return _failed()


def _failed() -> Refused:
    return Refused(500, "The server failed on this request.", "Its log has the reason.")


def _not_http(error: httptools.HttpParserError) -> Refused:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refused(400, "This is not an HTTP request.", "Speak HTTP/1.1, without TLS.")
    return Refused(400, f"This is not an HTTP/1.1 request: {error}.", "Mend the request.")


def _head_too_large(limit: int) -> Refused:
    return Refused(
        431, f"Request line and headers are over {limit} bytes.", "Send fewer or shorter ones."
    )


def _too_many(limit: int) -> Refused:
    return Refused(503, f"{limit} connections are open.", "Try again in a second.")


def _too_slow(limits: Limits, in_head: bool) -> Refused:
    part, allowed_s = ("headers", limits.head_s) if in_head else ("body", limits.body_s)
    return Refused(
        408, f"The {part} did not come whole within {allowed_s:g} s.", "Send the request at once."
    )
