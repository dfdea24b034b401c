"""Answers in pieces: in order, no faster than the caller reads, and never taken for whole."""

from __future__ import annotations

import socket
import threading

import pytest
from support import wait_for

from clewline.protocols.http.request import STREAM_BYTES, HttpResponse

STREAM = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = HttpResponse(200, b"", b"text/plain", ((b"x-rows", b"2"),))


def kept(server, count: int = 1):
    """The requests that wait at `/stream`."""
    wait_for(lambda: len(server.echo.kept) >= count)
    requests, server.echo.kept = server.echo.kept, []
    return requests


def begun(server, request, head: HttpResponse = HEAD):
    """Start a stream on the server's thread."""
    found = []
    server.call(lambda: found.append(request.start(head)))
    return found[0]


def chunks(caller) -> list[bytes]:
    """Read a chunked body whole."""
    found = []
    while size := int(caller.file.readline(), 16):
        found.append(caller.file.read(size))
        assert caller.file.read(2) == b"\r\n"
    assert caller.file.readline() == b"\r\n"
    return found


def test_pieces_arrive_as_they_are_sent_and_the_connection_stays(server, caller):
    caller.send(STREAM)
    (request,) = kept(server)
    stream = begun(server, request)
    status, headers = caller.head()
    assert (status, headers["transfer-encoding"], headers["x-rows"]) == (200, "chunked", "2")
    assert "content-length" not in headers
    server.call(lambda: stream.send(b"ab"))
    assert caller.file.readline() == b"2\r\n"
    assert caller.file.read(4) == b"ab\r\n"
    server.call(lambda: (stream.send(b""), stream.send(b"c"), stream.end()))
    assert chunks(caller) == [b"c"]
    caller.send(GET)
    assert caller.answer()[0] == 200


def test_the_body_of_the_head_is_the_first_piece(server, caller):
    caller.send(STREAM)
    stream = begun(server, kept(server)[0], HttpResponse(200, b"first"))
    server.call(lambda: stream.end())
    caller.head()
    assert chunks(caller) == [b"first"]


def test_a_stream_waits_for_the_answers_before_it_and_those_after_wait_for_its_end(server, caller):
    caller.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n", STREAM, STREAM, GET)
    later, first, second = kept(server, 3)
    streams = [begun(server, each) for each in (first, second)]
    server.call(lambda: (streams[1].send(b"2"), streams[1].end()))
    server.call(lambda: (streams[0].send(b"1"), later.answer(HttpResponse(200, b"0"))))
    assert caller.answer()[2] == b"0"
    caller.head()
    server.call(lambda: (streams[0].send(b"one"), streams[0].end()))
    assert chunks(caller) == [b"1", b"one"]
    caller.head()
    assert chunks(caller) == [b"2"]
    assert caller.answer()[2] == b'{"target":"/a","body":""}'


def test_a_producer_is_told_to_wait_while_the_caller_does_not_read(server, caller):
    caller.send(STREAM)
    stream = begun(server, kept(server)[0])
    piece, sent, done = b"x" * 50_000, [], threading.Event()

    def produce() -> None:
        while len(sent) < 400:
            sent.append(piece)
            if not stream.send(piece):
                stream.when_writable(produce)
                return
        stream.end()
        done.set()

    server.call(produce)
    stopped_at = len(sent)
    assert stopped_at < 400, "20 MB are not kept for a caller that does not read"
    caller.head()
    assert b"".join(chunks(caller)) == piece * 400
    assert done.wait(5)


def test_pieces_that_wait_for_their_turn_are_bounded(server, caller):
    caller.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n", STREAM)
    later, request = kept(server, 2)
    stream, room, woken = begun(server, request), [], threading.Event()
    server.call(lambda: room.append(stream.send(b"x" * (STREAM_BYTES + 1))))
    assert room == [False]
    server.call(lambda: stream.when_writable(woken.set))
    assert not woken.is_set()
    server.call(lambda: later.answer(HttpResponse(200)))
    assert woken.wait(5)
    server.call(stream.end)


def test_head_gets_no_body_and_1_0_gets_one_that_ends_with_the_connection(server, connect):
    caller = connect(server)
    caller.send(STREAM.replace(b"GET", b"HEAD"))
    stream = begun(server, kept(server)[0])
    server.call(lambda: (stream.send(b"ab"), stream.end()))
    assert caller.head()[1]["transfer-encoding"] == "chunked"
    caller.send(GET)
    assert caller.answer()[0] == 200
    old = connect(server)
    old.send(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", GET)
    stream = begun(server, kept(server)[0])
    server.call(lambda: (stream.send(b"ab"), stream.send(b"c"), stream.end()))
    headers = old.head()[1]
    assert headers["connection"] == "close"
    assert "transfer-encoding" not in headers
    assert old.file.read() == b"abc"


def test_a_producer_is_woken_and_not_stopped_when_the_caller_goes(server, caller):
    caller.send(STREAM)
    (request,) = kept(server)
    stream, woken = begun(server, request), threading.Event()

    def fill() -> None:
        while stream.send(b"x" * 100_000):
            pass
        stream.when_writable(woken.set)

    server.call(fill)
    caller.close()
    assert woken.wait(5)
    assert request.is_abandoned()
    room = []
    server.call(lambda: room.append(stream.send(b"more")))
    server.call(stream.end)
    assert room == [True]
    assert server.server.shared.buffered_bytes == 0


def test_a_stream_that_is_given_up_is_not_taken_for_whole(server, caller):
    caller.send(STREAM)
    stream = begun(server, kept(server)[0])
    server.call(lambda: stream.send(b"ab"))
    caller.head()
    assert caller.file.read(7) == b"2\r\nab\r\n"
    server.call(stream.abort)
    try:
        rest = caller.file.read()
    except OSError:
        rest = b""
    assert b"0\r\n" not in rest


@pytest.mark.parametrize("how", ["drain", "half-close"])
def test_a_stream_under_way_is_finished_when_the_connection_is_to_end(server, caller, how):
    ending = b"Connection: close\r\n\r\n" if how == "half-close" else b"\r\n"
    caller.send(STREAM.removesuffix(b"\r\n"), ending)
    (request,) = kept(server)
    stream = begun(server, request)
    caller.head()
    if how == "drain":
        server.begin_to_stop()
        wait_for(lambda: server.server.shared.draining)
    else:
        caller.half_close()
    server.call(lambda: (stream.send(b"last"), stream.end()))
    assert chunks(caller) == [b"last"]
    assert caller.ended()


def test_a_caller_that_stops_reading_a_stream_is_dropped(serve, connect):
    server = serve(write_s=0.3)
    caller = connect(server)
    caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.send(STREAM)
    (request,) = kept(server)
    stream, woken = begun(server, request), threading.Event()

    def fill() -> None:
        while stream.send(b"x" * 1_000_000):
            pass
        stream.when_writable(woken.set)

    server.call(fill)
    assert woken.wait(10)
    assert request.is_abandoned()
