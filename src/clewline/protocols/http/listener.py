"""Listening sockets: one for each worker, all on one port; and accepting connections on them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from clewline.errors import Conflict

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that the kernel holds until they are accepted; beyond it a caller waits a second."""
MAX_ACCEPTED = 128
"""Maximum connections accepted in one turn of the loop."""
PAUSE_S = 1.0
"""How long nothing is accepted when the system has no files or memory left."""
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
LISTENING = "0A"  # a state in /proc/net/tcp


def listening_socket(host: str, port: int) -> socket.socket:
    """
    Return a socket that listens on an address; the system chooses the port if it is 0.

    Raises:
        Conflict: Another server listens there.
    """
    bound = _bind(host, port, shared=False)
    bound.listen(BACKLOG)
    return bound


def listening_sockets(host: str, port: int, count: int) -> list[socket.socket]:
    """
    Return `count` sockets that listen on one address; the system spreads callers over them.

    Args:
        host: An IP address.
        port: 0 lets the system choose.
        count: Number of sockets.

    Raises:
        Conflict: Another server listens there, of any user.
    """
    if port:
        _bind(host, port, shared=False).close()  # SO_REUSEPORT would not notice the other server
    taken: list[socket.socket] = []
    try:
        for _ in range(count):
            taken.append(_bind(host, port, shared=True))
            port = taken[0].getsockname()[1]
        for each in taken:
            each.listen(BACKLOG)
        if _is_foreign_listener(port, taken):
            raise _port_taken(host, port, "another server started on it at the same time")
    except BaseException:
        for each in taken:
            each.close()
        raise
    return taken


def reserve_port(host: str, port: int) -> socket.socket:
    """
    Return a socket that holds a port for others that bind it with SO_REUSEPORT; it never listens.

    Raises:
        Conflict: Another server listens there.
    """
    if port:
        _bind(host, port, shared=False).close()
    return _bind(host, port, shared=True)


def _bind(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    # REUSEADDR lets a restarted server have its port back at once; it never lets
    # two listen on one port, as REUSEPORT does for processes of one user.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise _port_taken(host, port, str(error.strerror)) from error
        raise
    bound.setblocking(False)
    return bound


def _port_taken(host: str, port: int, why: str) -> Conflict:
    return Conflict(
        f"Port {port} on {host} is not available: {why}.",
        "Stop the server that uses it, or choose another port with --port N.",
    )


def _is_foreign_listener(port: int, ours: list[socket.socket]) -> bool:
    """Return whether another process listens on the port."""
    own = {os.fstat(each.fileno()).st_ino for each in ours}
    addresses = {each.getsockname()[0] for each in ours}
    lines: list[str] = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):  # no such table on this system
            lines += table.read_text().splitlines()[1:]
    for words in map(str.split, lines):
        address, _, hexadecimal = words[1].partition(":")
        if words[3] != LISTENING or int(hexadecimal, 16) != port or int(words[9]) in own:
            continue
        if not int(address, 16) or _address_text(address) in addresses:
            return True
    return False


def _address_text(address: str) -> str:
    """
    Return an address that the kernel shows as words in the machine's byte order.

    >>> _address_text("0100007F")
    '127.0.0.1'
    """
    words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
    family = socket.AF_INET6 if len(words) > 1 else socket.AF_INET
    return socket.inet_ntop(family, b"".join(words))


class Acceptor:
    """
    Accepts connections on one listening socket, which it owns. Lives on the loop's thread.

    It accepts all that wait in one turn of the loop. libuv accepts one a turn: when turns take
    milliseconds, the last of a hundred callers would wait a hundred turns.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._loop = loop
        self._listening = listening
        self._make_protocol = make_protocol
        self._opening: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Stop accepting and close the socket. May be called twice."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
            self._listening.close()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTED):
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                logger.error("no connections are accepted for %g s: %s", PAUSE_S, error.strerror)
                self._loop.remove_reader(self._listening)
                self._pause = self._loop.call_later(PAUSE_S, self._listen)
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opening: asyncio.Task[object] = self._loop.create_task(
                self._loop.connect_accepted_socket(self._make_protocol, accepted)
            )
            self._opening.add(opening)
            opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[object]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and (error := opening.exception()) is not None:
            logger.warning("a connection could not be opened: %s", error)
