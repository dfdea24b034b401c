"""
One HTTP/1.1 connection: strict about what comes in, in order about what goes out.

    data_received ─► request ─► application.handle … request.answer ─► flush

llhttp parses (through httptools), without its leniencies: it refuses a bare LF, a folded
header, and a Content-Length beside a Transfer-Encoding or another Content-Length. What the
parser allows is refused here: two spaces in a request line, other versions and codings, a
missing or malformed Host, and anything beyond `HttpLimits`.

Source:
    RFC 9110 (HTTP semantics) and RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections import deque
from contextlib import suppress
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, cast

import httptools

from clewline.protocols.http.request import (
    JSON,
    HttpApplication,
    HttpLimits,
    HttpRefusal,
    HttpRequest,
    HttpResponse,
)

logger = logging.getLogger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SINGLE = frozenset({b"host", b"content-type", b"expect", b"idempotency-key", b"authorization"})
"""Headers that must not be repeated; other repeated headers are joined by commas."""
STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
SCREENED_BYTES = 64 << 10
"""A body over this size, or of unknown size, is admitted by the request's head first."""
CHUNKING = 8
"""Maximum bytes on the wire for each byte of a body; chunks of one byte take six."""
SLOW_BYTES = 32 << 10
"""Bytes that a caller must read within `HttpLimits.write_s`, unless fewer are left."""
HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]*|\[[0-9A-Za-z:.%\-_~]+\])(?::[0-9]*)?")
MAX_REQUESTS_A_TURN = 64
"""Requests of one connection that are handled in one turn of the loop; others wait for the next."""
MAX_KNOWN_HOSTS = 256
MAX_KNOWN_HEADS = 1024
MAX_KNOWN_HEAD_BYTES = 1024
HEAD_END = b"\r\n\r\n"
"""The end of a head, and of a chunked body."""
OK_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
"""The beginning of nearly all answers."""


