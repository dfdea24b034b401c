"""
An HTTP/1.1 server on asyncio.

    bytes ─► Connection (parser, limits) ─► Application.handle(request)
    bytes ◄─ Connection (order, back-pressure) ◄─ request.answer(Response)

The application is plain callbacks on the loop's thread, no coroutine a request,
so that it can gather what arrived over all connections in one turn of the loop.
Between the bytes and the connection TLS may stand.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import time
from email.utils import formatdate

from clewline.errors import Conflict
from clewline.protocols.http.accepting import Acceptor
from clewline.protocols.http.connection import HttpConnection, ServerConnections
from clewline.protocols.http.limits import HttpLimits
from clewline.protocols.http.request import (
    HttpApplication,
    HttpRefusal,
    HttpRequest,
    HttpResponse,
    ResponseStream,
)
from clewline.protocols.http.tls import Certificate, TlsLayer

__all__ = [
    "HttpApplication",
    "HttpLimits",
    "HttpRefusal",
    "HttpRequest",
    "HttpResponse",
    "HttpServer",
    "ResponseStream",
]

logger = logging.getLogger(__name__)

TICK_S = 0.25
"""How often deadlines are looked at; the clock that they are set by has this grain."""
REFRESH_S = 1.0
"""How often the files of a certificate are looked at."""
BACKLOG = 1024
"""Connections that the system holds until they are accepted; beyond it a caller waits a second."""
RESERVED_FILES = 256
"""Files that are open beside connections: models, the log, the catalog."""


class HttpServer:
    """
    Listens, owns its connections, and drains them when told to stop.

    Args:
        application: Who answers.
        limits: What callers may ask.
        certificate: With one, TLS is spoken, and nothing else.
    """

    def __init__(
        self,
        application: HttpApplication,
        limits: HttpLimits | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.shared = ServerConnections(application, limits or HttpLimits())
        self._certificate = certificate
        self._sockets: list[socket.socket] = []
        self._listeners: list[Acceptor] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._refresh_at = 0.0

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """
        Take the address; callers wait in its queue until `start`.

        Returns:
            The port, which the system chose when `port` is 0.

        Raises:
            Conflict: Another process listens there.
        """
        taken = listening_socket(host, port)
        self.take(taken)
        return int(taken.getsockname()[1])

    def take(self, *sockets: socket.socket) -> None:
        """Answer on sockets that listen already, too, from `start` on; closes them at the end."""
        self._sockets += sockets

    async def start(self) -> None:
        """Begin to answer on every socket that was taken."""
        loop = asyncio.get_running_loop()
        if self._ticker is None:
            _allow_files(self.shared.limits.connections)
            self._tick(loop)
        for taken in self._sockets[len(self._listeners) :]:
            self._listeners.append(Acceptor(loop, taken, self._connection))

    async def hand_over(self, wait_s: float) -> None:
        """
        Stop listening, while another process goes on with the same sockets.

        A connection that is idle now is closed after its next answer, so that no
        request is lost on its way; what is idle for `wait_s` is for `drain`.
        """
        self.shared.draining = True
        for listener in self._listeners:
            listener.close()
        until = time.monotonic() + wait_s
        while self.shared.connections and time.monotonic() < until:
            await asyncio.sleep(0.01)

    async def drain(self) -> None:
        """Stop listening, answer what is under way, then close every connection."""
        shared = self.shared
        shared.draining = True
        for listener in self._listeners:
            listener.close()
        until = time.monotonic() + shared.limits.drain_s
        for connection in tuple(shared.connections):
            connection.drain()
        while shared.connections and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self.close()

    def close(self) -> None:
        """Let go of the addresses and of every connection, at once."""
        for listener in self._listeners:
            listener.close()
        for taken in self._sockets:
            taken.close()
        for connection in tuple(self.shared.connections):
            connection.abort()
        if self._ticker is not None:
            self._ticker.cancel()

    def _connection(self) -> asyncio.Protocol:
        connection = HttpConnection(self.shared)
        if self._certificate is None:
            return connection
        return TlsLayer(connection, self._certificate.context)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        shared = self.shared
        shared.clock = clock = time.monotonic()
        shared.date = f"date: {formatdate(usegmt=True)}\r\n".encode()
        for connection in [c for c in shared.connections if c.deadline < clock]:
            connection.expire()
        if self._certificate is not None and clock > self._refresh_at:
            self._refresh_at = clock + REFRESH_S
            loop.run_in_executor(None, self._certificate.refresh)
        self._ticker = loop.call_later(TICK_S, self._tick, loop)


def _allow_files(connections: int) -> None:
    """Raise the limit of open files as far as the connections need and the system allows."""
    wanted = connections + RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    if allowed < wanted:
        logger.warning(
            "%d connections are allowed, and only %d files: raise the limit (ulimit -n)",
            connections,
            allowed,
        )


def listening_socket(host: str, port: int) -> socket.socket:
    """Make a socket that listens on an address; raises as `HttpServer.listen`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    # REUSEADDR lets a restarted server have its port back at once; on Linux it
    # never lets two servers listen on one port, as REUSEPORT would.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise Conflict(
                f"Port {port} on {host} cannot be listened on: {error.strerror}.",
                "Stop the server that holds it, or choose another one with --port N.",
            ) from error
        raise
    listening.setblocking(False)
    return listening
