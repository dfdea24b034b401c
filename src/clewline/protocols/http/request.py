"""One request over HTTP, its answer, and the limits of both, whichever server received it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec

logger = logging.getLogger(__name__)

JSON = b"application/json"

STREAM_BYTES = 64 << 10
"""What a stream keeps for a caller who does not read, before it counts as full."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Sizes in bytes, times in seconds; `docs/errors.md` lists the errors beyond them."""

    head_bytes: int = 16 << 10  # request line and headers, and trailers
    body_bytes: int = 16 << 20
    buffered_bytes: int = 256 << 20  # bodies of all connections, until they are answered
    pipelined: int = 64  # unanswered requests of one connection
    connections: int = 16_384
    handshake_s: float = 10.0  # of TLS, from the start of the connection
    head_s: float = 10.0  # from the first byte to the end of the headers
    body_s: float = 60.0  # from there to the end of the body
    idle_s: float = 75.0  # between two requests
    write_s: float = 30.0  # time in which a caller must read something
    linger_s: float = 2.0  # reading after a refusal, so that the caller gets it
    drain_s: float = 30.0  # waiting for requests under way when the server stops


class HttpResponse(msgspec.Struct, frozen=True, gc=False):
    """A status, a body, and headers beside the usual ones."""

    status: int
    body: bytes = b""
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class HttpRefusal(Exception):
    """The server itself refuses a request; the connection ends after the answer."""

    def __init__(self, status: int, message: str, fix: str) -> None:
        super().__init__(status, message, fix)
        self.status, self.message, self.fix = status, message, fix


class HttpApplication(Protocol):
    """What a server calls, always on the loop's thread. No method may block."""

    def handle(self, request: HttpRequest) -> None:
        """Take a whole request; call `request.answer` once, now or later, on this thread."""

    def answered(self, request: HttpRequest) -> None:
        """Count and log a request that `handle` got, after its answer; called once."""

    def screen(self, request: HttpRequest) -> HttpResponse | None:
        """Return the refusal of a large body, by its head alone; None lets it in."""

    def admit(self, request: HttpRequest) -> HttpResponse | None:
        """Return the refusal of a request before `100 Continue` is sent; None admits it."""

    def refuse(self, request: HttpRequest, refusal: HttpRefusal) -> HttpResponse:
        """Return the answer to a request that the server refuses; much of it may be missing."""


class HttpRequest(msgspec.Struct, eq=False, kw_only=True):
    """
    One request. Each server has a class of its own, which takes the answer to the caller.

    A struct, because msgspec makes one in a fifth of the time of a class with `__init__`.
    """

    method: bytes = b""
    target: bytes = b""  # as it came: path and query
    version: str = "1.1"
    headers: dict[bytes, bytes] = {}  # names in lower case
    body: bytes = b""
    keep_alive: bool = True
    reply: HttpResponse | None = None
    stream: ResponseStream | None = None
    forwarded_for: str | None = None  # the caller's address, as a trusted proxy gave it
    # Noted by the application, for metrics and the access log.
    started: float = 0.0  # of `time.perf_counter`
    identity: str | None = None  # the id of the caller's token
    rows: int = 0  # that were answered
    first_id: bytes = b""  # of the first prediction, 16 bytes
    route: Any = None  # set by `HttpApplication.handle`
    is_handled: bool = False  # the route got it: access and method were right
    tried: bool = False  # its rows were made up to see the answer: statistics leave it out
    parsed_query: dict[str, str] | None = None

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the target's query; if one is repeated, its last value."""
        if self.parsed_query is None:
            text = self.target.partition(b"?")[2].decode("latin-1")
            self.parsed_query = dict(parse_qsl(text, keep_blank_values=True)) if text else {}
        return self.parsed_query

    @property
    def peer_address(self) -> str:
        """The caller's IP address, from a trusted proxy or from the connection."""
        return self.address if self.forwarded_for is None else self.forwarded_for

    @property
    def address(self) -> str:
        """The IP address of the connection; empty if it has none, as over a Unix socket."""
        raise NotImplementedError

    @property
    def is_full(self) -> bool:
        """Whether the caller has left so much unread that more should wait."""
        raise NotImplementedError

    def is_abandoned(self) -> bool:
        """Return whether the caller has gone, so that nobody would read an answer."""
        raise NotImplementedError

    def answer(self, response: HttpResponse) -> None:
        """Answer, once; it is sent after the answers to earlier requests of the connection."""
        assert self.reply is None, "a request is answered once"
        self.reply = response
        self.conclude()
        self.flush()

    def flush(self) -> None:
        """Send what has been answered so far."""
        raise NotImplementedError

    def conclude(self) -> None:
        """Have the application count and log a request that has its answer."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop the connection, so that the caller notices that the answer is incomplete."""
        raise NotImplementedError

    def start(self, head: HttpResponse) -> ResponseStream:
        """
        Begin an answer with a body in pieces.

        Args:
            head: Status, content type and headers; its body, if any, is the first piece.
        """
        assert self.reply is None, "a request is answered once"
        self.reply = head
        self.stream = stream = ResponseStream(self)
        if head.body:
            stream.send(head.body)
        else:
            self.flush()
        return stream


class ResponseStream:
    """
    The body of one answer, in pieces, on the loop's thread.

    Pieces leave in order, after the answers to earlier requests of the connection. If the
    caller has gone, pieces are dropped and nobody waits; `HttpRequest.is_abandoned` tells
    a producer to stop early.
    """

    __slots__ = ("_bytes", "_pieces", "_request", "_waiter", "begun", "ended", "sent_bytes")

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._waiter: Callable[[], None] | None = None
        self.begun = False  # its head has left
        self.ended = False
        self.sent_bytes = 0

    def send(self, data: bytes) -> bool:
        """Send a piece; return False if the next one should wait for `when_writable`."""
        assert not self.ended, "nothing is sent after the end"
        if self._request.is_abandoned() or not data:
            return True
        self._pieces.append(data)
        self._bytes += len(data)
        self.sent_bytes += len(data)
        self._request.flush()
        return not self._is_full

    def when_writable(self, then: Callable[[], None]) -> None:
        """Call `then` once, as soon as there is room or the caller has gone."""
        assert self._waiter is None, "one waits at a time"
        if self._is_full:
            self._waiter = then
        else:
            then()

    def end(self) -> None:
        """Complete the body."""
        assert not self.ended, "a stream ends once"
        self.ended = True
        try:
            self._request.conclude()
        finally:
            self._request.flush()

    def abort(self) -> None:
        """Drop the connection, so that the caller does not take half a body for a whole one."""
        if not self.ended:
            self.ended = True
            try:
                self._request.conclude()
            finally:
                self._request.abort()

    @property
    def _is_full(self) -> bool:
        request = self._request
        return not request.is_abandoned() and (self._bytes > STREAM_BYTES or request.is_full)

    # ---- for the server

    def take(self) -> deque[bytes]:
        """Return the pieces that were not sent yet."""
        pieces, self._pieces, self._bytes = self._pieces, deque(), 0
        return pieces

    def wake(self) -> None:
        """Call the waiting producer if there is room now or the caller has gone."""
        try:
            if self._waiter is not None and not self._is_full:
                waiter, self._waiter = self._waiter, None
                waiter()
        except Exception:
            logger.exception("a streamed answer could not go on")
            self.abort()
