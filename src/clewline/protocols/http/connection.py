"""
One HTTP/1.1 connection: strict about what comes in, in order about what goes out.

Parsing is llhttp's (through httptools), without its leniencies: a bare LF, a
folded header, a Content-Length beside a Transfer-Encoding or beside another
Content-Length are refused. What the parser leaves open is refused here: other
versions and codings, a Host that is missing or is none, more than `Limits` allow.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections import deque
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, cast

import httptools

from clewline.protocols.http.limits import HttpLimits
from clewline.protocols.http.request import (
    JSON,
    HttpApplication,
    HttpRefusal,
    HttpRequest,
    HttpResponse,
)

logger = logging.getLogger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SINGLE = frozenset({b"host", b"content-type", b"expect", b"idempotency-key", b"authorization"})
"""Headers that must not come twice; others are joined by commas."""
STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
SCREENED_BYTES = 64 << 10
"""A body over this size, or of unknown size, is let in only after its head was judged."""
CHUNKING = 8
"""How many times its bytes a body may take on the wire; chunks of one byte each take six."""
SLOW_BYTES = 32 << 10
"""What a caller must read within `Limits.write_s`, or all that there is."""
HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]*|\[[0-9A-Za-z:.%\-_~]+\])(?::[0-9]*)?")
KNOWN_HOSTS = 256
"""Spellings of Host that are remembered as right."""
KNOWN_HEADS = 1024
"""Heads of requests that are remembered with what the parser made of them."""
KNOWN_HEAD_BYTES = 1024
"""How long such a head may be."""
OK_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
"""How nearly all answers begin."""


class Transport(Protocol):
    """What a connection writes to: a transport of asyncio's, or TLS around one."""

    def write(self, data: bytes) -> None:
        """Send, without waiting."""

    def write_eof(self) -> None:
        """Send no more, and go on to read."""

    def close(self) -> None:
        """Send what was written, then end."""

    def abort(self) -> None:
        """End at once."""

    def pause_reading(self) -> None:
        """Give no data until `resume_reading`."""

    def resume_reading(self) -> None:
        """Give data again."""

    def get_write_buffer_size(self) -> int:
        """Tell how many bytes were not sent yet."""

    def get_extra_info(self, name: str) -> Any:
        """Give what is known of the connection, such as its `peername`."""


class RequestHead(NamedTuple):
    """What the parser made of the head of a request; the headers are not to be changed."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body_bytes: int


class ServerConnections:
    """What all connections of a server share, on the loop's thread."""

    def __init__(self, application: HttpApplication, limits: HttpLimits) -> None:
        self.application = application
        self.limits = limits
        self.connections: set[HttpConnection] = set()
        self.buffered_bytes = 0
        self.draining = False
        self.clock = time.monotonic()  # as of the latest tick
        self.date = b""  # a header
        self.hosts: set[bytes] = set()  # that were found right
        self.heads: dict[bytes, RequestHead] = {}  # bytes to the end of the head → what they say

    def remember(self, data: bytes, request: HttpRequest) -> None:
        """Keep what the head of a plain request says, if the request is all that `data` holds."""
        body_bytes = len(request.body)
        # Behind the first empty line stands the body and nothing else: it ended the head.
        end = data.find(b"\r\n\r\n") + 4
        if end > KNOWN_HEAD_BYTES or end + body_bytes != len(data) or not _is_plain(request):
            return
        if len(self.heads) >= KNOWN_HEADS:
            self.heads.clear()  # of callers whose heads all differ; the others come again
        self.heads[data[:end]] = RequestHead(
            request.method, request.target, request.headers, body_bytes
        )


