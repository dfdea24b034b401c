"""
TLS between a transport and a connection of ours.

    bytes ─► TlsLayer.data_received ─► Connection.data_received
    bytes ◄─ TlsLayer's transport   ◄─ Connection writes

asyncio's own TLS tells a connection nothing before the handshake is over, and
cannot end one direction alone. Here a connection is counted from its first
moment, its handshake has a deadline, and the last answer is followed by a
close_notify and by reading on for a moment, as without TLS.
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
"""The first byte of every TLS connection: no HTTP request begins so."""
READ_BYTES = 256 << 10
WARN_DAYS = 14
"""A certificate that ends so soon is warned of."""
PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    b"connection: close\r\n\r\n%b"
)
PLAIN_BODY = (
    b'{"error":{"code":"bad_request",'
    b'"message":"TLS is spoken here, and this was plain HTTP. Use https://."}}'
)


class Certificate:
    """
    A certificate with its private key, as files have them; read again when they change.

    Args:
        chain: A PEM file: the server's certificate, then those that it rests on.
        key: A PEM file with its private key, without a passphrase.

    Raises:
        InvalidConfig: A file is missing or no PEM, or the key does not fit.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self.chain, self.key = chain, key
        self.context = _context(chain, key)
        self._seen = self._stamp()
        self.ends = _warn_of_end(chain)  # when it does, in seconds since the epoch

    def refresh(self) -> bool:
        """Read files that have changed, for new connections; tell whether they were taken."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self.context = _context(self.chain, self.key)
        except InvalidConfig as error:
            logger.error("the certificate from before stays in use: %s", error)
            return False
        logger.info("the certificate %s was read anew", self.chain)
        self.ends = _warn_of_end(self.chain)
        return True

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self.chain, self.key))


class TlsLayer(asyncio.Protocol):
    """The protocol of a transport, and itself the transport of a connection."""

    def __init__(self, connection: HttpConnection, context: ssl.SSLContext) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._transport: Transport
        self._is_begun = False
        self._is_shaken = False
        self._deaf = False  # what still comes in is thrown away
        self._paused = False
        self._early: list[bytes] = []  # written before the handshake was over
        self._ends_early = False
        self._is_ended = False  # nothing is written any more

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(Transport, transport)
        self._connection.begin(self)
        self._allow(self._connection.limits.handshake_s)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if not self._is_begun and data[0] != HANDSHAKE:
            self._give_up(PLAIN % (len(PLAIN_BODY), PLAIN_BODY))
            return
        self._is_begun = True
        self._incoming.write(data)
        if not self._is_shaken:
            self._shake()
        if self._is_shaken:
            self._read_on()

    def eof_received(self) -> bool:
        """Keep a connection that ends one direction for as long as answers are owed."""
        self._deaf = True
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = True
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    # ---- the connection's side

    def write(self, data: bytes) -> None:
        """Encrypt and send; what comes before the end of the handshake waits for it."""
        if not self._is_shaken:
            self._early.append(data)
            return
        rest = memoryview(data)
        while rest:  # a record at a time
            rest = rest[self._tls.write(rest) :]
        self._flush()

    def write_eof(self) -> None:
        """Say that no more comes (close_notify), and throw away what still comes in."""
        if not self._is_shaken:
            self._ends_early = True
            return
        self._notify()
        self._transport.write_eof()

    def close(self) -> None:
        """Say that no more comes, then end."""
        if self._is_shaken:
            self._notify()
        self._deaf = True
        self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._deaf = True
        self._transport.abort()

    def pause_reading(self) -> None:
        """Decrypt nothing until `resume_reading`."""
        self._paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on with what has come in, and what will."""
        self._paused = False
        self._transport.resume_reading()
        asyncio.get_running_loop().call_soon(self._read_on)

    def get_write_buffer_size(self) -> int:
        """Tell how many bytes were not sent yet."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._early))

    def get_extra_info(self, name: str) -> Any:
        """Give what the transport knows."""
        return self._transport.get_extra_info(name)

    # ---- helpers

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            logger.debug("a TLS handshake failed: %s", error)
            self._give_up(self._outgoing.read())
        else:
            self._is_shaken = True
            self._connection.restart_clock()
            early, self._early = b"".join(self._early), []
            self.write(early)
            if self._ends_early:
                self.write_eof()

    def _read_on(self) -> None:
        """Decrypt what has come in, and hand it on."""
        while not (self._paused or self._deaf):
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

    def _notify(self) -> None:
        """Send close_notify, once."""
        if self._is_ended:
            return
        self._is_ended = self._deaf = True
        # It is sent though the other side's has not come, which is what the error says.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def _give_up(self, last_words: bytes) -> None:
        """Say why there is no handshake, and end after a moment, so that it can be read."""
        self._deaf = True
        if last_words:
            self._transport.write(last_words)
        self._transport.write_eof()
        self._allow(self._connection.limits.linger_s)

    def _allow(self, seconds: float) -> None:
        self._connection.deadline = self._connection.shared.clock + seconds


def _context(chain: Path, key: Path) -> ssl.SSLContext:
    for path in (chain, key):
        _require_readable(path)
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
                "Name the key that the certificate was made with.",
            ) from error
        raise InvalidConfig(
            f"{chain} with {key} cannot be used: {reason}.",
            "Both are PEM files; the certificate stands first in its file, "
            "and the key has no passphrase.",
        ) from error
    return context


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")  # OpenSSL would ask for it on the terminal


def _require_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise InvalidConfig(
            f"{path} cannot be read: {error.strerror}.", "Name a PEM file that is there."
        ) from error


def _warn_of_end(chain: Path) -> float:
    """Tell when a certificate ends; warn if callers will refuse it, now or soon."""
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


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Tell one state of a file from another; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
