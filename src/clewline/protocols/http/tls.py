"""
TLS between a transport and an `HttpConnection`.

    bytes ─► TlsLayer.data_received ─► HttpConnection.data_received
    bytes ◄─ TlsLayer's transport   ◄─ HttpConnection writes

asyncio's own TLS reports a connection only after the handshake, and cannot close one
direction alone. Here a connection counts from its start, its handshake has a deadline, and
after the last answer the layer sends close_notify and reads on for a moment, as without TLS.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from clewline.errors import InvalidConfig
from clewline.protocols.http.connection import HttpConnection, Transport

logger = logging.getLogger(__name__)

HANDSHAKE = 0x16
"""The first byte of every TLS connection; no HTTP request begins with it."""
READ_BYTES = 256 << 10
WARN_DAYS = 14
"""Days before the end of a certificate from which the log warns of it."""
PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%b"
)
PLAIN_BODY = (
    b'{"error":{"code":"bad_request",'
    b'"message":"This port accepts only TLS, but the request is plain HTTP. Use https://."}}'
)


class Certificate:
    """
    A certificate and its private key, from files that are read again when they change.

    Args:
        chain: A PEM file: the server's certificate, then those of its issuers.
        key: A PEM file with its private key, without a passphrase.

    Raises:
        InvalidConfig: A file is missing or is not PEM, or the key does not fit.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self.chain, self.key = chain, key
        self.context = _context(chain, key)
        self._seen = _file_states(chain, key)
        self.ends = _warn_of_end(chain)  # when it does, in seconds since the epoch

    def refresh(self) -> bool:
        """Read files that have changed, for new connections; return whether they are used."""
        states = _file_states(self.chain, self.key)
        if states == self._seen:
            return False
        self._seen = states
        try:
            self.context = _context(self.chain, self.key)
        except InvalidConfig as error:
            logger.error("the previous certificate stays in use: %s", error)
            return False
        logger.info("the certificate %s was read again", self.chain)
        self.ends = _warn_of_end(self.chain)
        return True


class TlsLayer(asyncio.Protocol):
    """The protocol of a transport, and the transport of an `HttpConnection`."""

    def __init__(self, connection: HttpConnection, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._transport: Transport
        self._is_begun = False
        self._is_established = False
        self._ignores_input = False  # further input is ignored
        self._paused = False
        self._early: list[bytes] = []  # written before the handshake was over
        self._ends_early = False
        self._is_closed = False  # nothing is written any more

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(Transport, transport)
        self._connection.begin(self)
        self._set_deadline(self._connection.limits.handshake_s)

    def data_received(self, data: bytes) -> None:
        if self._ignores_input:
            return
        if not self._is_begun and data[0] != HANDSHAKE:
            self._fail_handshake(PLAIN % (len(PLAIN_BODY), PLAIN_BODY))
            return
        self._is_begun = True
        self._incoming.write(data)
        if not self._is_established:
            self._do_handshake()
        if self._is_established:
            self._read_on()

    def eof_received(self) -> bool:
        """Take a FIN or close_notify, as `HttpConnection.eof_received` does."""
        self._ignores_input = True
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ignores_input = True
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    # ---- the connection's side

    def write(self, data: bytes) -> None:
        """Encrypt and send; data before the end of the handshake waits for it."""
        if not self._is_established:
            self._early.append(data)
            return
        rest = memoryview(data)
        while rest:  # a record at a time
            rest = rest[self._tls.write(rest) :]
        self._flush()

    def write_eof(self) -> None:
        """Send close_notify, and ignore further input."""
        if not self._is_established:
            self._ends_early = True
            return
        self._send_close_notify()
        self._transport.write_eof()

    def close(self) -> None:
        """Send close_notify, then close."""
        if self._is_established:
            self._send_close_notify()
        self._ignores_input = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._ignores_input = True
        self._transport.abort()

    def pause_reading(self) -> None:
        """Decrypt nothing until `resume_reading`."""
        self._paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Decrypt again: what has come in, and what will."""
        self._paused = False
        self._transport.resume_reading()
        asyncio.get_running_loop().call_soon(self._read_on)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes were not sent yet."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._early))

    def get_extra_info(self, name: str) -> Any:
        """Return what the transport knows."""
        return self._transport.get_extra_info(name)

    # ---- helpers

    def _do_handshake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            logger.debug("a TLS handshake failed: %s", error)
            self._fail_handshake(self._outgoing.read())
        else:
            self._is_established = True
            self._connection.restart_clock()
            early, self._early = b"".join(self._early), []
            self.write(early)
            if self._ends_early:
                self.write_eof()

    def _read_on(self) -> None:
        """Decrypt the input, and pass it on."""
        while not (self._paused or self._ignores_input):
            try:
                data = self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                logger.debug("a TLS connection failed: %s", error)
                self._flush()  # the alert says why
                self.close()
                return
            if data:
                self._connection.data_received(data)
            elif not self.eof_received():  # close_notify
                self.close()
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())

    def _send_close_notify(self) -> None:
        """Send close_notify, once."""
        if self._is_closed:
            return
        self._is_closed = self._ignores_input = True
        # It is sent though the other side's has not come, which is what the error says.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def _fail_handshake(self, last_words: bytes) -> None:
        """Send why the handshake failed; close after a moment, so that the caller can read it."""
        self._ignores_input = True
        if last_words:
            self._transport.write(last_words)
        self._transport.write_eof()
        self._set_deadline(self._connection.limits.linger_s)

    def _set_deadline(self, seconds: float) -> None:
        self._connection.deadline = self._connection.shared.clock + seconds


def _context(chain: Path, key: Path) -> ssl.SSLContext:
    for path in (chain, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise InvalidConfig(
                f"{path} cannot be read: {error.strerror}.", "Name an existing PEM file."
            ) from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(chain, key, password=_no_passphrase)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            raise InvalidConfig(
                f"The key {key} does not fit the certificate {chain}.",
                "Name the private key of the certificate.",
            ) from error
        raise InvalidConfig(
            f"{chain} with {key} cannot be used: {reason}.",
            "Use PEM files: the certificate first in its file, and a key without a passphrase.",
        ) from error
    return context


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")  # OpenSSL would ask for it on the terminal


def _warn_of_end(chain: Path) -> float:
    """Return when a certificate ends; warn if callers will refuse it, now or soon."""
    from cryptography.x509 import load_pem_x509_certificates

    certificate = load_pem_x509_certificates(chain.read_bytes())[0]
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    days = (ends.timestamp() - time.time()) / 86_400
    if days < 0:
        logger.warning("the certificate %s has expired on %s", chain, ends)
    elif days < WARN_DAYS:
        logger.warning("the certificate %s expires on %s", chain, ends)
    if begins.timestamp() > time.time():
        logger.warning("the certificate %s is not valid before %s", chain, begins)
    return ends.timestamp()


def _file_states(*paths: Path) -> list[tuple[int, int, int]]:
    """Return what changes with files: the inode, size and time of each that exists."""
    states = []
    for path in paths:
        with suppress(OSError):
            found = path.stat()
            states.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return states
