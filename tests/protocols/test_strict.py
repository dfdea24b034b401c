"""
Raw requests, each answered or refused as RFC 9110 and 9112 say.

The same table goes straight to the server, with and without TLS, and through
nginx: wherever two servers disagree about where a request ends, one can hide in
another, so `/hidden` must never be handled, and both must count alike.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support import free_port, start_process, wait_for

HOST = b"Host: a\r\n"
END = b"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"


def get(*lines: bytes, target: bytes = b"/a", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET %b %b\r\n%b\r\n" % (target, version, b"".join(line + b"\r\n" for line in lines))


def post(*lines: bytes, body: bytes = b"") -> bytes:
    head = b"".join(line + b"\r\n" for line in (b"Host: a", *lines))
    return b"POST /a HTTP/1.1\r\n%b\r\n%b" % (head, body)


def chunked(body: bytes, coding: bytes = b"Transfer-Encoding: chunked") -> bytes:
    return post(coding, body=body)


LAST = b"0\r\n\r\n"

ANSWERED = {
    "a request": get(b"Host: a"),
    "an empty line before it": b"\r\n" + get(b"Host: a"),
    "three at once": get(b"Host: a") * 3,
    "no space after the colon": get(b"Host:a"),
    "spaces and tabs around a value": get(b"Host: \t a \t ", b"X:\t\ta b\t "),
    "an empty value": get(b"Host: a", b"X:"),
    "a value beyond ASCII": get(b"Host: a", b"X: \xc3\xa9\xff"),
    "a header that comes twice": get(b"Host: a", b"X: a", b"X: b"),
    "a name with every allowed sign": get(b"Host: a", b"X!#$%&'*+-.^_`|~9: a"),
    "an empty host": get(b"Host:"),
    "a host with a port": get(b"Host: a.example:8080"),
    "a host that is IPv6": get(b"Host: [::1]:80"),
    "the whole address": get(b"Host: a", target=b"http://a/a"),
    "the whole address of another host": get(b"Host: a", target=b"http://b.example/a?x=1"),
    "a query": get(b"Host: a", target=b"/a?b=c&d=%20"),
    "a body": post(b"Content-Length: 3", body=b"abc"),
    "a body of nothing": post(b"Content-Length: 0"),
    "zeros before the length": post(b"Content-Length: 0003", body=b"abc"),
    "a body that looks like a request": post(b"Content-Length: 33", body=HIDDEN),
    "chunks": chunked(b"3\r\nabc\r\n" + LAST),
    "chunks in another spelling": chunked(LAST, b"TRANSFER-ENCODING: Chunked"),
    "a tab before chunked": chunked(LAST, b"Transfer-Encoding:\tchunked"),
    "a chunk's size in capitals": chunked(b"A\r\n0123456789\r\n" + LAST),
    "zeros before a chunk's size": chunked(b"0003\r\nabc\r\n" + b"000\r\n\r\n"),
    "extensions of chunks": chunked(b'3;a=b;c="d"\r\nabc\r\n0;x\r\n\r\n'),
    "trailers": chunked(b"3\r\nabc\r\n0\r\nX: a\r\nHost: b\r\n\r\n"),
    "spaces in a body and in headers": post(
        b"X:  GET  /a HTTP/1.1", b"Content-Length: 23", body=b"\r\n\r\nGET  /a HTTP/1.1\r\n\r"
    ),
    "empty lines in chunks": chunked(b"a\r\n\r\n\r\nGET  /\r\n" + LAST),
    "chunks that look like a request": chunked(b"21\r\n" + HIDDEN + b"\r\n" + LAST),
}

REFUSED = {
    # lines
    "bare LF throughout": (b"GET /a HTTP/1.1\nHost: a\n\n", 400),
    "bare LF after the request line": (b"GET /a HTTP/1.1\nHost: a\r\n\r\n", 400),
    "bare LF after a header": (b"GET /a HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    "bare LF at the end of the head": (b"GET /a HTTP/1.1\r\nHost: a\r\n\n", 400),
    "bare CR in a value": (get(b"Host: a", b"X: a\rb"), 400),
    "bare CR between headers": (b"GET /a HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    "CR CR LF": (b"GET /a HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
    "a folded header": (get(b"Host: a", b"X: b", b" c"), 400),
    "a folded host": (get(b"Host:", b" a"), 400),
    "a space before the first header": (get(b" Host: a"), 400),
    # the request line
    # RFC 9112, 3: a recipient may part the line at any whitespace, and risks smuggling if it does.
    "two spaces before the target": (b"GET  /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two spaces after the target": (b"GET /a  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two spaces after an empty line": (b"\r\nGET /a  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a space in the target": (get(b"Host: a", target=b"/a b"), 400),
    "a space after the version": (get(b"Host: a", version=b"HTTP/1.1 "), 400),
    "a space before the method": (b" " + get(b"Host: a"), 400),
    "a tab before the target": (b"GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a method in small letters": (b"get /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a method that is not known": (b"FOO /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no method": (b"/a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no slash": (get(b"Host: a", target=b"a"), 400),
    "NUL in the target": (get(b"Host: a", target=b"/a\0"), 400),
    "a control in the target": (get(b"Host: a", target=b"/a\x01"), 400),
    "HTTP/0.9": (b"GET /a\r\n\r\n", 505),
    "HTTP/1.2": (get(b"Host: a", version=b"HTTP/1.2"), 400),
    "HTTP/2.0": (get(b"Host: a", version=b"HTTP/2.0"), 505),
    "HTTP/1.10": (get(b"Host: a", version=b"HTTP/1.10"), 400),
    "HTTP/01.1": (get(b"Host: a", version=b"HTTP/01.1"), 400),
    "http/1.1": (get(b"Host: a", version=b"http/1.1"), 400),
    "HTTP 1.1": (get(b"Host: a", version=b"HTTP 1.1"), 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    # headers
    "a space before the colon": (get(b"Host: a", b"X : b"), 400),
    "a tab before the colon": (get(b"Host: a", b"X\t: b"), 400),
    "no colon": (get(b"Host: a", b"X"), 400),
    "no name": (get(b"Host: a", b": b"), 400),
    "a space in a name": (get(b"Host: a", b"X Y: b"), 400),
    "a sign in a name": (get(b"Host: a", b"X{: b"), 400),
    "a name beyond ASCII": (get(b"Host: a", b"X\xe9: b"), 400),
    "NUL in a value": (get(b"Host: a", b"X: a\0b"), 400),
    "NUL in a name": (get(b"Host: a", b"X\0: a"), 400),
    "a control in a value": (get(b"Host: a", b"X: a\x01b"), 400),
    "DEL in a value": (get(b"Host: a", b"X: a\x7fb"), 400),
    "no host": (get(), 400),
    "two hosts": (get(b"Host: a", b"Host: a"), 400),
    "two hosts that differ": (get(b"Host: a", b"host: b"), 400),
    "a host with a space": (get(b"Host: a b"), 400),
    "a host with a path": (get(b"Host: a/b"), 400),
    "a host with a user": (get(b"Host: b@a"), 400),
    "a host that is an address": (get(b"Host: http://a"), 400),
    "a host with a bad port": (get(b"Host: a:b"), 400),
    "a token twice": (get(b"Host: a", b"Authorization: Bearer a", b"Authorization: Bearer b"), 400),
    "a long request line": (get(b"Host: a", target=b"/" + b"a" * 20_000), 431),
    "a long header": (get(b"Host: a", b"X: " + b"a" * 20_000), 431),
    "many headers": (get(b"Host: a", *[b"X: y"] * 4000), 431),
    # lengths
    "two lengths": (post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), 400),
    "two lengths that differ": (
        post(b"Content-Length: 0", b"Content-Length: 33", body=HIDDEN),
        400,
    ),
    "a list of lengths": (post(b"Content-Length: 3, 3", body=b"abc"), 400),
    "a length with a sign": (post(b"Content-Length: +3", body=b"abc"), 400),
    "a length below zero": (post(b"Content-Length: -3", body=b"abc"), 400),
    "a length in hexadecimal": (post(b"Content-Length: 0x3", body=b"abc"), 400),
    "a length with a point": (post(b"Content-Length: 3.0", body=b"abc"), 400),
    "a length with a space inside": (post(b"Content-Length: 3 7", body=HIDDEN), 400),
    "a length of no digits": (post(b"Content-Length:", body=HIDDEN), 400),
    "a length beyond 64 bits": (post(b"Content-Length: 18446744073709551619", body=b"abc"), 400),
    "a length over the limit": (post(b"Content-Length: 99999999999"), 413),
    "a length and chunks": (
        post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=LAST + HIDDEN),
        400,
    ),
    "chunks and a length": (
        post(b"Transfer-Encoding: chunked", b"Content-Length: 38", body=LAST + HIDDEN),
        400,
    ),
    # codings
    "gzip, then chunks": (chunked(LAST, b"Transfer-Encoding: gzip, chunked"), 501),
    "chunks, then gzip": (chunked(LAST, b"Transfer-Encoding: chunked, gzip"), 400),
    "chunks that are the same": (chunked(LAST, b"Transfer-Encoding: chunked, identity"), 400),
    "chunks twice in a line": (chunked(LAST, b"Transfer-Encoding: chunked, chunked"), 400),
    "chunks twice": (post(*[b"Transfer-Encoding: chunked"] * 2, body=LAST), 400),
    "the same": (post(b"Transfer-Encoding: identity", body=HIDDEN), 501),
    "the same, and a length": (
        post(b"Transfer-Encoding: identity", b"Content-Length: 33", body=HIDDEN),
        400,
    ),
    "no coding": (post(b"Transfer-Encoding:", body=HIDDEN), 400),
    "xchunked": (chunked(LAST, b"Transfer-Encoding: xchunked"), 501),
    "chunked in quotes": (chunked(LAST, b'Transfer-Encoding: "chunked"'), 501),
    "chunked after a vertical tab": (chunked(LAST, b"Transfer-Encoding: \x0bchunked"), 400),
    "chunked after a colon and a space": (chunked(LAST, b"Transfer-Encoding : chunked"), 400),
    "chunked in 1.0": (
        b"POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST + HIDDEN,
        400,
    ),
    # chunks
    "a chunk's size after a space": (chunked(b" 3\r\nabc\r\n" + LAST), 400),
    "a space after a chunk's size": (chunked(b"3 \r\nabc\r\n" + LAST), 400),
    "a chunk's size below zero": (chunked(b"-3\r\nabc\r\n" + LAST), 400),
    "a chunk's size with a sign": (chunked(b"+3\r\nabc\r\n" + LAST), 400),
    "a chunk's size with 0x": (chunked(b"0x3\r\nabc\r\n" + LAST), 400),
    "a chunk's size of no digits": (chunked(b"\r\nabc\r\n" + LAST), 400),
    "a chunk's size of other digits": (chunked(b"g\r\nabc\r\n" + LAST), 400),
    "a chunk's size with a stroke": (chunked(b"1_0\r\n0123456789abcdef\r\n" + LAST), 400),
    "a chunk's size beyond 64 bits": (chunked(b"f" * 17 + b"\r\n"), 400),
    "a chunk's size that wraps around": (chunked(b"10000000000000003\r\nabc\r\n" + LAST), 400),
    "a chunk that is longer than it says": (chunked(b"3\r\nabcd\r\n" + LAST), 400),
    "a chunk that is shorter than it says": (chunked(b"5\r\nabc\r\n" + LAST), 400),
    "bare LF after a chunk's size": (chunked(b"3\nabc\r\n" + LAST), 400),
    "bare LF after a chunk": (chunked(b"3\r\nabc\n" + LAST), 400),
    "bare LF after an extension": (chunked(b"3;a\nabc\r\n" + LAST), 400),
    "bare CR in an extension": (chunked(b"3;a\rb\r\nabc\r\n" + LAST), 400),
    "NUL in an extension": (chunked(b"3;a\0\r\nabc\r\n" + LAST), 400),
    "bare LF at the end of the chunks": (chunked(b"0\r\n\n"), 400),
    "bare LF after the last chunk": (chunked(b"0\n\r\n"), 400),
    "a long extension": (chunked(b"3;" + b"a" * 1_000_000 + b"\r\nabc\r\n" + LAST), 431),
    "a flood of extensions": (chunked((b"1;" + b"a" * 9000 + b"\r\nx\r\n") * 200 + LAST), 431),
    "a length among the trailers": (chunked(b"0\r\nContent-Length: 33\r\n\r\n" + HIDDEN), 400),
    "a folded trailer": (chunked(b"0\r\nX: a\r\n b\r\n\r\n"), 400),
    "a trailer with a space before the colon": (chunked(b"0\r\nX : a\r\n\r\n"), 400),
    "a long trailer": (chunked(b"0\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n"), 431),
    # expectations
    "an expectation that is not known": (
        post(b"Expect: tea", b"Content-Length: 1", body=b"a"),
        417,
    ),
}


def answers(sock: socket.socket) -> list[tuple[int, bytes]]:
    """Read answers to the end of the connection: status and body of each."""
    with sock.makefile("rb") as file:
        found = []
        try:
            while line := file.readline():
                if not line.startswith(b"HTTP/1.1 "):  # as nginx answers HTTP/0.9
                    found.append((400, line + file.read()))
                    break
                headers = {}
                while (field := file.readline().strip()) != b"":
                    name, _, value = field.partition(b":")
                    headers[name.lower()] = value.strip()
                length = int(headers.get(b"content-length", b"0"))
                found.append((int(line.split()[1]), file.read(length)))
        except (ConnectionResetError, TimeoutError):
            found.append((0, b""))
        return found


@pytest.mark.parametrize("request_", ANSWERED.values(), ids=ANSWERED)
def test_what_is_right_is_answered_and_the_connection_stays(server, caller, request_):
    caller.send(request_, END)
    found = answers(caller.socket)
    assert {status for status, _ in found} == {200}, found
    assert found[-1][1] == b'{"target":"/end","body":""}'
    assert b"/hidden" not in [each.encode() for each in server.echo.targets]


@pytest.mark.parametrize(("request_", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_is_refused_and_ends_the_connection(server, caller, request_, status):
    with suppress(OSError):  # the server may have ended the connection
        caller.send(request_, END)
    found = answers(caller.socket)
    assert [each for each, _ in found] == [status], found
    assert not server.echo.targets


BEFORE = {
    "nothing": b"",
    "a request": get(b"Host: a"),
    "a body that ends in letters": post(b"Content-Length: 3", body=b"xGE"),
    "chunks": chunked(b"3\r\nGET\r\n" + LAST),
    "chunks with a trailer": chunked(b"4\r\n\r\n\r\n\r\n0\r\nX: y\r\n\r\n"),
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("line", [b"GET  /a HTTP/1.1", b"GET /a  HTTP/1.1"])
def test_two_spaces_are_refused_wherever_the_bytes_are_cut(server, connect, before, line):
    request = before + line + b"\r\nHost: a\r\n\r\n"
    expected = [200, 400] if before else [400]
    for step in (1, 2, 3, 5, 7, len(request)):
        with suppress(OSError):
            caller = connect(server)
            for at in range(0, len(request), step):
                caller.send(request[at : at + step])
        assert [status for status, _ in answers(caller.socket)] == expected, step


NGINX = """
daemon off; master_process off; worker_rlimit_nofile 1024;
pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  log_format counted '$upstream_status $request_uri';
  access_log {folder}/access.log counted;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_header_timeout 1s; client_body_timeout 1s; lingering_timeout 1s; lingering_time 1s;
  upstream server {{ server 127.0.0.1:{port}; keepalive 4; }}
  server {{
    listen {address};
    location / {{
      proxy_pass {scheme}://server;
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_next_upstream off; proxy_request_buffering {buffering};
    }}
  }}
}}
"""


class Nginx:
    """nginx on a port of its own, in front of a server."""

    def __init__(self, folder: Path, server, buffering: str) -> None:
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("nginx is not installed: apt-get install nginx-light")
        self.port = free_port()
        self._log = folder / "access.log"
        text = NGINX.format(
            folder=folder,
            port=server.port,
            address=f"127.0.0.1:{self.port}",
            scheme="https" if server.is_tls else "http",
            buffering=buffering,
        )
        (folder / "nginx.conf").write_text(text)
        command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with (folder / "stderr").open("wb") as errors:
            self._process = start_process(command, stderr=errors)
        wait_for(lambda: self._is_up() or self._process.poll() is not None)
        assert self._process.poll() is None, (folder / "stderr").read_text()

    def _is_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def ask(self, data: bytes) -> list[tuple[int, bytes]]:
        """Send bytes on a connection of their own, and read all that comes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            with suppress(OSError):
                sock.sendall(data)
            return answers(sock)

    @property
    def passed_on(self) -> Counter[str]:
        """Requests that the server has answered, as nginx saw them: how many of each target."""
        lines = [line.split() for line in self._log.read_text("latin-1").splitlines()]
        return Counter(words[1] for words in lines if words[0].isdigit())

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture(params=["on", "off"])
def nginx(request, tmp_path: Path, server) -> Iterator[Nginx]:
    """nginx that keeps connections to the server, with bodies buffered and as they come."""
    running = Nginx(tmp_path, server, request.param)
    yield running
    running.stop()


