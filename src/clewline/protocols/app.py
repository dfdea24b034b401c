"""
The application behind the HTTP server: finds the route, checks access, counts, logs.

    request ─► route of its path ─► host, origin ─► token ─► method ─► route.handle

This module has what all routes share: one table turns errors into answers, and a caller
without access does not learn which names exist.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import unquote_to_bytes

from clewline.errors import ClewlineError, NotFound
from clewline.explain.requests import ExplanationRequests
from clewline.protocols.http.access import check_token
from clewline.protocols.http.access_log import AccessLog
from clewline.protocols.http.error_responses import coded_response, error_response, refusal_response
from clewline.protocols.http.health import ServerHealth
from clewline.protocols.http.host_check import HostCheck
from clewline.protocols.http.request import HttpRefusal, HttpRequest, HttpResponse
from clewline.protocols.http.route import HttpRoute, RouteFinder, error_route
from clewline.protocols.mlflow import scoring as mlflow
from clewline.protocols.oip import rest as oip
from clewline.protocols.rest.routes import RestRoutes
from clewline.serve.access import TokenChecker
from clewline.serve.endpoint_server import EndpointServer

KNOWN_PATHS = 65_536
"""Maximum paths whose routes are kept; other routes are found anew for each request."""
SHOWN_CHARACTERS = 200


def make_app(
    endpoints: EndpointServer,
    token_checker: TokenChecker,
    *,
    asking: socket.socket | None = None,
    log: AccessLog | None = None,
    behind_proxy: bool = False,
    is_loopback: bool = True,
) -> HttpApp:
    """
    Return the application with all protocols over HTTP.

    Args:
        endpoints: Answers the requests to predict.
        token_checker: Checks the caller's access.
        asking: The end of the channel on which the explaining process is asked; None: there is
            no such process.
        log: Gets a line for each request.
        behind_proxy: Whether to trust the last address in X-Forwarded-For.
        is_loopback: Whether the server is bound to loopback.
    """
    health = ServerHealth()
    if asking is not None:
        health.explanations = ExplanationRequests(asking, endpoints.under_way)
    rest = RestRoutes(endpoints, health, (oip.DOCUMENTED, mlflow.DOCUMENTED))
    protocols: tuple[RouteFinder, ...] = (
        rest,
        oip.OipRestRoutes(endpoints, rest.ready, token_checker, health.explanations),
        mlflow.MlflowRoutes(endpoints, rest.ready),
    )
    hosts = HostCheck(endpoints.project.allowed_hosts, is_loopback=is_loopback)
    return HttpApp(protocols, token_checker, health, hosts, log=log, behind_proxy=behind_proxy)


class HttpApp:
    """
    The application of a server. Lives on the loop's thread.

    Args:
        protocols: Find the routes; the first protocol that knows a path has it.
        token_checker: Checks the caller's access.
        health: The state of the server as a whole.
        hosts: Checks the host and the origin of each request.
        log: Gets a line for each request.
        behind_proxy: Whether to trust the last address in X-Forwarded-For.
    """

    def __init__(
        self,
        protocols: Iterable[RouteFinder],
        token_checker: TokenChecker,
        health: ServerHealth,
        hosts: HostCheck,
        *,
        log: AccessLog | None = None,
        behind_proxy: bool = False,
    ) -> None:
        self.health = health
        health.refused, health.access_log = token_checker.refused, log
        self._protocols = tuple(protocols)
        self.token_checker = token_checker
        self.hosts = hosts
        self.log = log
        self._behind_proxy = behind_proxy
        self._known_routes: dict[bytes, HttpRoute] = {}  # by path

    def handle(self, request: HttpRequest) -> None:
        """Find the route, check access, and have the request answered, now or later."""
        request.started = time.perf_counter()
        if self._behind_proxy:
            _trust_proxy(request)
        route = request.route = self._known_routes.get(request.target) or self._find(request)
        headers = request.headers
        try:
            if (
                headers.get(b"host") not in self.hosts.known
                or b"origin" in headers
                or b"sec-fetch-site" in headers
            ):
                self.hosts.check(headers)
            if self.token_checker.required or b"authorization" in headers:
                self._check_access(request, route)
            if request.method in route.methods or not route.methods:
                request.is_handled = True
                route.handle(request)
            else:
                request.answer(_shape_error(route, _wrong_method(request, route)))
        except ClewlineError as error:
            request.answer(_shape_error(route, error_response(error)))

    def answered(self, request: HttpRequest) -> None:
        """Count a request that has its answer, and leave its line in the access log."""
        route, reply = request.route, request.reply
        assert reply is not None
        if request.is_handled and route.endpoint is not None and not request.tried:
            seconds = time.perf_counter() - request.started
            endpoint = route.endpoint
            (endpoint.opened_statistics or endpoint.statistics).record_request(
                (reply.status, seconds)
            )
        # As `_note` does, without a call: every request comes here.
        self.health.statuses[route.name, reply.status] += 1
        if self.log is not None:
            self.log.note(request, route, reply)

    def screen(self, request: HttpRequest) -> HttpResponse | None:
        """Refuse a large body from a caller who has no access."""
        return self._refusal_by_head(request, is_whole=False)

    def admit(self, request: HttpRequest) -> HttpResponse | None:
        """Refuse a request by its head, before its body is sent."""
        return self._refusal_by_head(request, is_whole=True)

    def refuse(self, request: HttpRequest, refusal: HttpRefusal) -> HttpResponse:
        """Return the answer to a request that the HTTP server refuses."""
        response = refusal_response(refusal)
        if request.route is None:  # otherwise `answered` counts it
            self._note(request, REFUSED, response)
        return response

    def _find(self, request: HttpRequest) -> HttpRoute:
        """Find a route; if there is none, return one that answers so."""
        path = request.target.partition(b"?")[0]
        try:
            if not path.startswith(b"/") and b"://" in path:  # absolute form (RFC 9112, 3.2.2)
                authority, _, rest = path.partition(b"://")[2].partition(b"/")
                self.hosts.check_host(authority)
                path = b"/" + rest
            path = _decoded(path)
        except ClewlineError as failure:
            return error_route("unknown", failure)
        if (known := self._known_routes.get(path)) is not None:
            return known
        try:
            for protocol in self._protocols:
                if (route := protocol.find(path)) is not None:
                    if route.keep and b"%" not in path and len(self._known_routes) < KNOWN_PATHS:
                        self._known_routes[path] = route
                    return route
        except ClewlineError as failure:
            return error_route("unknown", failure)
        return error_route("unknown", _nothing_at(path))

    def _check_access(self, request: HttpRequest, route: HttpRoute) -> None:
        if route.role is not None:
            request.identity = check_token(self.token_checker, request, route.role)

    def _refusal_by_head(self, request: HttpRequest, *, is_whole: bool) -> HttpResponse | None:
        """Return why a request is refused by its head; `is_whole`: for more than missing access."""
        if self._behind_proxy:
            _trust_proxy(request)
        route = self._find(request)
        response = None
        try:
            self.hosts.check(request.headers)
            self._check_access(request, route)
            if is_whole and route.methods and request.method not in route.methods:
                response = _wrong_method(request, route)
            elif is_whole and route.admit is not None:
                response = route.admit(request)
        except ClewlineError as error:
            response = error_response(error)
        if response is not None:
            response = _shape_error(route, response)
            self._note(request, route, response)
        return response

    def _note(self, request: HttpRequest, route: HttpRoute, response: HttpResponse) -> None:
        self.health.statuses[route.name, response.status] += 1
        if self.log is not None:
            self.log.note(request, route, response)


REFUSED = error_route("refused", NotFound("There is nothing here."))
"""The route under which a request is counted that the server itself refuses."""


def _shape_error(route: HttpRoute, response: HttpResponse) -> HttpResponse:
    """Return an error in the shape of the route's protocol."""
    return response if route.shape_error is None else route.shape_error(response)