class HttpConnection(asyncio.Protocol):
    """
    One caller's connection: requests in, answers out in the order of the requests.

    It reads no further while `pipelined` requests, or more than a body's worth of
    bytes, wait for answers, or while the caller leaves answers unread.
    """

    def __init__(self, shared: ServerConnections) -> None:
        self.shared = shared
        self.limits = shared.limits
        self.deadline = math.inf
        self.lost = False
        self._transport: Transport
        self._address: str | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._backlog: deque[HttpRequest] = deque()  # whole requests, not yet handed on
        self._waiting: deque[HttpRequest] = deque()  # handed on, and not yet sent an answer
        self._waiting_bytes = 0
        self._reading: HttpRequest | None = None  # the request that is coming in
        self._latest: HttpRequest | None = None  # that came in whole, while `data` is parsed
        self._body: bytes | bytearray = b""  # pieces are joined as they come: each has overhead
        self._body_bytes = 0
        self._head_bytes = 0
        self._unsent_bytes = 0  # when it was last looked at
        self._unparsed_bytes = 0  # fed since the last part of the request was complete
        self._fed_bytes = 0  # of the request, since the read that it began in
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
        self.begin(cast(Transport, transport))

    def begin(self, transport: Transport) -> None:
        """Take up a connection, over whatever transport it comes."""
        self._transport = transport
        self.shared.connections.add(self)
        self.deadline = self.shared.clock + self.limits.idle_s
        if len(self.shared.connections) > self.limits.connections:
            self._refuse(_too_many(self.limits.connections))

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        was_reading = self._reading
        if was_reading is None and self._knows(data):
            return
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError as error:
            self._refuse(_refusal_in(error))
        except httptools.HttpParserError as error:
            self._refuse(_not_http(error))
        else:
            if self._reading is not None:
                if was_reading is self._reading:
                    self._count_unparsed(len(data))
            elif was_reading is None and self._latest is not None:
                self.shared.remember(data, self._latest)
        self._latest = None

    def eof_received(self) -> bool:
        """Keep a half-closed connection for as long as answers are owed."""
        self._deaf = self._half_closed = True
        self._forget_request()
        return self._owes_answers

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.deadline = math.inf
        self.shared.connections.discard(self)
        self._forget_request()
        self._forget_answers()

    def pause_writing(self) -> None:
        self._paused_writing = True
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self.deadline = self.shared.clock + self.limits.write_s

    def resume_writing(self) -> None:
        self._paused_writing = False
        self.deadline = self._next_deadline()
        if self._waiting and (stream := self._waiting[0].stream) is not None:
            stream.wake()
        self._hand_on()

    # ---- the parser's side

    def on_message_begin(self) -> None:
        self._reading = HttpRequest(self)
        self._in_head = True
        self._head_bytes = self._unparsed_bytes = self._fed_bytes = 0
        if not self._paused_writing:
            self.deadline = self.shared.clock + self.limits.head_s

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
                raise HttpRefusal(400, f"The header {name.decode()} came twice.", "Send it once.")
            value = headers[name] + b", " + value
        headers[name] = value.strip(b" \t")  # llhttp leaves what stands behind it

    def on_headers_complete(self) -> None:
        request, parser = self._reading, self._parser
        assert request is not None
        self._in_head = False
        self._unparsed_bytes = 0
        request.method = parser.get_method()
        request.version = parser.get_http_version()
        request.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        headers = request.headers
        if request.version != "1.1" or b"host" not in headers:
            _check_version(request)
        elif headers[b"host"] not in self.shared.hosts:
            _check_host(headers[b"host"], self.shared.hosts)
        body_bytes = 0
        if b"transfer-encoding" in headers:
            _check_coding(request)
            body_bytes = SCREENED_BYTES + 1  # or more
        if (length := headers.get(b"content-length")) is not None:
            body_bytes = int(length.lstrip(b"0") or b"0")  # int() reads 4,300 digits
            self._make_room(body_bytes)
        expectation = headers.get(b"expect")
        if expectation is not None and not parser.should_upgrade():
            self._expect(request, expectation)
        elif body_bytes > SCREENED_BYTES:
            self._screen(request)
        if not self._paused_writing:
            self.deadline = self.shared.clock + self.limits.body_s

    def on_body(self, data: bytes) -> None:
        self._unparsed_bytes = 0
        self._make_room(self._body_bytes + len(data))
        self._body_bytes += len(data)
        self.shared.buffered_bytes += len(data)
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data

    def on_message_complete(self) -> None:
        request = self._reading
        assert request is not None
        if self._is_offer():
            return  # `_feed` reads it again, with its body
        request.body = bytes(self._body)
        self._body = b""
        self._body_bytes = 0
        self._reading = None
        self._latest = request
        self._owes_continue = False
        self._take(request)

    # ---- the application's side

    @property
    def address(self) -> str:
        """The caller's IP address."""
        if self._address is None:
            name = self._transport.get_extra_info("peername")
            self._address = str(name[0]) if isinstance(name, tuple) else ""
        return self._address

    @property
    def is_full(self) -> bool:
        """Tell that the caller leaves answers unread."""
        return self._paused_writing

    def flush(self) -> None:
        """Send every answer whose turn it is."""
        waiting = self._waiting
        if not waiting or waiting[0].reply is None:
            return
        if len(waiting) == 1 and waiting[0].stream is None:  # nearly always
            request = waiting.popleft()
            self._transport.write(self._encode(request))
        else:
            parts: list[bytes] = []
            while waiting and waiting[0].reply is not None:
                request = waiting[0]
                if request.stream is not None and not self._encode_stream(request, parts):
                    self._transport.write(b"".join(parts))
                    request.stream.wake()
                    return
                waiting.popleft()
                if request.stream is None:
                    parts.append(self._encode(request))
                if not request.keep_alive:
                    break
            self._transport.write(b"".join(parts))
        self._sent(request)

    def _sent(self, request: HttpRequest) -> None:
        """Go on after an answer that is whole."""
        if not request.keep_alive:
            self._close()
        elif not (self._waiting or self._backlog):
            self._all_answered()
        if self._paused_reading:
            self._hand_on()

    def restart_clock(self) -> None:
        """Count anew how long the caller may take for what it does now."""
        self.deadline = self._next_deadline()

    # ---- the server's side

    def drain(self) -> None:
        """Close now when idle; else `Connection: close` goes out with the last answer."""
        if not self._owes_answers and self._reading is None:
            self._transport.close()

    def expire(self) -> None:
        """The deadline has passed: of a close, a stalled reader, an idle or a slow caller."""
        if self._closing or self._paused_writing:
            if self._is_read_from():
                self.deadline = self.shared.clock + self.limits.write_s
            else:
                self.abort()
        elif self._reading is None:
            self._transport.close()
        else:
            self._refuse(_too_slow(self.limits, self._in_head))

    def abort(self) -> None:
        """Drop the connection with all that is in it."""
        self._transport.abort()

    def _is_read_from(self) -> bool:
        """Tell whether the caller took a fair amount of what was written, since the last look."""
        unsent = self._transport.get_write_buffer_size()
        before, self._unsent_bytes = self._unsent_bytes, unsent
        return unsent > 0 and before - unsent >= min(before, SLOW_BYTES)

    # ---- helpers

    def _knows(self, data: bytes) -> bool:
        """Take a whole request whose head came before, without the parser; tell whether it was."""
        shared = self.shared
        end = data.find(b"\r\n\r\n") + 4
        head = shared.heads.get(data[:end])
        if head is None or len(data) - end != head.body_bytes:
            return False
        if shared.buffered_bytes + head.body_bytes > self.limits.buffered_bytes:
            return False  # the parser's side refuses it
        shared.buffered_bytes += head.body_bytes
        request = HttpRequest(self)
        request.method, request.target, request.headers = head[:3]
        request.body = data[end:]
        self._take(request)
        return True

    def _take(self, request: HttpRequest) -> None:
        """Hand a whole request on, now or when its turn has come."""
        self._waiting_bytes += len(request.body)
        if not self._paused_writing:
            self.deadline = math.inf
        if not request.keep_alive:
            self._deaf = True
        if self._backlog or not self._has_room():
            self._backlog.append(request)
            self._hand_on()
        else:  # nearly always
            self._waiting.append(request)
            self._call_application(request)

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
            request = self._backlog.popleft()
            self._waiting.append(request)
            if request.reply is None:
                self._call_application(request)
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

    def _call_application(self, request: HttpRequest) -> None:
        try:
            self.shared.application.handle(request)
        except Exception:
            logger.exception("a request could not be handled")
            request.keep_alive = False
            if request.reply is None:
                request.answer(self.shared.application.refuse(request, _failed()))

    def _encode(self, request: HttpRequest) -> bytes:
        reply, shared = request.reply, self.shared
        assert reply is not None
        self._let_go_of_body(request)
        if (self._half_closed or shared.draining) and not self._owes_answers:
            request.keep_alive = False
        if reply.status == 200 and reply.content_type is JSON and _is_usual(request, reply):
            return b"%b%d\r\n%b\r\n%b" % (OK_JSON, len(reply.body), shared.date, reply.body)
        return b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
            STATUS_LINES[reply.status],
            reply.content_type,
            len(reply.body),
            shared.date,
            _extra(request, reply),
            b"" if request.method == b"HEAD" else reply.body,
        )

    def _encode_stream(self, request: HttpRequest, parts: list[bytes]) -> bool:
        """Add what there is of a streamed answer; tell whether it is whole now."""
        stream, reply = request.stream, request.reply
        assert stream is not None
        assert reply is not None
        chunked = request.version == "1.1"
        if not stream.begun:
            stream.begun = True
            if not chunked or self._is_last(request):
                request.keep_alive = False
                self._deaf = True
            parts.append(_stream_head(request, reply, self.shared.date, chunked))
        if request.method == b"HEAD":
            stream.take()
        elif chunked:
            for piece in stream.take():
                parts += (b"%x\r\n" % len(piece), piece, b"\r\n")
        else:
            parts += stream.take()
        if not stream.ended:
            return False
        if chunked and request.method != b"HEAD":
            parts.append(b"0\r\n\r\n")
        self._let_go_of_body(request)
        if self._is_last(request):
            request.keep_alive = False
        return True

    def _is_last(self, request: HttpRequest) -> bool:
        """Tell whether the connection is to end, and this is the last answer that it owes."""
        ends = self._half_closed or self.shared.draining
        return ends and self._waiting[-1] is request and not self._backlog

    def _let_go_of_body(self, request: HttpRequest) -> None:
        self._waiting_bytes -= len(request.body)
        self.shared.buffered_bytes -= len(request.body)

    def _all_answered(self) -> None:
        if self._owes_continue:
            self._owes_continue = False
            self._transport.write(CONTINUE)
        if self._reading is None and not self._paused_writing:
            self.deadline = self.shared.clock + self.limits.idle_s

    def _next_deadline(self) -> float:
        if self._closing:
            unread = self._transport.get_write_buffer_size() > 0
            return self.shared.clock + (self.limits.write_s if unread else self.limits.linger_s)
        if self._reading is not None:
            return self.shared.clock + (self.limits.head_s if self._in_head else self.limits.body_s)
        return math.inf if self._owes_answers else self.shared.clock + self.limits.idle_s

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
        """Bound what comes beside the body: headers, chunks' sizes and extensions, trailers."""
        self._unparsed_bytes += size
        self._fed_bytes += size
        aside = max(self._unparsed_bytes, self._fed_bytes - CHUNKING * self._body_bytes)
        if aside > self.limits.head_bytes + size:
            self._refuse(_head_too_large(self.limits.head_bytes))

    def _make_room(self, body_bytes: int) -> None:
        limits = self.limits
        if body_bytes > limits.body_bytes:
            raise HttpRefusal(
                413,
                f"The body has {body_bytes} bytes or more; {limits.body_bytes} are allowed.",
                "Send the rows in several requests.",
            )
        if self.shared.buffered_bytes - self._body_bytes + body_bytes > limits.buffered_bytes:
            raise HttpRefusal(
                503,
                f"Requests of {limits.buffered_bytes} bytes in all are being answered.",
                "Try again in a second.",
            )

    def _expect(self, request: HttpRequest, expectation: bytes) -> None:
        if expectation.lower() != b"100-continue":
            raise HttpRefusal(
                417, f"Expect: {expectation.decode('latin-1')} is not known.", "Leave it out."
            )
        if (refusal := self.shared.application.admit(request)) is not None:
            raise _Refusal(refusal)
        if self._owes_answers:
            self._owes_continue = True
        else:
            self._transport.write(CONTINUE)

    def _screen(self, request: HttpRequest) -> None:
        """Refuse a large body before it comes in, from whom the application does not take it."""
        if (refusal := self.shared.application.screen(request)) is not None:
            raise _Refusal(refusal)

    def _refuse(self, refused: HttpRefusal) -> None:
        """Answer in turn, then end the connection: what follows cannot be told apart."""
        self._deaf = True
        request = self._reading or HttpRequest(self)
        request.keep_alive = False
        self._forget_request()
        if isinstance(refused, _Refusal):
            request.reply = refused.response
        else:
            request.reply = self.shared.application.refuse(request, refused)
        self._backlog.append(request)
        self._hand_on()

    def _forget_request(self) -> None:
        self._reading = None
        self._body = b""
        self.shared.buffered_bytes -= self._body_bytes
        self._body_bytes = 0

    def _forget_answers(self) -> None:
        self.shared.buffered_bytes -= self._waiting_bytes
        self._waiting_bytes = 0
        owed = (*self._waiting, *self._backlog)
        self._waiting.clear()
        self._backlog.clear()
        for request in owed:
            if request.stream is not None:
                request.stream.wake()

    def _close(self) -> None:
        """End our side; read on for a moment, since a reset would lose what we sent."""
        if self._closing:
            return
        self._closing = self._deaf = True
        self._forget_answers()  # to what came after the last request, if anything did
        self.deadline = self._next_deadline()
        if self._half_closed:
            self._transport.close()
        else:
            self._transport.write_eof()
            self._read_or_pause()


