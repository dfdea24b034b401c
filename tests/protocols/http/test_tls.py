"""TLS by certificate files: who gets in, who is told why not, and what becomes of the files."""

from __future__ import annotations

import logging
import os
import socket
import ssl

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from support import wait_for

from clewline.errors import InvalidConfig
from clewline.protocols.http import server as http
from clewline.protocols.http.request import HttpLimits
from clewline.protocols.http.tls import Certificate

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def certificate(pem) -> Certificate:
    return Certificate(*pem)


def test_http_1_1_is_agreed_on_and_tls_1_2_is_the_least(server, client_tls):
    context = client_tls
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connected(server, context) as caller:
        assert caller.selected_alpn_protocol() == "http/1.1"
        assert caller.version() == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connected(server, context) as caller:
        assert caller.version() == "TLSv1.2"
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", server.port)) as caller,
        pytest.raises(ssl.SSLError, match="alert protocol version"),
    ):
        context.wrap_socket(caller)


def connected(server, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", server.port), timeout=10))


def test_plain_http_is_told_to_speak_tls(server, call):
    caller = call(server.port)
    caller.send(GET)
    status, headers, body = caller.answer()
    assert (status, headers["connection"]) == (400, "close")
    assert b"https://" in body
    assert caller.ended()
    caller.close()
    assert not server.echo.handled


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x00\xff\x01"])
def test_a_handshake_that_is_not_finished_is_ended_and_counted_meanwhile(serve, sent):
    server = serve(handshake_s=0.2, linger_s=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        caller.sendall(sent)
        wait_for(lambda: len(server.server.shared.connections) == 1)
        assert caller.recv(100) == b""
    wait_for(lambda: not server.server.shared.connections)


def test_what_begins_like_tls_and_is_none_is_ended(serve):
    server = serve(linger_s=0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        caller.sendall(b"\x16\x03\x01\x00\x05hello, server")
        while caller.recv(100):
            pass
    wait_for(lambda: not server.server.shared.connections)


def test_connections_that_have_not_shaken_hands_count_towards_the_limit(serve, connect):
    server = serve(connections=2)
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
    wait_for(lambda: len(server.server.shared.connections) == 2)
    assert connect(server).answer()[0] == 503
    for each in idle:
        each.close()


def test_the_callers_half_close_by_the_book_still_gets_its_answers(server, client_tls):
    """A close_notify ends one direction; the other goes on until the answer is sent."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_tls.wrap_bio(incoming, outgoing)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:

        def until_done(what):
            while True:
                try:
                    return what()
                except ssl.SSLWantReadError:
                    caller.sendall(outgoing.read())
                    incoming.write(caller.recv(1 << 16))

        until_done(tls.do_handshake)
        tls.write(b"GET /later HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        caller.sendall(outgoing.read())
        wait_for(lambda: server.echo.kept)
        server.call(server.echo.release)
        answer = until_done(lambda: tls.read(1 << 16))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close\r\n" in answer
        with pytest.raises(ssl.SSLZeroReturnError):  # close_notify, and no torn end
            until_done(lambda: tls.read(1 << 16))


def test_large_answers_and_bodies_pass_in_many_records(serve, connect):
    caller = connect(serve())
    body = os.urandom(3_000_000).hex().encode()
    caller.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    assert body in caller.answer()[2]


def test_changed_files_are_taken_for_new_connections_and_bad_ones_are_not(
    tmp_path, caplog, pem_in, run_http, client_tls, monkeypatch
):
    monkeypatch.setattr(http, "REFRESH_S", 0.0)
    chain, key = pem_in(tmp_path)
    certificate = Certificate(chain, key)
    server = run_http(HttpLimits(drain_s=3.0), certificate)
    try:
        first = shown(server, client_tls)
        chain.write_text("no certificate")
        wait_for(lambda: "stays in use" in caplog.text)
        assert shown(server, client_tls) == first
        new_chain, new_key = pem_in(tmp_path, name="new")
        new_key.replace(key)
        new_chain.replace(chain)
        wait_for(lambda: shown(server, client_tls) != first)
    finally:
        server.stop()


def test_files_that_did_not_change_are_not_read_again(tmp_path, pem_in):
    certificate = Certificate(*pem_in(tmp_path))
    context = certificate.context
    assert not certificate.refresh()
    assert certificate.context is context
    new_chain, new_key = pem_in(tmp_path, name="new")
    new_key.replace(certificate.key)
    new_chain.replace(certificate.chain)
    assert certificate.refresh()
    assert certificate.context is not context


def shown(server, context) -> bytes | None:
    with connected(server, context) as caller:
        return caller.getpeercert(binary_form=True)


def test_files_that_cannot_be_used_are_told_by_name(tmp_path, pem, pem_in):
    chain, key = pem
    other_chain, other_key = pem_in(tmp_path, name="other")
    text = tmp_path / "text"
    text.write_text("hello")
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        load_pem_private_key(other_key.read_bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    for files, said in {
        (tmp_path / "none", key): "none cannot be read: No such file",
        (chain, tmp_path / "none"): "none cannot be read: No such file",
        (tmp_path, key): "cannot be read: Is a directory",
        (chain, other_key): "other.key does not fit the certificate",
        (text, key): "cannot be used",
        (chain, text): "cannot be used",
        (other_chain, locked): "passphrase",
    }.items():
        with pytest.raises(InvalidConfig, match=said):
            Certificate(*files)


@pytest.mark.parametrize(("days", "said"), [(-1, "has expired on"), (3, "expires on"), (90, "")])
def test_a_certificate_that_ends_is_warned_of(tmp_path, caplog, pem_in, days, said):
    with caplog.at_level(logging.WARNING):
        Certificate(*pem_in(tmp_path, days=days))
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)
