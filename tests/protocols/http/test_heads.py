"""A head that came before is not parsed again, and nobody can tell."""

from __future__ import annotations

import socket
import time

import pytest
from support import wait_for

from clewline.protocols.http.connection import MAX_KNOWN_HEAD_BYTES, MAX_KNOWN_HEADS, HttpConnection

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
LATER = b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\n"


def said(body: bytes, target: bytes = b"/a") -> bytes:
    return b'{"target":"%b","body":"%b"}' % (target, body)


@pytest.fixture
def parsed(monkeypatch) -> list[bytes]:
    """What was given to the parser."""
    found: list[bytes] = []
    feed = HttpConnection._parse

    def noted(self: HttpConnection, data: bytes) -> None:
        found.append(data)
        feed(self, data)

    monkeypatch.setattr(HttpConnection, "_parse", noted)
    return found


@pytest.fixture
def heads(server):
    return server.server.shared.heads


@pytest.fixture
def knowing(caller, heads):
    """A caller whose heads `HEAD` and `GET` are remembered."""
    for request in (HEAD + b"abc", GET):
        caller.send(request)
        assert caller.answer()[0] == 200
    assert set(heads) == {HEAD, GET}
    return caller


def test_a_remembered_head_brings_its_own_body(knowing, parsed, server, connect):
    for caller in (knowing, connect(server)):
        for body in (b"def", b"\r\n\r", b"abc"):
            caller.send(HEAD + body)
            assert caller.answer()[2] == said(body.replace(b"\r\n\r", rb"\r\n\r"))
        caller.send(GET)
        assert caller.answer()[2] == said(b"")
    assert not parsed
    assert server.server.shared.buffered_bytes == 0


def test_a_body_that_is_not_whole_yet_is_waited_for(knowing, server):
    for first, rest in ((b"", b"xyz"), (b"x", b"yz"), (b"xy", b"z" + HEAD + b"nxt")):
        knowing.send(HEAD + first)
        wait_for(lambda: any(each._reading for each in server.server.shared.connections))
        knowing.send(rest)
        assert knowing.answer()[2] == said(b"xyz")
    assert knowing.answer()[2] == said(b"nxt")


def test_what_follows_a_body_is_the_next_request(knowing):
    knowing.send(HEAD + b"abc" + HEAD + b"def" + GET + HEAD + b"ghi")
    assert [knowing.answer()[2] for _ in range(4)] == [
        said(b"abc"),
        said(b"def"),
        said(b""),
        said(b"ghi"),
    ]
    knowing.send(GET + GET)
    assert [knowing.answer()[2] for _ in range(2)] == [said(b""), said(b"")]
    knowing.send(HEAD + b"abcGARBAGE\r\n\r\n")
    assert knowing.answer()[2] == said(b"abc")
    assert knowing.answer()[0] == 400
    assert knowing.ended()


def test_a_remembered_request_waits_for_its_turn_as_any_other(server, knowing):
    knowing.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_for(lambda: server.echo.kept)
    handled = server.echo.handled
    for count, body in enumerate((b"abc", b"def"), 1):
        knowing.send(HEAD + body)
        wait_for(lambda count=count: server.echo.handled == handled + count)
    server.call(server.echo.release)
    assert [knowing.answer()[2] for _ in range(3)] == [
        said(b"", b"/later"),
        said(b"abc"),
        said(b"def"),
    ]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: %d\r\n\r\n" % len(GET), b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_bytes_within_a_body_are_no_request_though_they_look_like_a_remembered_one(
    server, knowing, framing
):
    is_chunked = b"chunked" in framing
    start = b"POST /a HTTP/1.1\r\nHost: a\r\n" + framing + (b"%x\r\n" % len(GET)) * is_chunked
    handled = server.echo.handled
    knowing.send(start + GET[:1])
    wait_for(lambda: server.server.shared.buffered_bytes == 1)
    knowing.send(GET[1:-1])
    wait_for(lambda: server.server.shared.buffered_bytes == len(GET) - 1)
    assert server.echo.handled == handled
    knowing.send(GET[-1:] + b"\r\n0\r\n\r\n" * is_chunked)
    assert knowing.answer()[2].count(b"GET /a") == 1
    assert server.echo.handled == handled + 1


def test_a_whole_request_as_a_read_of_its_own_within_a_body_is_a_body(server, knowing):
    knowing.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(GET))
    wait_for(lambda: any(each._reading for each in server.server.shared.connections))
    handled = server.echo.handled
    knowing.send(GET)
    assert b"GET /a" in knowing.answer()[2]
    assert server.echo.handled == handled + 1


def test_a_head_that_is_cut_anywhere_is_read_whole(knowing, server):
    knowing.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for place in range(1, len(HEAD) + 3):
        knowing.send((HEAD + b"abc")[:place])
        while place <= len(HEAD) and not any(
            each._reading for each in server.server.shared.connections
        ):
            time.sleep(0.0005)
        knowing.send((HEAD + b"abc")[place:])
        assert knowing.answer()[2] == said(b"abc")


def test_heads_that_all_differ_do_not_pile_up(caller, heads):
    for number in range(MAX_KNOWN_HEADS + 10):
        caller.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        assert caller.answer()[2] == said(b"", b"/%d" % number)
        assert len(heads) <= MAX_KNOWN_HEADS
    assert len(heads) == 10
    caller.send(b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert caller.answer()[2] == said(b"", b"/3")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /a HTTP/1.0\r\n\r\n",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * MAX_KNOWN_HEAD_BYTES),
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["close", "1.0", "1.0 that stays", "long", "chunked", "expect"],
)
def test_what_means_more_than_its_head_says_is_not_remembered(
    server, connect, heads, parsed, request_
):
    stays = b"close" not in request_ and b"1.0\r\n\r\n" not in request_
    for _ in range(2):
        caller = connect(server)
        caller.send(request_)
        if b"Expect" in request_:
            assert caller.head()[0] == 100
        status, headers, body = caller.answer()
        assert (status, body) == (200, said(b""))
        assert (headers.get("connection") != "close") is stays
        assert stays or caller.ended()
    assert not heads
    assert parsed


def test_bodies_under_remembered_heads_count_towards_the_bound(serve, connect):
    server = serve(buffered_bytes=1000)
    first, second = connect(server), connect(server)
    first.send(LATER + b"x" * 600)
    wait_for(lambda: server.echo.kept)
    server.call(server.echo.release)
    assert first.answer()[0] == 200
    assert set(server.server.shared.heads) == {LATER}

    first.send(LATER + b"y" * 600)
    wait_for(lambda: server.echo.kept)
    assert server.server.shared.buffered_bytes == 600
    second.send(LATER + b"z" * 600)
    assert second.answer()[0] == 503
    server.call(server.echo.release)
    assert first.answer()[2] == said(b"y" * 600, b"/later")
    assert server.server.shared.buffered_bytes == 0


def test_a_stopping_server_says_so_under_a_remembered_head(server, knowing):
    knowing.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_for(lambda: server.echo.kept)
    server.begin_to_stop()
    wait_for(lambda: server.server.shared.draining)
    handled = server.echo.handled
    knowing.send(HEAD + b"abc")
    wait_for(lambda: server.echo.handled != handled)
    server.call(server.echo.release)
    assert "connection" not in knowing.answer()[1]
    assert knowing.answer()[1]["connection"] == "close"
    assert knowing.ended()