class _Refusal(HttpRefusal):
    """A refusal whose answer the application has already given."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status, "", "")
        self.response = response


def _is_plain(request: HttpRequest) -> bool:
    """Tell whether the same head always means the same: nothing but a body of one size follows."""
    headers = request.headers
    return (
        request.keep_alive
        and request.version == "1.1"
        and len(request.body) <= SCREENED_BYTES
        and not headers.keys() & {b"expect", b"transfer-encoding", b"upgrade"}
    )


def _is_usual(request: HttpRequest, reply: HttpResponse) -> bool:
    """Tell whether an answer needs no headers beside the usual ones, and has its body."""
    return (
        request.keep_alive
        and not reply.headers
        and request.version == "1.1"
        and request.method != b"HEAD"
    )


def _without_upgrade(request: HttpRequest | None) -> bytes:
    """Write the head of a request anew, as if no other protocol had been offered."""
    assert request is not None
    headers = dict(request.headers)
    headers.pop(b"upgrade", None)
    options = [option.strip() for option in headers.pop(b"connection", b"").split(b",")]
    headers[b"connection"] = b", ".join(o for o in options if o.lower() != b"upgrade")
    lines = b"".join([b"%b: %b\r\n" % header for header in headers.items()])
    version = request.version.encode()
    return b"%b %b HTTP/%b\r\n%b\r\n" % (request.method, request.target, version, lines)


def _extra(request: HttpRequest, reply: HttpResponse) -> bytes:
    """Write an answer's own headers, and whether the connection stays."""
    extra = b""
    if reply.headers:
        extra = b"".join([b"%b: %b\r\n" % header for header in reply.headers])
    if not request.keep_alive:
        extra += b"connection: close\r\n"
    elif request.version == "1.0":
        extra += b"connection: keep-alive\r\n"
    return extra


