"""
An HTTP/1.1 server on asyncio.

    bytes ─► HttpConnection (parser, limits) ─► application.handle(request)
    bytes ◄─ HttpConnection (order, back-pressure) ◄─ request.answer(response)

The application has plain callbacks on the loop's thread, not a coroutine per request, so
that it can batch what arrived over all connections in one turn of the loop. A TLS layer may
stand between the bytes and the connection.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from email.utils import formatdate

from clewline.protocols.http.connection import HttpConnection, ServerConnections
from clewline.protocols.http.listener import Acceptor, listening_socket
from clewline.protocols.http.request import HttpApplication, HttpLimits
from clewline.protocols.http.tls import Certificate, TlsLayer

logger = logging.getLogger(__name__)

TICK_S = 0.25
"""Time between two checks of deadlines; the clock that sets them is as coarse."""
REFRESH_S = 1.0
"""Time between two checks of the certificate's files."""
RESERVED_FILES = 256
"""Open files beside connections: of models, the log, the catalog."""


class HttpServer:
    """
    An HTTP server: it listens, owns its connections, and drains them when it stops.

    Args:
        application: Answers the requests.
        limits: Sizes and times that callers must keep to.
        certificate: If given, the server accepts TLS only.
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
        Listen on an address, and return the port; callers wait in its queue until `start`.

        Args:
            host: An IP address.
            port: 0 lets the system choose.

        Raises:
            Conflict: Another process listens there.
        """
        listening = listening_socket(host, port)
        self.take(listening)
        return int(listening.getsockname()[1])

    def take(self, *sockets: socket.socket) -> None:
        """Add sockets that listen already; the server closes them at the end."""
        self._sockets += sockets

    async def start(self) -> None:
        """Begin to answer on every socket."""
        loop = asyncio.get_running_loop()
        if self._ticker is None:
            _allow_files(self.shared.limits.connections)
            self._tick(loop)
        for taken in self._sockets[len(self._listeners) :]:
            self._listeners.append(Acceptor(loop, taken, self._connection))

    async def hand_over(self, wait_s: float) -> None:
        """
        Stop listening, while another process continues with the same sockets.

        An idle connection is closed after its next answer, so that no request is lost on its
        way. Connections that stay idle for `wait_s` are left to `drain`.
        """
        self.shared.draining = True
        for listener in self._listeners:
            listener.close()
        until = time.monotonic() + wait_s
        while self.shared.connections and time.monotonic() < until:
            await asyncio.sleep(0.01)

    async def drain(self) -> None:
        """Stop listening, answer the requests under way, then close every connection."""
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
        """Close the addresses and every connection at once."""
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
    """Raise the limit of open files as far as connections need it and the system allows."""
    wanted = connections + RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    if allowed < wanted:
        logger.warning(
            "the limit is %d connections, but only %d open files: raise it (ulimit -n)",
            connections,
            allowed,
        )
