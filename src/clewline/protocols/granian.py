"""
The same application behind Granian, in place of our own HTTP server.

    CLEWLINE_PROJECT=FOLDER granian --interface rsgi --loop uvloop --factory \\
        clewline.protocols.granian:application

It keeps the choice of the server reversible: our own answers about twice as many requests a
second, Granian has HTTP/2. The size of a body (`HttpLimits.body_bytes`) is limited here; heads
and idle times are settings of Granian. Use one worker: metrics and readiness are of one
process. Beyond loopback, callers need tokens here as well. Granian decodes paths, so `%2f` in
them is a slash here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import quote

from clewline import project
from clewline.errors import ClewlineError, UsageError
from clewline.project import Project
from clewline.protocols.app import HttpApp, make_app
from clewline.protocols.http.connection import SINGLE
from clewline.protocols.http.error_responses import error_response
from clewline.protocols.http.host_check import HostCheck
from clewline.protocols.http.request import (
    HttpRefusal,
    HttpRequest,
    HttpResponse,
    ResponseStream,
)
from clewline.protocols.http.request_headers import BODY_BYTES
from clewline.serve.access import TokenChecker, parse_address
from clewline.serve.endpoint_server import EndpointServer

logger = logging.getLogger(__name__)


def application() -> RsgiApplication:
    """Return the application of the project in CLEWLINE_PROJECT or in the current folder."""
    return RsgiApplication(project.find())


class RsgiApplication:
    """Answers RSGI calls."""

    def __init__(self, served: Project) -> None:
        self._endpoints = EndpointServer(served, None)
        self._token_checker = TokenChecker(served, required=True)
        self._app = make_app(self._endpoints, self._token_checker)
        hosts = served.allowed_hosts
        self._hosts = {local: HostCheck(hosts, is_loopback=local) for local in (True, False)}
        self._opened: asyncio.Task[None]

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start to load the endpoints; requests wait until they are loaded."""

        async def open_all() -> None:
            self._token_checker.open()
            await self._endpoints.open()

        self._opened = loop.create_task(open_all())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the log and the models."""
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
        query = f"?{scope.query_string}" if scope.query_string else ""
        request = RsgiRequest(
            address=_host(scope.client),
            ready=asyncio.get_running_loop().create_future(),
            more=asyncio.Event(),
            application=self._app,
            method=scope.method.encode(),
            target=f"{quote(scope.path)}{query}".encode(),  # Granian has decoded it
            version=scope.http_version,
            headers=_request_headers(scope),
        )
        self._follow_address(scope)
        if (refusal := await self._read_body(request, scope, protocol)) is not None:
            _send(scope, protocol, refusal)
            return
        self._follow_address(scope)  # another request may have come meanwhile
        self._app.handle(request)
        response = await request.answered(protocol)
        if request.stream is None:
            _send(scope, protocol, response)
        else:
            await request.send_stream(scope, protocol, response, request.stream)

    def _follow_address(self, scope: Any) -> None:
        """Ask for what the address asks for on which a request came: Granian does not tell ours."""
        try:
            is_loopback = parse_address(_host(scope.server)).is_loopback
        except UsageError:  # a socket of the file system, which others may forward to
            is_loopback = False
        self._token_checker.required = not is_loopback
        self._app.hosts = self._hosts[is_loopback]

    async def _read_body(
        self, request: HttpRequest, scope: Any, protocol: Any
    ) -> HttpResponse | None:
        """Read the body; return the refusal if it is not admitted, or too large."""
        for name in SINGLE & request.headers.keys():
            if len(scope.headers.get_all(name.decode())) > 1:
                message = f"The header {name.decode()} is repeated."
                return self._app.refuse(request, HttpRefusal(400, message, "Send it only once."))
        if b"host" not in request.headers and scope.http_version == "1.1":
            missing = HttpRefusal(400, "The header host is missing.", "HTTP/1.1 requires it.")
            return self._app.refuse(request, missing)
        if (refusal := self._app.screen(request)) is not None:
            return refusal
        pieces: list[bytes] = []
        room = BODY_BYTES
        async for piece in protocol:
            room -= len(piece)
            if room < 0:
                message = f"The body has more than {BODY_BYTES} bytes."
                refused = HttpRefusal(413, message, "Send fewer rows at once.")
                return self._app.refuse(request, refused)
            pieces.append(bytes(piece))
        request.body = b"".join(pieces)
        return None


class RsgiRequest(HttpRequest):
    """A request that came through Granian: its answer resolves a future."""

    application: HttpApp
    address: str
    ready: asyncio.Future[HttpResponse]
    more: asyncio.Event
    is_lost: bool = False
    is_aborted: bool = False

    @property
    def is_full(self) -> bool:
        return False

    def is_abandoned(self) -> bool:
        return self.is_lost

    def conclude(self) -> None:
        try:
            self.application.answered(self)
        except Exception:  # the answer leaves nevertheless
            logger.exception("a request could not be counted and logged")

    def flush(self) -> None:
        if self.reply is not None and not self.ready.done():
            self.ready.set_result(self.reply)
        self.more.set()

    def abort(self) -> None:
        self.is_aborted = True
        self.flush()

    async def answered(self, protocol: Any) -> HttpResponse:
        """Wait for the answer, and note when the caller leaves before it."""

        def left(leaving: asyncio.Future[None]) -> None:
            self.is_lost = self.is_lost or not leaving.cancelled()

        leaving = asyncio.ensure_future(protocol.client_disconnect())
        leaving.add_done_callback(left)
        try:
            return await self.ready
        finally:
            leaving.cancel()

    async def send_stream(
        self, scope: Any, protocol: Any, head: HttpResponse, stream: ResponseStream
    ) -> None:
        """Send the pieces as the caller takes them."""
        out = protocol.response_stream(head.status, _headers(head))
        try:
            while True:
                self.more.clear()
                pieces = stream.take()
                stream.wake()
                for piece in pieces if scope.method != "HEAD" else ():
                    await out.send_bytes(piece)
                if self.is_aborted:
                    raise ConnectionAbortedError("the answer could not be completed")
                if stream.ended and not pieces:
                    return
                if not pieces:
                    await self.more.wait()
        finally:
            self.is_lost = True
            stream.wake()


def _send(scope: Any, protocol: Any, response: HttpResponse) -> None:
    body = b"" if scope.method == "HEAD" else response.body
    protocol.response_bytes(response.status, _headers(response), body)


def _headers(response: HttpResponse) -> list[tuple[str, str]]:
    headers = [("content-type", response.content_type.decode())]
    return headers + [(name.decode(), value.decode()) for name, value in response.headers]


def _request_headers(scope: Any) -> dict[bytes, bytes]:
    headers = {
        name.encode(): b", ".join(value.encode("latin-1") for value in scope.headers.get_all(name))
        for name in scope.headers.keys()  # noqa: SIM118 (it is not a mapping)
    }
    if scope.authority is not None:  # takes precedence (RFC 9112, 3.2.2; RFC 9113, 8.3.1)
        headers[b"host"] = scope.authority.encode()
    return headers


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")
