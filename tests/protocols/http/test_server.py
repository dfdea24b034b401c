"""What a full HTTP/1.1 server owes its callers, over raw sockets, with TLS and without."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import wait_for

from clewline.errors import Conflict
from clewline.protocols.http.connection import MAX_REQUESTS_A_TURN
from clewline.protocols.http.server import HttpServer

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_one_connection_carries_many_requests(caller):
    for _ in range(3):
        caller.send(POST)
        status, headers, body = caller.answer()
        assert (status, body) == (200, b'{"target":"/a","body":"abc"}')
        assert headers["content-type"] == "application/json"
        assert headers["date"].endswith("GMT")
        assert "connection" not in headers


def test_pipelined_requests_are_answered_in_order_though_answered_out_of_order(server, caller):
    later = b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
    caller.send(later + b"1", later + b"2", GET, later + b"3")
    wait_for(lambda: len(server.echo.kept) >= 3)
    server.call(lambda: server.echo.release(lambda kept: kept[::-1]))
    bodies = [caller.answer()[2] for _ in range(4)]
    assert [
        b'"1"' in bodies[0],
        b'"2"' in bodies[1],
        b'"/a"' in bodies[2],
        b'"3"' in bodies[3],
    ] == [True] * 4


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(1, 3 * len(POST) + 60), max_size=8))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts, long_lived_caller):
    caller = long_lived_caller
    stream = POST + GET + CHUNKED + b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\nTrailer: t\r\n\r\n" + POST
    edges = [0, *sorted(cut for cut in set(cuts) if cut < len(stream)), len(stream)]
    for start, stop in itertools.pairwise(edges):
        caller.send(stream[start:stop])
        time.sleep(0.0002)
    bodies = [caller.answer()[2] for _ in range(4)]
    assert [b"abc" in body for body in bodies] == [True, False, True, True]


def test_a_refusal_waits_for_the_answers_before_it(server, caller):
    caller.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n", b"GARBAGE\r\n\r\n")
    wait_for(lambda: server.echo.kept)
    server.call(server.echo.release)
    assert caller.answer()[0] == 200
    assert caller.answer()[0] == 400
    assert caller.ended()


def test_a_refusal_is_read_though_the_caller_is_still_sending(serve, connect):
    caller = connect(serve(body_bytes=1000))
    caller.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n")
    threading.Thread(target=lambda: _send_quietly(caller, b"x" * 5_000_000)).start()
    assert caller.answer()[0] == 413


def _send_quietly(caller, data: bytes) -> None:
    try:
        caller.send(data)
    except OSError:
        return  # the server has closed, as it may


def test_a_chunked_body_over_the_limit_is_refused_where_it_passes_it(serve, connect):
    caller = connect(serve(body_bytes=1000))
    caller.send(CHUNKED, b"1f4\r\n" + b"x" * 500 + b"\r\n", b"1f5\r\n" + b"x" * 501 + b"\r\n")
    assert caller.answer()[0] == 413


def test_a_body_in_tiny_chunks_takes_no_more_memory_than_its_bytes(server, caller):
    count = 100_000
    caller.send(CHUNKED, b"2\r\nab\r\n" * 10)
    wait_for(lambda: server.server.shared.buffered_bytes == 20)
    tracemalloc.start()
    try:
        caller.send(b"2\r\nab\r\n" * count)
        wait_for(lambda: server.server.shared.buffered_bytes == 2 * count + 20)
        assert tracemalloc.get_traced_memory()[0] < 10 * count
    finally:
        tracemalloc.stop()
    caller.send(b"0\r\n\r\n")
    assert caller.answer()[2] == b'{"target":"/a","body":"%b"}' % (b"ab" * (count + 10))


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_an_offer_of_another_protocol_is_passed_over_and_the_body_read(caller, expect):
    head = b"POST /a HTTP/1.1\r\nHost: a\r\n" + OFFER + expect
    caller.send(head, b"Content-Length: 3\r\n\r\na")
    if expect:
        assert caller.head()[0] == 100
    caller.send(b"bc", head.replace(expect, b"") + b"\r\n", POST, CHUNKED)
    caller.send(b"3\r\nabc\r\n0\r\n\r\n")
    for body in ("abc", "", "abc", "abc"):
        assert caller.answer()[2] == b'{"target":"/a","body":"%b"}' % body.encode()


def test_many_offers_at_once_are_all_answered(caller):
    caller.send((b"GET /a HTTP/1.1\r\nHost: a\r\n" + OFFER + b"\r\n") * 2000)
    for _ in range(2000):
        assert caller.answer()[0] == 200


def test_zeros_before_a_length_change_nothing(caller):
    caller.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: ", b"0" * 5000, b"3\r\n\r\nabc")
    assert caller.answer()[::2] == (200, b'{"target":"/a","body":"abc"}')


def test_an_endless_header_or_trailer_is_refused_before_it_ends(serve, connect):
    for start in (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", CHUNKED + b"0\r\nX: "):
        caller = connect(serve(head_bytes=4096))
        caller.send(start)
        for _ in range(10):
            caller.send(b"a" * 1000)
            time.sleep(0.002)
        assert caller.answer()[0] == 431


def test_bodies_of_all_connections_together_are_bounded(serve, connect):
    server = serve(buffered_bytes=1000)
    first, second = connect(server), connect(server)
    later = b"POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\n" + b"x" * 600
    first.send(later)
    wait_for(lambda: server.echo.kept)
    second.send(later)
    assert second.answer()[0] == 503
    server.call(server.echo.release)
    assert first.answer()[0] == 200
    third = connect(server)
    third.send(later.replace(b"/later", b"/a"))
    assert third.answer()[0] == 200
    assert server.server.shared.buffered_bytes == 0


def test_continue_is_sent_when_the_head_is_good(caller):
    caller.send(b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert caller.head()[0] == 100
    caller.send(b"abc")
    assert caller.answer()[2] == b'{"target":"/a","body":"abc"}'


def test_continue_waits_for_the_answers_before_it(server, caller):
    caller.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    caller.send(b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    wait_for(lambda: server.echo.kept)
    server.call(server.echo.release)
    assert caller.answer()[0] == 200
    assert caller.head()[0] == 100
    caller.send(b"abc")
    assert caller.answer()[0] == 200


@pytest.mark.parametrize(
    ("target", "length", "status"), [(b"/nowhere", 3, 404), (b"/a", 10**9, 413)]
)
def test_a_bad_head_is_refused_instead_of_continue(caller, target, length, status):
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    caller.send(head % (target, length))
    assert caller.answer()[0] == status
    assert caller.ended()


def test_a_caller_who_sends_a_fin_has_left(server, caller):
    caller.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_for(lambda: server.echo.kept)
    caller.half_close()
    assert caller.ended()
    assert server.echo.kept[0].is_abandoned()
    server.call(server.echo.release)
    assert not server.server.shared.connections


def test_a_caller_who_asked_for_close_may_half_close_and_gets_the_answers(server, caller):
    last = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    caller.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n", last)
    caller.half_close()
    wait_for(lambda: server.echo.kept)
    server.call(server.echo.release)
    assert caller.answer()[0] == 200
    assert caller.answer()[1]["connection"] == "close"
    assert caller.ended()


def test_a_request_that_is_cut_off_leaves_nothing_behind(server, caller, connect):
    caller.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    wait_for(lambda: server.server.shared.buffered_bytes == 3)
    caller.half_close()
    assert caller.ended()
    assert server.server.shared.buffered_bytes == 0


@pytest.mark.parametrize(
    ("head", "connection"),
    [
        (b"GET /a HTTP/1.0\r\n\r\n", "close"),
        (b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close"),
    ],
)
def test_the_answer_says_whether_the_connection_stays(caller, head, connection):
    caller.send(head, b"" if connection == "keep-alive" else GET)
    status, headers, _ = caller.answer()
    assert (status, headers["connection"]) == (200, connection)
    if connection == "close":
        assert caller.ended(), "what was sent after the last request is not answered"
    else:
        caller.send(GET)
        assert caller.answer()[0] == 200


def test_head_gets_the_length_without_the_body(caller):
    caller.send(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
    assert caller.head()[1]["content-length"] == "25"
    caller.send(GET)
    assert caller.answer()[0] == 200


def test_slow_callers_get_an_answer_and_idle_ones_are_closed(serve, connect):
    server = serve(head_s=1.0, body_s=1.0, idle_s=1.0)
    slow_head = connect(server)
    slow_head.send(GET[:-2])
    slow_body = connect(server)
    slow_body.send(POST[:-1])
    idle = connect(server)
    idle.send(GET)
    assert idle.answer()[0] == 200
    assert slow_head.answer()[0] == 408
    assert slow_body.answer()[0] == 408
    assert idle.ended()


def test_a_caller_that_waits_for_a_slow_answer_is_not_idle(serve, connect):
    server = serve(head_s=0.2, body_s=0.2, idle_s=0.2)
    caller = connect(server)
    caller.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    time.sleep(0.9)
    server.call(server.echo.release)
    assert caller.answer()[0] == 200


def test_a_caller_that_does_not_read_is_not_read_from_and_then_dropped(serve, connect):
    server = serve(write_s=0.5)
    caller = connect(server)
    caller.send(b"GET /large1000000 HTTP/1.1\r\nHost: a\r\n\r\n" * 5000)
    wait_for(lambda: not (server.server.shared.connections))
    assert not server.server.shared.connections
    assert server.echo.handled < 100, "5,000 answers of a megabyte were never made"


def test_more_pipelined_requests_than_allowed_wait_and_none_is_lost(serve, connect):
    server = serve(pipelined=4)
    caller = connect(server)
    caller.send(GET * 500)
    assert [caller.answer()[0] for _ in range(500)] == [200] * 500


def test_one_turn_of_the_loop_handles_few_of_many_pipelined_requests(server, caller):
    turns = []

    def turn():
        turns.append(server.echo.handled)
        if turns[-1] < 2000:
            server.loop.call_soon(turn)

    server.call(turn)
    caller.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n" * 2000)
    for _ in range(2000):
        assert caller.answer()[0] == 200
    wait_for(lambda: turns[-1] == 2000)
    assert max(later - before for before, later in pairwise(turns)) <= 2 * MAX_REQUESTS_A_TURN


def test_connections_beyond_the_limit_are_told(serve, connect):
    server = serve(connections=2)
    first, second = connect(server), connect(server)
    first.send(GET)
    second.send(GET)
    assert first.answer()[0] == second.answer()[0] == 200
    assert connect(server).answer()[0] == 503


def test_a_failing_application_is_a_500_and_the_server_stays(server, caller, connect, caplog):
    caller.send(b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n")
    assert caller.answer()[0] == 500
    assert "ZeroDivisionError" in caplog.text
    other = connect(server)
    other.send(GET)
    assert other.answer()[0] == 200


def test_draining_answers_what_is_under_way_and_lets_idle_callers_go(server, caller, connect):
    idle = connect(server)
    idle.send(GET)
    assert idle.answer()[0] == 200
    caller.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_for(lambda: server.echo.kept)
    server.begin_to_stop()
    assert idle.ended()
    with pytest.raises(OSError):
        connect(server)
    server.call(server.echo.release)
    status, headers, _ = caller.answer()
    assert (status, headers["connection"]) == (200, "close")


def test_two_servers_on_one_port_are_noticed(server):
    with pytest.raises(Conflict, match=f"Port {server.port} .*--port"):
        HttpServer(server.echo).listen(port=server.port)
