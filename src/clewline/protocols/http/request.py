"""One request over HTTP and the place to answer it, whatever server stands around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec

JSON = b"application/json"

STREAM_BYTES = 64 << 10
"""What a stream keeps for a caller that does not read, before it says that it is full."""


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
    """What a server calls, always on the loop's thread. None of it may block or raise."""

    def handle(self, request: HttpRequest) -> None:
        """Take a whole request; `request.answer` now or later, on this same thread, once."""

    def screen(self, request: HttpRequest) -> HttpResponse | None:
        """Judge by the head whether a large body may come in at all. None: it may."""

    def admit(self, request: HttpRequest) -> HttpResponse | None:
        """Judge a request by its head, when its caller waits for `100 Continue`. None: go on."""

    def refuse(self, request: HttpRequest, refused: HttpRefusal) -> HttpResponse:
        """Give the answer to a request that the server refuses; much of it may be missing."""


class RequestPeer(Protocol):
    """Where an request came from, and where its answer goes."""

    lost: bool  # nobody would read an answer

    @property
    def address(self) -> str:
        """The caller's IP address; empty where there is none, as over a socket of files."""

    @property
    def is_full(self) -> bool:
        """Tell that the caller has left so much unread that more should wait."""

    def flush(self) -> None:
        """Send what has been answered."""

    def abort(self) -> None:
        """Drop the connection, so that the caller notices that its answer is cut off."""


class HttpRequest:
    """One request, and the place to answer it."""

    __slots__ = (
        "_forwarded",
        "_peer",
        "_query",
        "body",
        "first_id",
        "headers",
        "identity",
        "keep_alive",
        "method",
        "reply",
        "route",
        "rows",
        "settled",
        "started",
        "stream",
        "target",
        "version",
    )

    def __init__(self, peer: RequestPeer) -> None:
        self._peer = peer
        self._query: dict[str, str] | None = None
        self._forwarded: str | None = None
        self.method = b""
        self.target = b""  # as it came: path and query
        self.version = "1.1"
        self.headers: dict[bytes, bytes] = {}  # names in lower case
        self.body: bytes = b""
        self.keep_alive = True
        self.reply: HttpResponse | None = None
        self.stream: ResponseStream | None = None
        # What the application notes on the way, for metrics and the access log.
        self.started = 0.0  # of `time.perf_counter`
        self.identity: str | None = None  # the id of the token that was shown
        self.rows = 0  # that were answered
        self.first_id = b""  # of the first prediction, 16 bytes
        self.route: Any = None  # where the application sent it
        self.settled: Callable[[HttpRequest], None] | None = None  # called once, after the answer

    @property
    def query(self) -> dict[str, str]:
        """The parameters after the `?` of the target; of one that comes twice, the last."""
        if self._query is None:
            text = self.target.partition(b"?")[2].decode("latin-1")
            self._query = dict(parse_qsl(text, keep_blank_values=True)) if text else {}
        return self._query

    @property
    def peer_address(self) -> str:
        """The caller's IP address, as a trusted proxy gave it or as the connection has it."""
        return self._peer.address if self._forwarded is None else self._forwarded

    def came_for(self, address: str) -> None:
        """Say for whom a trusted proxy asks."""
        self._forwarded = address

    def is_abandoned(self) -> bool:
        """Tell that the caller has gone, so that nobody would read an answer."""
        return self._peer.lost

    def answer(self, response: HttpResponse) -> None:
        """Answer; it is sent as soon as all earlier requests of the connection are answered."""
        assert self.reply is None, "a request is answered once"
        self.reply = response
        if self.settled is not None:
            self.settled(self)
        self._peer.flush()

    def start(self, head: HttpResponse) -> ResponseStream:
        """
        Begin an answer whose body comes in pieces.

        Args:
            head: Status, content type and headers; its body, if any, is the first piece.
        """
        assert self.reply is None, "a request is answered once"
        self.reply = head
        self.stream = stream = ResponseStream(self, self._peer)
        if head.body:
            stream.send(head.body)
        else:
            self._peer.flush()
        return stream


class ResponseStream:
    """
    The body of one answer, in pieces, on the loop's thread.

    Pieces leave in order, after the answers to earlier requests of the connection.
    When the caller has gone, pieces are thrown away and nobody has to wait:
    `Exchange.is_abandoned` tells whoever wants to stop early.
    """

    __slots__ = (
        "_bytes",
        "_peer",
        "_pieces",
        "_request",
        "_waiter",
        "begun",
        "ended",
        "sent_bytes",
    )

    def __init__(self, request: HttpRequest, peer: RequestPeer) -> None:
        self._request = request
        self._peer = peer
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._waiter: Callable[[], None] | None = None
        self.begun = False  # its head has left
        self.ended = False
        self.sent_bytes = 0

    def send(self, data: bytes) -> bool:
        """
        Send a piece of any size.

        Returns:
            Whether there is room for more; if not, the next piece should wait for
            `when_writable`.
        """
        assert not self.ended, "nothing is sent after the end"
        if self._peer.lost or not data:
            return True
        self._pieces.append(data)
        self._bytes += len(data)
        self.sent_bytes += len(data)
        self._peer.flush()
        return not self._is_full

    def when_writable(self, then: Callable[[], None]) -> None:
        """Call back once, now or later, as soon as there is room or the caller has gone."""
        assert self._waiter is None, "one waits at a time"
        if self._is_full:
            self._waiter = then
        else:
            then()

    def end(self) -> None:
        """Say that the body is whole."""
        assert not self.ended, "a stream ends once"
        self.ended = True
        if self._request.settled is not None:
            self._request.settled(self._request)
        self._peer.flush()

    def abort(self) -> None:
        """Give up: the connection is dropped, so that the caller takes no half for a whole."""
        if self.ended:
            return
        self.ended = True
        if self._request.settled is not None:
            self._request.settled(self._request)
        self._peer.abort()

    @property
    def _is_full(self) -> bool:
        return not self._peer.lost and (self._bytes > STREAM_BYTES or self._peer.is_full)

    # ---- for the peer

    def take(self) -> deque[bytes]:
        """Give the pieces that were not sent yet."""
        pieces, self._pieces, self._bytes = self._pieces, deque(), 0
        return pieces

    def wake(self) -> None:
        """Call whoever waits, if there is room now or the caller has gone."""
        if self._waiter is not None and not self._is_full:
            waiter, self._waiter = self._waiter, None
            waiter()
