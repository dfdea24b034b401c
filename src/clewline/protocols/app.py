"""
The application behind the HTTP server: finds the route, checks access, counts, logs.

    exchange ─► route of its path ─► token ─► method ─► route.handle

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
from clewline.protocols.health import ServerHealth
from clewline.protocols.http.exchange import Exchange, Refused, Response
from clewline.protocols.mlflow import Mlflow
from clewline.protocols.oip.rest import OipRest
from clewline.protocols.rest import Rest
from clewline.protocols.route import Route, Routes
from clewline.protocols.status import of_code, of_error, of_refusal
from clewline.serve.access import TokenChecker
from clewline.serve.endpoints import Endpoints

KNOWN_PATHS = 65_536
"""Paths whose routes are remembered; others are found anew each time."""
SHOWN_CHARACTERS = 200


def make_app(
    endpoints: Endpoints,
    gatekeeper: TokenChecker,
    *,
    log: AccessLog | None = None,
    behind_proxy: bool = False,
) -> App:
    """Make the application of all protocols over HTTP."""
    vitals = ServerHealth()
    rest = Rest(endpoints, vitals)
    protocols: tuple[Routes, ...] = (
        rest,
        OipRest(endpoints, rest.ready),
        Mlflow(endpoints, rest.ready),
    )
    return App(protocols, gatekeeper, vitals, log=log, behind_proxy=behind_proxy)


class App:
    """
    The application of a server. Lives on the loop's thread.

    Args:
        protocols: Where routes are found; the first that knows a path has it.
        gatekeeper: Who may ask what.
        vitals: What the routes tell of the server as a whole.
        log: Where each request leaves a line.
        behind_proxy: Whether the last address of X-Forwarded-For is to be believed.
    """

    def __init__(
        self,
        protocols: Iterable[Routes],
        gatekeeper: TokenChecker,
        vitals: ServerHealth,
        *,
        log: AccessLog | None = None,
        behind_proxy: bool = False,
    ) -> None:
        self.vitals = vitals
        vitals.refused, vitals.access_log = gatekeeper.refused, log
        self._protocols = tuple(protocols)
        self.gatekeeper = gatekeeper
        self.log = log
        self._behind_proxy = behind_proxy
        self._known: dict[bytes, Route] = {}  # path → route, of paths that were asked before

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""
        exchange.started = time.perf_counter()
        if self._behind_proxy:
            _believe_proxy(exchange)
        route = self._known.get(exchange.target) or self._find(exchange)
        exchange.route = route
        exchange.settled = self._settled
        try:
            if self.gatekeeper.required or b"authorization" in exchange.headers:
                self._check(exchange, route)
            if exchange.method in route.methods or not route.methods:
                route.handle(exchange)
            else:
                exchange.answer(_dressed(route, _wrong_method(exchange, route)))
        except ClewlineError as error:
            exchange.answer(_dressed(route, of_error(error)))

    def screen(self, exchange: Exchange) -> Response | None:
        """Let only those send a large body who may ask at all."""
        return self._judge(exchange, by_head=False)

    def admit(self, exchange: Exchange) -> Response | None:
        """Judge a request by its head, before its body is sent."""
        return self._judge(exchange, by_head=True)

    def refuse(self, exchange: Exchange, refused: Refused) -> Response:
        """Give the answer to what the HTTP server refuses."""
        response = of_refusal(refused)
        if exchange.settled is None:  # else it is counted when the exchange has its answer
            self._note(exchange, REFUSED, response)
        return response

    def _find(self, exchange: Exchange) -> Route:
        """Find a route; where there is none, one that says so."""
        path = _path(exchange.target)
        if (known := self._known.get(path)) is not None:
            return known
        try:
            for protocol in self._protocols:
                if (route := protocol.find(path)) is not None:
                    if route.keep and b"%" not in path and len(self._known) < KNOWN_PATHS:
                        self._known[path] = route
                    return route
        except ClewlineError as error:
            return _dead_end(error)
        shown = path.decode("utf-8", "replace")[:SHOWN_CHARACTERS]
        return _dead_end(
            NotFound(f"There is nothing at {shown}.", "GET /openapi.json lists the routes.")
        )

    def _check(self, exchange: Exchange, route: Route) -> None:
        if route.role is None:
            return
        header = exchange.headers.get(b"authorization")
        presented = None if header is None else header.decode("latin-1")
        exchange.identity = self.gatekeeper.check(presented, exchange.peer_address, route.role)

    def _judge(self, exchange: Exchange, *, by_head: bool) -> Response | None:
        if self._behind_proxy:
            _believe_proxy(exchange)
        route = self._find(exchange)
        response = None
        try:
            self._check(exchange, route)
            if by_head and exchange.method not in route.methods and route.methods:
                response = _wrong_method(exchange, route)
            elif by_head and route.admit is not None:
                response = route.admit(exchange)
        except ClewlineError as error:
            response = of_error(error)
        if response is not None:
            response = _dressed(route, response)
            self._note(exchange, route, response)
        return response

    def _settled(self, exchange: Exchange) -> None:
        reply = exchange.reply
        assert reply is not None
        self.vitals.statuses[exchange.route.name, reply.status] += 1
        if self.log is not None:
            self.log.note(exchange, exchange.route, reply)

    def _note(self, exchange: Exchange, route: Route, response: Response) -> None:
        """Count an answer, and leave its line in the log."""
        self.vitals.statuses[route.name, response.status] += 1
        if self.log is not None:
            self.log.note(exchange, route, response)


def _nothing(exchange: Exchange) -> None:
    raise NotFound("There is nothing here.", "GET /openapi.json lists the routes.")


REFUSED = Route("refused", None, (), _nothing)
"""What a request is counted as that the server itself refuses."""


def _dead_end(error: ClewlineError) -> Route:
    """Give a route that leads to an error, for those who may know that there is nothing."""

    def handle(exchange: Exchange) -> None:
        raise error

    def admit(exchange: Exchange) -> Response:
        raise error

    return Route("unknown", "any", (), handle, admit)


def _dressed(route: Route, response: Response) -> Response:
    """Give an error the shape that the route's protocol has for it."""
    return response if route.dress is None else route.dress(response)


def _wrong_method(exchange: Exchange, route: Route) -> Response:
    allowed = b", ".join(route.methods)
    message = f"{exchange.method.decode()} is not answered here. Use {allowed.decode()}."
    return of_code("method_not_allowed", message, headers=((b"allow", allowed),))


def _path(target: bytes) -> bytes:
    """Give the path of a target: without query, without the origin of an absolute form."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") and b"://" in path:
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    return unquote_to_bytes(path) if b"%" in path else path


def _believe_proxy(exchange: Exchange) -> None:
    """Take the caller's address from the proxy: the last one, which the proxy itself has seen."""
    last = exchange.headers.get(b"x-forwarded-for", b"").rpartition(b",")[2].strip()
    try:
        exchange.came_for(str(ipaddress.ip_address(last.decode("latin-1"))))
    except ValueError:
        return  # none was given: the connection's own address stands