def _stream_head(request: HttpRequest, reply: HttpResponse, date: bytes, chunked: bool) -> bytes:
    return b"%bcontent-type: %b\r\n%b%b%b\r\n" % (
        STATUS_LINES[reply.status],
        reply.content_type,
        b"transfer-encoding: chunked\r\n" if chunked else b"",
        date,
        _extra(request, reply),
    )


def _check_host(host: bytes, known: set[bytes]) -> None:
    """Refuse a Host that names none (RFC 9112, 3.2); remember one that is right."""
    if HOST.fullmatch(host) is None:
        raise HttpRefusal(400, "The header host names no host.", "Send host, or host:port.")
    if len(known) < KNOWN_HOSTS:
        known.add(host)


def _check_version(request: HttpRequest) -> None:
    if request.version not in ("1.0", "1.1"):
        raise HttpRefusal(505, f"HTTP/{request.version} is not spoken here.", "Use HTTP/1.1.")
    if request.version == "1.1":
        raise HttpRefusal(400, "The header host is missing.", "HTTP/1.1 requires it.")


def _check_coding(request: HttpRequest) -> None:
    coding = request.headers[b"transfer-encoding"].strip().lower()
    if request.version == "1.0":
        raise HttpRefusal(400, "HTTP/1.0 has no Transfer-Encoding.", "Send a Content-Length.")
    if coding != b"chunked":
        raise HttpRefusal(
            501,
            f"Transfer-Encoding: {coding.decode('latin-1')} is not decoded here.",
            "Send chunked, or a Content-Length.",
        )


