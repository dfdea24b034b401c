"""
The same application behind Granian, instead of the HTTP server of our own.

    FAIRLEAD_PROJECT=FOLDER granian --interface rsgi --loop uvloop --factory \\
        fairlead.protocols.granian:application

It is there so that the choice of the server stays reversible: `http.py` answers about
twice as many requests a second, Granian speaks HTTP/2 and TLS. What a request may ask
(`Limits.body_bytes`) is held here; heads and idle times are Granian's own settings.
One worker: the log's idempotency keys are of one process.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fairlead import project
from fairlead.errors import FairleadError
from fairlead.project import Project
from fairlead.protocols.http import Exchange, Limits, Refused, Response
from fairlead.protocols.rest import Rest
from fairlead.protocols.status import of_error
from fairlead.serve.endpoints import Endpoints


def application() -> RsgiApplication:
    """Make the application of the project that FAIRLEAD_PROJECT, or the folder, names."""
    return RsgiApplication(project.find())


class RsgiApplication:
    """Turns RSGI calls into exchanges, and their answers back."""

    def __init__(self, served: Project, limits: Limits | None = None) -> None:
        self._endpoints = Endpoints(served, None)
        self._rest = Rest(self._endpoints)
        self._limits = limits or Limits()
        self._opened: asyncio.Task[None]

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to load the endpoints; requests wait until they are there."""
        self._opened = loop.create_task(self._endpoints.open())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the log and give back the models."""
        self._rest.draining = True
        loop.run_until_complete(self._endpoints.close())

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        response = await self._answer(scope, protocol)
        headers = [("content-type", response.content_type.decode())]
        headers += [(name.decode(), value.decode()) for name, value in response.headers]
        body = b"" if scope.method == "HEAD" else response.body
        protocol.response_bytes(response.status, headers, body)

    async def _answer(self, scope: Any, protocol: Any) -> Response:
        try:
            await asyncio.shield(self._opened)
        except FairleadError as error:
            return of_error(error)
        body = await self._body(protocol)
        if body is None:
            limit = self._limits.body_bytes
            return self._rest.refuse(
                Refused(413, f"The body is over {limit} bytes.", "Send fewer rows at once.")
            )
        call = _Call(asyncio.get_running_loop())
        self._rest.handle(_exchange(scope, body, call))
        return await call.answered(protocol)

    async def _body(self, protocol: Any) -> bytes | None:
        """Read the body; None if it is larger than allowed."""
        pieces: list[bytes] = []
        room = self._limits.body_bytes
        async for piece in protocol:
            room -= len(piece)
            if room < 0:
                return None
            pieces.append(bytes(piece))
        return b"".join(pieces)


class _Call:
    """The peer of one exchange: a future that its answer resolves."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lost = False
        self.exchange: Exchange
        self._ready: asyncio.Future[Response] = loop.create_future()

    def flush(self) -> None:
        reply = self.exchange.reply
        if reply is not None and not self._ready.done():
            self._ready.set_result(reply)

    async def answered(self, protocol: Any) -> Response:
        """Wait for the answer, and note when the caller leaves before it."""
        leaving = asyncio.ensure_future(protocol.client_disconnect())
        leaving.add_done_callback(self._left)
        try:
            return await self._ready
        finally:
            leaving.cancel()

    def _left(self, leaving: asyncio.Future[None]) -> None:
        self.lost = self.lost or not leaving.cancelled()


def _exchange(scope: Any, body: bytes, call: _Call) -> Exchange:
    exchange = call.exchange = Exchange(call)
    query = f"?{scope.query_string}" if scope.query_string else ""
    exchange.method = scope.method.encode()
    exchange.target = f"{scope.path}{query}".encode()
    exchange.version = scope.http_version
    exchange.headers = {
        name.encode(): value.encode("latin-1", "replace") for name, value in scope.headers.items()
    }
    exchange.body = body
    return exchange
