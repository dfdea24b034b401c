"""
The same application behind Granian, instead of the HTTP server of our own.

    CLEWLINE_PROJECT=FOLDER granian --interface rsgi --loop uvloop --factory \\
        clewline.protocols.granian:application

It is there so that the choice of the server stays reversible: `http.py` answers about
twice as many requests a second, Granian speaks HTTP/2 and TLS. What a request may ask
(`Limits.body_bytes`) is held here; heads and idle times are Granian's own settings.
One worker: metrics and readiness are of one process. Bound beyond loopback,
callers need tokens there as well.
"""

from __future__ import annotations

import asyncio
from typing import Any

from clewline import project
from clewline.errors import ClewlineError, UsageError
from clewline.project import Project
from clewline.protocols.app import make_app
from clewline.protocols.error_responses import error_response
from clewline.protocols.http.server import (
    HttpLimits,
    HttpRefusal,
    HttpRequest,
    HttpResponse,
    ResponseStream,
)
from clewline.serve.access import TokenChecker, is_loopback
from clewline.serve.endpoint_server import EndpointServer


def application() -> RsgiApplication:
    """Make the application of the project that CLEWLINE_PROJECT, or the folder, names."""
    return RsgiApplication(project.find())


class RsgiApplication:
    """Turns RSGI calls into requests, and their answers back."""

    def __init__(self, served: Project, limits: HttpLimits | None = None) -> None:
        self._endpoints = EndpointServer(served, None)
        self._token_checker = TokenChecker(served, required=True)
        self._app = make_app(self._endpoints, self._token_checker)
        self._limits = limits or HttpLimits()
        self._opened: asyncio.Task[None]

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to load the endpoints; requests wait until they are there."""
        self._opened = loop.create_task(self._open())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the log and give back the models."""
        self._app.health.draining = True
        loop.run_until_complete(self._endpoints.close())
        self._token_checker.close()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        try:
            await asyncio.shield(self._opened)
        except ClewlineError as error:
            _send(scope, protocol, error_response(error))
            return
        self._token_checker.required = not _is_bound_to_loopback(scope.server)
        call = _Call(asyncio.get_running_loop(), _host(scope.client))
        request = _request(scope, call)
        if (refusal := await self._read(request, protocol)) is not None:
            _send(scope, protocol, refusal)
            return
        self._app.handle(request)
        response = await call.answered(protocol)
        if request.stream is None:
            _send(scope, protocol, response)
        else:
            await call.stream(scope, protocol, response, request.stream)

    async def _open(self) -> None:
        self._token_checker.open()
        await self._endpoints.open()

    async def _read(self, request: HttpRequest, protocol: Any) -> HttpResponse | None:
        """Read the body; give the answer if it may not come in, or is larger than allowed."""
        if (refusal := self._app.screen(request)) is not None:
            return refusal
        pieces: list[bytes] = []
        room = self._limits.body_bytes
        async for piece in protocol:
            room -= len(piece)
            if room < 0:
                message = f"The body is over {self._limits.body_bytes} bytes."
                refused = HttpRefusal(413, message, "Send fewer rows at once.")
                return self._app.refuse(request, refused)
            pieces.append(bytes(piece))
        request.body = b"".join(pieces)
        return None


class _Call:
    """The peer of one request: resolves a future with its answer, and passes on its stream."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: str) -> None:
        self.lost = False
        self.is_full = False
        self.address = address
        self.request: HttpRequest
        self._ready: asyncio.Future[HttpResponse] = loop.create_future()
        self._more = asyncio.Event()
        self._leaving: asyncio.Future[None]
        self._aborted = False

    def flush(self) -> None:
        """Resolve with the answer, or say that its stream goes on."""
        reply = self.request.reply
        if reply is not None and not self._ready.done():
            self._ready.set_result(reply)
        self._more.set()

    def abort(self) -> None:
        """End the stream so that it is not taken for a whole."""
        self._aborted = True
        self.flush()

    async def answered(self, protocol: Any) -> HttpResponse:
        """Wait for the answer, and note when the caller leaves before it."""
        leaving = asyncio.ensure_future(protocol.client_disconnect())
        leaving.add_done_callback(self._left)
        try:
            return await self._ready
        finally:
            leaving.cancel()

    async def stream(
        self, scope: Any, protocol: Any, head: HttpResponse, stream: ResponseStream
    ) -> None:
        """Pass the pieces on as the caller takes them."""
        out = protocol.response_stream(head.status, _headers(head))
        try:
            while True:
                self._more.clear()
                pieces = stream.take()
                stream.wake()
                for piece in pieces if scope.method != "HEAD" else ():
                    await out.send_bytes(piece)
                if self._aborted:
                    raise ConnectionAbortedError("the answer could not be finished")
                if stream.ended and not pieces:
                    return
                if not pieces:
                    await self._more.wait()
        finally:
            self.lost = True
            stream.wake()

    def _left(self, leaving: asyncio.Future[None]) -> None:
        self.lost = self.lost or not leaving.cancelled()


def _send(scope: Any, protocol: Any, response: HttpResponse) -> None:
    body = b"" if scope.method == "HEAD" else response.body
    protocol.response_bytes(response.status, _headers(response), body)


def _headers(response: HttpResponse) -> list[tuple[str, str]]:
    headers = [("content-type", response.content_type.decode())]
    return headers + [(name.decode(), value.decode()) for name, value in response.headers]


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _is_bound_to_loopback(address: str) -> bool:
    try:
        return is_loopback(_host(address))
    except UsageError:
        return False


def _request(scope: Any, call: _Call) -> HttpRequest:
    request = call.request = HttpRequest(call)
    query = f"?{scope.query_string}" if scope.query_string else ""
    request.method = scope.method.encode()
    request.target = f"{scope.path}{query}".encode()
    request.version = scope.http_version
    request.headers = {
        name.encode(): value.encode("latin-1", "replace") for name, value in scope.headers.items()
    }
    return request
