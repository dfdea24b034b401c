"""
The application behind the HTTP server: finds the route, checks access, counts, logs.

    request ─► route of its path ─► token ─► method ─► route.handle

What all routes share stands here once: errors become answers by the one table,
and a caller who may not ask learns of no name that is there.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from clewline.errors import ClewlineError, NotFound
from clewline.protocols.access_log import AccessLog
from clewline.protocols.error_responses import coded_response, error_response, refusal_response
from clewline.protocols.health import ServerHealth
from clewline.protocols.http.request import HttpRefusal, HttpRequest, HttpResponse
from clewline.protocols.mlflow.routes import Mlflow
from clewline.protocols.oip.rest import OipRestRoutes
from clewline.protocols.rest.routes import RestRoutes
from clewline.protocols.route import HttpRoute, RouteFinder, error_route
from clewline.serve.access import TokenChecker
from clewline.serve.endpoint_server import EndpointServer

KNOWN_PATHS = 65_536
"""Paths whose routes are remembered; others are found anew each time."""
SHOWN_CHARACTERS = 200


def make_app(
    endpoints: EndpointServer,
    token_checker: TokenChecker,
    *,
    log: AccessLog | None = None,
    behind_proxy: bool = False,
) -> HttpApp:
    """Make the application of all protocols over HTTP."""
    health = ServerHealth()
    rest = RestRoutes(endpoints, health)
    protocols: tuple[RouteFinder, ...] = (
        rest,
        OipRestRoutes(endpoints, rest.ready),
        Mlflow(endpoints, rest.ready),
    )
    return HttpApp(protocols, token_checker, health, log=log, behind_proxy=behind_proxy)


class HttpApp:
    """
    The application of a server. Lives on the loop's thread.

    Args:
        protocols: Where routes are found; the first that knows a path has it.
        token_checker: Who may ask what.
        health: What the routes tell of the server as a whole.
        log: Where each request leaves a line.
        behind_proxy: Whether the last address of X-Forwarded-For is to be believed.
    """

    def __init__(
        self,
        protocols: Iterable[RouteFinder],
        token_checker: TokenChecker,
        health: ServerHealth,
        *,
        log: AccessLog | None = None,
        behind_proxy: bool = False,
    ) -> None:
        self.health = health
        health.refused, health.access_log = token_checker.refused, log
        self._protocols = tuple(protocols)
        self.token_checker = token_checker
        self.log = log
        self._behind_proxy = behind_proxy
        self._known: dict[bytes, HttpRoute] = {}  # path → route, of paths that were asked before

    def handle(self, request: HttpRequest) -> None:
        """Answer a request, now or later."""
        request.started = time.perf_counter()
        if self._behind_proxy:
            _believe_proxy(request)
        route = self._known.get(request.target) or self._find(request)
        request.route = route
        request.settled = self._settled
        try:
            if self.token_checker.required or b"authorization" in request.headers:
                self._check(request, route)
            if request.method in route.methods or not route.methods:
                route.handle(request)
            else:
                request.answer(_dressed(route, _wrong_method(request, route)))
        except ClewlineError as error:
            request.answer(_dressed(route, error_response(error)))

    def screen(self, request: HttpRequest) -> HttpResponse | None:
        """Let only those send a large body who may ask at all."""
        return self._judge(request, by_head=False)

    def admit(self, request: HttpRequest) -> HttpResponse | None:
        """Judge a request by its head, before its body is sent."""
        return self._judge(request, by_head=True)

    def refuse(self, request: HttpRequest, refused: HttpRefusal) -> HttpResponse:
        """Give the answer to what the HTTP server refuses."""
        response = refusal_response(refused)
        if request.settled is None:  # else it is counted when the request has its answer
            self._note(request, REFUSED, response)
        return response

    def _find(self, request: HttpRequest) -> HttpRoute:
        """Find a route; where there is none, one that says so."""
        path = _path(request.target)
        if (known := self._known.get(path)) is not None:
            return known
        try:
            for protocol in self._protocols:
                if (route := protocol.find(path)) is not None:
                    if route.keep and b"%" not in path and len(self._known) < KNOWN_PATHS:
                        self._known[path] = route
                    return route
        except ClewlineError as error:
            return error_route("unknown", error)
        shown = path.decode("utf-8", "replace")[:SHOWN_CHARACTERS]
        fix = "GET /openapi.json lists the routes."
        return error_route("unknown", NotFound(f"There is nothing at {shown}.", fix))

    def _check(self, request: HttpRequest, route: HttpRoute) -> None:
        if route.role is None:
            return
        header = request.headers.get(b"authorization")
        presented = None if header is None else header.decode("latin-1")
        request.identity = self.token_checker.check(presented, request.peer_address, route.role)

    def _judge(self, request: HttpRequest, *, by_head: bool) -> HttpResponse | None:
        if self._behind_proxy:
            _believe_proxy(request)
        route = self._find(request)
        response = None
        try:
            self._check(request, route)
            if by_head and request.method not in route.methods and route.methods:
                response = _wrong_method(request, route)
            elif by_head and route.admit is not None:
                response = route.admit(request)
        except ClewlineError as error:
            response = error_response(error)
        if response is not None:
            response = _dressed(route, response)
            self._note(request, route, response)
        return response

    def _settled(self, request: HttpRequest) -> None:
        reply = request.reply
        assert reply is not None
        self.health.statuses[request.route.name, reply.status] += 1
        if self.log is not None:
            self.log.note(request, request.route, reply)

    def _note(self, request: HttpRequest, route: HttpRoute, response: HttpResponse) -> None:
        """Count an answer, and leave its line in the log."""
        self.health.statuses[route.name, response.status] += 1
        if self.log is not None:
            self.log.note(request, route, response)


def _nothing(request: HttpRequest) -> None:
    raise NotFound("There is nothing here.", "GET /openapi.json lists the routes.")


REFUSED = HttpRoute("refused", None, (), _nothing)
"""What a request is counted as that the server itself refuses."""


def _dressed(route: HttpRoute, response: HttpResponse) -> HttpResponse:
    """Give an error the shape that the route's protocol has for it."""
    return response if route.dress is None else route.dress(response)


def _wrong_method(request: HttpRequest, route: HttpRoute) -> HttpResponse:
    allowed = b", ".join(route.methods)
    message = f"{request.method.decode()} is not answered here. Use {allowed.decode()}."
    return coded_response("method_not_allowed", message, headers=((b"allow", allowed),))


def _path(target: bytes) -> bytes:
    """Give the path of a target: without query, without the origin of an absolute form."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") and b"://" in path:
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    return unquote_to_bytes(path) if b"%" in path else path


def _believe_proxy(request: HttpRequest) -> None:
    """Take the caller's address from the proxy: the last one, which the proxy itself has seen."""
    last = request.headers.get(b"x-forwarded-for", b"").rpartition(b",")[2].strip()
    try:
        request.came_for(str(ipaddress.ip_address(last.decode("latin-1"))))
    except ValueError:
        return  # none was given: the connection's own address stands