class Transport(Protocol):
    """A transport of asyncio, or the TLS layer around one."""

    def write(self, data: bytes) -> None: ...

    def write_eof(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int: ...

    def get_extra_info(self, name: str) -> Any: ...


class RequestHead(NamedTuple):
    """The parsed head of a request; its headers must not be changed."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body_bytes: int


class ServerConnections:
    """The state that all connections of a server share, on the loop's thread."""

    def __init__(self, application: HttpApplication, limits: HttpLimits) -> None:
        self.application = application
        self.limits = limits
        self.connections: set[HttpConnection] = set()
        self.buffered_bytes = 0
        self.draining = False
        self.clock = time.monotonic()  # as of the latest tick
        self.date = b""  # a header
        self.hosts: set[bytes] = set()  # values of Host that are well-formed
        self.heads: dict[bytes, RequestHead] = {}  # bytes of a head → parsed


class ReceivedRequest(HttpRequest):
    """A request that came over an `HttpConnection`."""

    connection: HttpConnection

    @property
    def address(self) -> str:
        return self.connection.address

    @property
    def is_full(self) -> bool:
        return self.connection.is_full

    def is_abandoned(self) -> bool:
        return self.connection.lost

    def answer(self, response: HttpResponse) -> None:
        # As the base class does, without its calls: every request comes here.
        assert self.reply is None, "a request is answered once"
        self.reply = response
        try:
            self.conclude()
            self.connection.flush()
        except Exception:
            self._end_connection()

    def conclude(self) -> None:
        try:
            self.connection.shared.application.answered(self)
        except Exception:  # the answer leaves nevertheless
            logger.exception("a request could not be counted and logged")

    def flush(self) -> None:
        try:
            self.connection.flush()
        except Exception:
            self._end_connection()

    def abort(self) -> None:
        self.connection.abort()

    def _end_connection(self) -> None:
        """Drop the connection, so that nobody waits for an answer that cannot be sent."""
        logger.exception("an answer could not be sent")
        self.connection.abort()


class HttpConnection(asyncio.Protocol):
    """
    One caller's connection: requests in, answers out in the order of the requests.

    It stops reading while `pipelined` requests, or more bytes than a body may have, wait
    for answers, and while the caller leaves answers unread.
    """

    def __init__(self, shared: ServerConnections) -> None:
        self.shared = shared
        self.limits = shared.limits
        self.deadline = math.inf
        self.lost = False
        self.address = ""  # the caller's IP address
        self.is_full = False  # the caller leaves answers unread
        self._transport: Transport
        self._parser = httptools.HttpRequestParser(self)
        self._backlog: deque[HttpRequest] = deque()  # whole requests, not handled yet
        self._waiting: deque[HttpRequest] = deque()  # handled, not answered yet
        self._waiting_bytes = 0
        self._reading: ReceivedRequest | None = None  # the request that is coming in
        self._latest: HttpRequest | None = None  # completed by the data that is being parsed
        self._body: bytes | bytearray = b""  # pieces are joined at once: each has overhead
        self._body_bytes = 0
        self._head_bytes = 0
        self._unsent_bytes = 0  # at the latest check
        self._unparsed_bytes = 0  # fed since the last complete part of the request
        self._fed_bytes = 0  # of the request, since the read that it began in
        self._in_head = False
        self._length: int | None = 0  # of the body; None if it is chunked
        self._line: bytes | None = b""  # the request line so far; None when it was checked
        self._tail = b""  # the last bytes that came, in which the end of a head may begin
        self._owes_continue = False
        self._ignores_input = False  # further input is dropped
        self._closing = False
        self._half_closed = False
        self._paused_reading = False
        self._handling = False
        self._handled = 0  # requests, since the data of this turn came
        self._goes_on = False  # the next turn handles more

    # ---- input: from bytes to requests

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.begin(cast(Transport, transport))

    def begin(self, transport: Transport) -> None:
        """Start on a transport: of asyncio, or the TLS layer."""
        self._transport = transport
        with suppress(OSError):  # it is closed already
            # Asked now, because a transport that was reset has no address any more.
            name = transport.get_extra_info("peername")
            self.address = str(name[0]) if isinstance(name, tuple) else ""
        self.shared.connections.add(self)
        self.deadline = self.shared.clock + self.limits.idle_s
        if len(self.shared.connections) > self.limits.connections:
            limit = self.limits.connections
            self._refuse(
                HttpRefusal(503, f"{limit} connections are open.", "Try again in a second.")
            )

    def data_received(self, data: bytes) -> None:
        """Parse, and handle every request that is whole."""
        if self._ignores_input:
            return
        self._handled = 0
        was_reading, shared = self._reading, self.shared
        if was_reading is None:
            # A head that came before needs no parser.
            end = data.find(HEAD_END) + 4
            head = shared.heads.get(data[:end])
            if (
                head is not None
                and len(data) - end == head.body_bytes
                and shared.buffered_bytes + head.body_bytes <= self.limits.buffered_bytes
            ):
                shared.buffered_bytes += head.body_bytes
                self._take(
                    ReceivedRequest(
                        connection=self,
                        method=head.method,
                        target=head.target,
                        headers=head.headers,
                        body=data[end:],
                    )
                )
                return
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as error:
            refusal: Any = error.__context__
            if not isinstance(refusal, HttpRefusal):
                logger.error("a request could not be read", exc_info=refusal)
                refusal = _failed()
            self._refuse(refusal)
        except HttpRefusal as refusal:
            self._refuse(refusal)
        except httptools.HttpParserInvalidMethodError:
            self._refuse(
                HttpRefusal(400, "This is not an HTTP request.", "Use HTTP/1.1, without TLS.")
            )
        except httptools.HttpParserError as error:
            reason = f"This is not a valid HTTP/1.1 request: {error}."
            self._refuse(HttpRefusal(400, reason, "Correct the request."))
        else:
            if self._reading is not None:
                if was_reading is self._reading:
                    # Limit the bytes beside the body: headers, chunk sizes, trailers.
                    self._unparsed_bytes += len(data)
                    self._fed_bytes += len(data)
                    past_body = self._fed_bytes - CHUNKING * self._body_bytes
                    aside = max(self._unparsed_bytes, past_body)
                    if aside > self.limits.head_bytes + len(data):
                        self._refuse(_head_too_large(self.limits.head_bytes))
            elif was_reading is None and self._latest is not None:
                self._remember_head(data, self._latest)
        self._latest = None

    def _parse(self, data: bytes) -> None:
        """
        Parse, one message after the other, so that the start of each is known.

        An offer to upgrade the protocol is ignored, as RFC 9110 (7.8) allows.
        """
        at, tail, self._tail = 0, self._tail, (self._tail + data[-3:])[-3:]
        while at < len(data):
            end = self._part_end(data, at, tail)
            part, at, tail = data[at:end], end, b""
            self._check_request_line(part)
            try:
                self._parser.feed_data(part)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._is_offer():
                    self._ignores_input = True  # what follows CONNECT is not HTTP
                    return
                # The parser left out the body, which clients that offer h2c send: parse again.
                request = self._reading
                assert request is not None
                headers = dict(request.headers)
                headers.pop(b"upgrade", None)
                options = [each.strip() for each in headers.pop(b"connection", b"").split(b",")]
                headers[b"connection"] = b", ".join(o for o in options if o.lower() != b"upgrade")
                lines = b"".join([b"%b: %b\r\n" % header for header in headers.items()])
                version = request.version.encode()
                head = b"%b %b HTTP/%b\r\n%b\r\n" % (request.method, request.target, version, lines)
                data, at = head + part[upgrade.args[0] :] + data[at:], 0
                self._reading = None
                self._parser = httptools.HttpRequestParser(self)

    def _part_end(self, data: bytes, at: int, tail: bytes) -> int:
        """Return how far the parser may read without passing over the end of a message."""
        if self._reading is not None and not self._in_head and self._length is not None:
            return max(at + 1, at + self._length - self._body_bytes)
        # The end may have begun in the data before, of which `tail` is left.
        if (found := (tail + data[at : at + 3]).find(HEAD_END)) >= 0:
            return at + found + 4 - len(tail)
        found = data.find(HEAD_END, at)
        return len(data) if found < 0 else found + 4

    def _check_request_line(self, part: bytes) -> None:
        """Refuse two spaces, which the parser allows: other servers may read another target."""
        if self._reading is None:
            self._line = b""
        if self._line is not None:
            line, end, _ = (self._line + part).lstrip(b"\r\n").partition(b"\n")
            if b"  " in line:
                reason = "The request line has two spaces in a row."
                raise HttpRefusal(400, reason, "Send one, as RFC 9112 (3) writes.")
            self._line = None if end else line

    def _is_offer(self) -> bool:
        return self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"

    def on_message_begin(self) -> None:
        self._reading = ReceivedRequest(connection=self)
        self._in_head = True
        self._head_bytes = self._unparsed_bytes = self._fed_bytes = 0
        if not self.is_full:
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
                raise HttpRefusal(
                    400, f"The header {name.decode()} is repeated.", "Send it only once."
                )
            value = headers[name] + b", " + value
        headers[name] = value.strip(b" \t")  # llhttp leaves spaces behind it

    def on_headers_complete(self) -> None:
        request, parser = self._reading, self._parser
        assert request is not None
        self._in_head = False
        self._unparsed_bytes = 0
        request.method = parser.get_method()
        request.version = parser.get_http_version()
        request.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        body_bytes = self._check_head(request)
        expectation = request.headers.get(b"expect")
        refusal = None
        if expectation is not None and not parser.should_upgrade():
            if expectation.lower() != b"100-continue":
                raise HttpRefusal(
                    417,
                    f"Expect: {expectation.decode('latin-1')} is not supported.",
                    "Leave the header out.",
                )
            refusal = self.shared.application.admit(request)
            if refusal is None and (self._waiting or self._backlog):
                self._owes_continue = True
            elif refusal is None:
                self._transport.write(CONTINUE)
        elif body_bytes > SCREENED_BYTES:
            refusal = self.shared.application.screen(request)
        if refusal is not None:
            raise _AnsweredRefusal(refusal)
        if not self.is_full:
            self.deadline = self.shared.clock + self.limits.body_s

    def _check_head(self, request: HttpRequest) -> int:
        """Refuse what the parser allows; return the size of the body, a large one if unknown."""
        headers, hosts = request.headers, self.shared.hosts
        if request.version not in ("1.0", "1.1"):
            raise HttpRefusal(505, f"HTTP/{request.version} is not supported.", "Use HTTP/1.1.")
        host = headers.get(b"host")
        if host is None:
            if request.version == "1.1":
                raise HttpRefusal(400, "The header host is missing.", "HTTP/1.1 requires it.")
        elif host not in hosts:
            if HOST.fullmatch(host) is None:  # RFC 9112, 3.2
                raise HttpRefusal(400, "The header host is not valid.", "Send host, or host:port.")
            if len(hosts) < MAX_KNOWN_HOSTS:
                hosts.add(host)
        self._length = body_bytes = 0
        if (coding := headers.get(b"transfer-encoding")) is not None:
            if request.version == "1.0":
                raise HttpRefusal(
                    400, "HTTP/1.0 has no Transfer-Encoding.", "Send a Content-Length."
                )
            if coding.strip().lower() != b"chunked":
                raise HttpRefusal(
                    501,
                    f"Transfer-Encoding: {coding.decode('latin-1')} is not supported.",
                    "Send chunked, or a Content-Length.",
                )
            self._length, body_bytes = None, SCREENED_BYTES + 1  # or more
        if (length := headers.get(b"content-length")) is not None:
            # int() refuses over 4,300 digits.
            self._length = body_bytes = int(length.lstrip(b"0") or b"0")
            self._make_room(body_bytes)
        return body_bytes

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
            return  # `_parse` reads it again, with its body
        request.body = bytes(self._body)
        self._body = b""
        self._body_bytes = 0
        self._reading = None
        self._latest = request
        self._owes_continue = False
        self._take(request)

    def _remember_head(self, data: bytes, request: HttpRequest) -> None:
        """Keep the parsed head of a request that is all of `data`, if it always means the same."""
        shared, body_bytes = self.shared, len(request.body)
        # Behind the first empty line stands the body and nothing else: it ended the head.
        end = data.find(HEAD_END) + 4
        if (
            end <= MAX_KNOWN_HEAD_BYTES
            and end + body_bytes == len(data)
            and body_bytes <= SCREENED_BYTES
            and request.keep_alive
            and request.version == "1.1"
            and not request.headers.keys() & {b"expect", b"transfer-encoding", b"upgrade"}
        ):
            if len(shared.heads) >= MAX_KNOWN_HEADS:
                shared.heads.clear()  # callers whose heads all differ; the others come again
            shared.heads[data[:end]] = RequestHead(
                request.method, request.target, request.headers, body_bytes
            )

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.limits.head_bytes:
            raise _head_too_large(self.limits.head_bytes)

    def _make_room(self, body_bytes: int) -> None:
        limits = self.limits
        if body_bytes > limits.body_bytes:
            raise HttpRefusal(
                413,
                f"The body has {body_bytes} bytes or more; the limit is {limits.body_bytes}.",
                "Send the rows in several requests.",
            )
        if self.shared.buffered_bytes - self._body_bytes + body_bytes > limits.buffered_bytes:
            raise HttpRefusal(
                503,
                f"The server holds its limit of {limits.buffered_bytes} bytes of requests.",
                "Try again in a second.",
            )

    # ---- requests: to the application, one after the other

    def _take(self, request: HttpRequest) -> None:
        """Have a whole request handled, now or when its turn has come."""
        self._waiting_bytes += len(request.body)
        if not self.is_full:
            self.deadline = math.inf
        if not request.keep_alive:
            self._ignores_input = True
        if self._backlog or not self._has_room():
            self._backlog.append(request)
            self._handle_backlog()
        else:  # nearly always
            self._waiting.append(request)
            self._handled += 1
            self._handle(request)

    def _handle(self, request: HttpRequest) -> None:
        try:
            self.shared.application.handle(request)
        except Exception:
            logger.exception("a request could not be handled")
            request.keep_alive = False
            if request.reply is None:
                request.answer(self.shared.application.refuse(request, _failed()))

    def _handle_backlog(self) -> None:
        """Handle requests as long as their answers have room; then read on, or pause."""
        if self._handling:
            return  # called by an answer that was given at once: the loop below goes on
        self._handling = True
        while self._backlog and self._has_room():
            request = self._backlog.popleft()
            self._waiting.append(request)
            self._handled += 1
            if request.reply is None:
                self._handle(request)
            else:
                self.flush()  # a refusal, which waited for its turn
        self._handling = False
        self._pause_or_read()
        if self._backlog and self._handled >= MAX_REQUESTS_A_TURN and not self._goes_on:
            self._goes_on = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on, self._handled = False, 0
        self._handle_backlog()

    def _has_room(self) -> bool:
        return (
            not self.is_full
            and self._handled < MAX_REQUESTS_A_TURN
            and len(self._waiting) < self.limits.pipelined
            and self._waiting_bytes <= self.limits.body_bytes
        )

    def _pause_or_read(self) -> None:
        pause = (bool(self._backlog) or not self._has_room()) and not self._closing
        if pause == self._paused_reading or self.lost:
            return
        self._paused_reading = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _refuse(self, refusal: HttpRefusal) -> None:
        """Answer in turn, then end the connection: where the next request begins is unknown."""
        self._ignores_input = True
        request: HttpRequest = self._reading or ReceivedRequest(connection=self)
        request.keep_alive = False
        self._drop_request()
        if isinstance(refusal, _AnsweredRefusal):
            request.reply = refusal.response
        else:
            request.reply = self.shared.application.refuse(request, refusal)
        self._backlog.append(request)
        self._handle_backlog()

    # ---- output: from answers to bytes

    def flush(self) -> None:
        """Send every answer that is next in turn."""
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
        if not request.keep_alive:
            self._close()
        elif not (waiting or self._backlog):
            if self._owes_continue:
                self._owes_continue = False
                self._transport.write(CONTINUE)
            if self._reading is None and not self.is_full:
                self.deadline = self.shared.clock + self.limits.idle_s
        if self._paused_reading:
            self._handle_backlog()

    def _encode(self, request: HttpRequest) -> bytes:
        reply, shared = request.reply, self.shared
        assert reply is not None
        size = len(request.body)
        self._waiting_bytes -= size
        shared.buffered_bytes -= size
        if (self._half_closed or shared.draining) and not (self._waiting or self._backlog):
            request.keep_alive = False
        if (
            reply.status == 200
            and reply.content_type is JSON
            and request.keep_alive
            and not reply.headers
            and request.version == "1.1"
            and request.method != b"HEAD"
        ):  # nearly always
            return b"%b%d\r\n%b\r\n%b" % (OK_JSON, len(reply.body), shared.date, reply.body)
        return b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
            STATUS_LINES[reply.status],
            reply.content_type,
            len(reply.body),
            shared.date,
            _extra_headers(request, reply),
            b"" if request.method == b"HEAD" else reply.body,
        )

    def _encode_stream(self, request: HttpRequest, parts: list[bytes]) -> bool:
        """Add the new pieces of a streamed answer; return whether it is complete now."""
        stream, reply = request.stream, request.reply
        assert stream is not None
        assert reply is not None
        chunked = request.version == "1.1"
        if not stream.begun:
            stream.begun = True
            if not chunked or self._is_last(request):
                request.keep_alive = False
                self._ignores_input = True
            coding = b"transfer-encoding: chunked\r\n" if chunked else b""
            status, extra = STATUS_LINES[reply.status], _extra_headers(request, reply)
            parts += (status, b"content-type: %b\r\n" % reply.content_type, coding)
            parts += (self.shared.date, extra, b"\r\n")
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
        self._waiting_bytes -= len(request.body)
        self.shared.buffered_bytes -= len(request.body)
        if self._is_last(request):
            request.keep_alive = False
        return True

    def _is_last(self, request: HttpRequest) -> bool:
        """Return whether the connection ends after the answer to this request."""
        ends = self._half_closed or self.shared.draining
        return ends and self._waiting[-1] is request and not self._backlog

    def pause_writing(self) -> None:
        self.is_full = True
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self.deadline = self.shared.clock + self.limits.write_s

    def resume_writing(self) -> None:
        self.is_full = False
        self.restart_clock()
        if self._waiting and (stream := self._waiting[0].stream) is not None:
            stream.wake()
        self._handle_backlog()

    # ---- the end, and deadlines

    def eof_received(self) -> bool:
        """
        Take a FIN: the caller has left.

        Only a caller who asked for `Connection: close` may send it to say that no more
        requests come, and still gets the answers that are owed.
        """
        self._ignores_input = self._half_closed = True
        self._drop_request()
        owed = self._backlog or self._waiting
        return bool(owed) and not owed[-1].keep_alive

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.deadline = math.inf
        self.shared.connections.discard(self)
        self._drop_request()
        self._drop_answers()

    def drain(self) -> None:
        """Close now if idle; otherwise the last answer says `Connection: close`."""
        if not (self._waiting or self._backlog) and self._reading is None:
            self._transport.close()

    def expire(self) -> None:
        """Act on a passed deadline: of a close, an unread answer, an idle or a slow caller."""
        if self._closing or self.is_full:
            unsent = self._transport.get_write_buffer_size()
            before, self._unsent_bytes = self._unsent_bytes, unsent
            if unsent > 0 and before - unsent >= min(before, SLOW_BYTES):
                self.deadline = self.shared.clock + self.limits.write_s  # it reads on
            else:
                self.abort()
        elif self._reading is None:
            self._transport.close()
        else:
            part, limit_s = ("body", self.limits.body_s)
            if self._in_head:
                part, limit_s = "headers", self.limits.head_s
            self._refuse(
                HttpRefusal(
                    408,
                    f"The {part} did not arrive within {limit_s:g} s.",
                    "Send the request again.",
                )
            )

    def restart_clock(self) -> None:
        """Set the deadline anew for the caller's present state."""
        limits = self.limits
        if self._closing:
            unread = self._transport.get_write_buffer_size() > 0
            wait_s = limits.write_s if unread else limits.linger_s
        elif self._reading is not None:
            wait_s = limits.head_s if self._in_head else limits.body_s
        else:
            wait_s = math.inf if self._waiting or self._backlog else limits.idle_s
        self.deadline = self.shared.clock + wait_s

    def abort(self) -> None:
        """Drop the connection with everything that is in it."""
        self._transport.abort()

    def _close(self) -> None:
        """End our side; read on for a moment, since a reset would lose what we sent."""
        if self._closing:
            return
        self._closing = self._ignores_input = True
        self._drop_answers()  # to requests after the last one, if there are any
        self.restart_clock()
        if self._half_closed:
            self._transport.close()
        else:
            self._transport.write_eof()
            self._pause_or_read()

    def _drop_request(self) -> None:
        self._reading = None
        self._body = b""
        self.shared.buffered_bytes -= self._body_bytes
        self._body_bytes = 0

    def _drop_answers(self) -> None:
        self.shared.buffered_bytes -= self._waiting_bytes
        self._waiting_bytes = 0
        owed = (*self._waiting, *self._backlog)
        self._waiting.clear()
        self._backlog.clear()
        for request in owed:
            if request.stream is not None:
                request.stream.wake()


class _AnsweredRefusal(HttpRefusal):
    """A refusal whose answer the application has given already."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status, "", "")
        self.response = response


def _extra_headers(request: HttpRequest, reply: HttpResponse) -> bytes:
    """Return an answer's own headers, and whether the connection stays open."""
    extra = b"".join([b"%b: %b\r\n" % header for header in reply.headers])
    if not request.keep_alive:
        return extra + b"connection: close\r\n"
    return extra + b"connection: keep-alive\r\n" if request.version == "1.0" else extra


def _failed() -> HttpRefusal:
    return HttpRefusal(500, "The server failed on this request.", "Its log has the reason.")


def _head_too_large(limit: int) -> HttpRefusal:
    return HttpRefusal(
        431, f"The request line and headers have more than {limit} bytes.", "Send fewer headers."
    )