def _wrong_method(request: HttpRequest, route: HttpRoute) -> HttpResponse:
    allowed = b", ".join(route.methods)
    message = f"The method {request.method.decode()} is not allowed. Use {allowed.decode()}."
    return coded_response("method_not_allowed", message, headers=((b"allow", allowed),))


def _decoded(path: bytes) -> bytes:
    """
    Decode a path; the names in our paths have no slash, so an encoded one is in none of them.

    Source:
        RFC 3986 (2.2, 7.3): a path is split at its slashes before it is decoded.
    """
    if b"%" not in path:
        return path
    if b"%2f" in path.lower():
        raise _nothing_at(path)
    return unquote_to_bytes(path)


def _nothing_at(path: bytes) -> NotFound:
    shown = path.decode("utf-8", "replace")[:SHOWN_CHARACTERS]
    return NotFound(f"There is nothing at {shown}.", "GET /openapi.json lists the routes.")


def _trust_proxy(request: HttpRequest) -> None:
    """Take the caller's address from the proxy: the last address, which the proxy itself saw."""
    last = request.headers.get(b"x-forwarded-for", b"").rpartition(b",")[2].strip()
    with suppress(ValueError):  # none was given: the connection's own address stands
        request.forwarded_for = str(ipaddress.ip_address(last.decode("latin-1")))