def test_no_request_hides_in_another_on_its_way_through_nginx(server, nginx):
    raw = {**ANSWERED, **{name: request for name, (request, _) in REFUSED.items()}}
    for number, (name, request_) in enumerate(raw.items()):
        found = nginx.ask(request_ + END)
        refused = [status for status, _ in found if status >= 400]
        assert len(refused) <= 1, (name, found)
        target = b"/victim-%d" % number
        victim = nginx.ask(END.replace(b"/end", target))
        assert victim == [(200, b'{"target":"%b","body":""}' % target)], (name, victim)
    handled = Counter(target.removeprefix("http://a") for target in server.echo.targets)
    # nginx writes its lines after the answers.
    wait_for(lambda: nginx.passed_on.total() >= handled.total() + server.echo.refused)
    assert nginx.passed_on.total() == handled.total() + server.echo.refused
    assert not handled - nginx.passed_on, "nginx knows of every request that was handled"
    assert handled.total() > 2 * len(ANSWERED)


def test_pipelined_requests_come_back_in_order_through_nginx(server, nginx):
    targets = [b"/%d" % number for number in range(50)]
    stream = b"".join(get(b"Host: a", target=target) for target in targets)
    found = nginx.ask(stream + END)
    assert [body for _, body in found[:-1]] == [
        b'{"target":"%b","body":""}' % target for target in targets
    ]
    assert server.echo.handled == 51
    wait_for(lambda: nginx.passed_on.total() == 51)  # nginx writes its line after the answer
    assert len(server.server.shared.connections) <= 4, "connections are kept and used again"