def _refusal_in(error: httptools.HttpParserCallbackError) -> HttpRefusal:
    cause: Any = error.__context__
    if isinstance(cause, HttpRefusal):
        return cause
    logger.error("a request could not be read", exc_info=cause)
    return _failed()


def _failed() -> HttpRefusal:
    return HttpRefusal(500, "The server failed on this request.", "Its log has the reason.")


def _not_http(error: httptools.HttpParserError) -> HttpRefusal:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return HttpRefusal(400, "This is not an HTTP request.", "Speak HTTP/1.1, without TLS.")
    return HttpRefusal(400, f"This is not an HTTP/1.1 request: {error}.", "Mend the request.")


def _head_too_large(limit: int) -> HttpRefusal:
    return HttpRefusal(
        431, f"Request line and headers are over {limit} bytes.", "Send fewer or shorter ones."
    )


def _too_many(limit: int) -> HttpRefusal:
    return HttpRefusal(503, f"{limit} connections are open.", "Try again in a second.")


def _too_slow(limits: HttpLimits, in_head: bool) -> HttpRefusal:
    part, allowed_s = ("headers", limits.head_s) if in_head else ("body", limits.body_s)
    return HttpRefusal(
        408, f"The {part} did not come whole within {allowed_s:g} s.", "Send the request at once."
    )
