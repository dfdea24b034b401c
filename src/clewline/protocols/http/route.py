"""What a protocol over HTTP offers: routes, found by the path of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, NoReturn, Protocol

import msgspec

from clewline.errors import ClewlineError
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.serve.access import Need
from clewline.serve.served_endpoint import ServedEndpoint

READ = (b"GET", b"HEAD")
POST = (b"POST",)


class HttpRoute(msgspec.Struct, eq=False):
    """What answers the requests of one path, and who may send them."""

    name: str  # in metrics and logs: "predict", "oip.infer", "mlflow.invocations" …
    role: Need | None  # None: open to everyone, as health is; "any": any valid token
    methods: tuple[bytes, ...]  # empty: all
    handle: Callable[[HttpRequest], None]  # answers now or later; may raise ClewlineError at once
    admit: Callable[[HttpRequest], HttpResponse | None] | None = None  # refuses by the head alone
    endpoint: ServedEndpoint | None = None  # counts the requests
    shape_error: Callable[[HttpResponse], HttpResponse] | None = None  # into the protocol's own
    keep: bool = True  # found once and kept; False where paths are without number, as ids are


def error_route(
    name: str,
    error: ClewlineError,
    shape_error: Callable[[HttpResponse], HttpResponse] | None = None,
) -> HttpRoute:
    """Return a route that raises, for any caller who shows a valid token."""

    def fail(request: HttpRequest) -> NoReturn:
        raise error

    return HttpRoute(name, "any", (), fail, fail, shape_error=shape_error, keep=False)


class DocumentedRoute(NamedTuple):
    """A route as `/openapi.json` names it."""

    method: str  # get or post
    path: str  # `{name}` stands for one segment
    summary: str


class RouteGroup(NamedTuple):
    """The routes of a protocol as `/openapi.json` names them."""

    tag: str
    about: str
    routes: tuple[DocumentedRoute, ...]


class RouteFinder(Protocol):
    """The routes of one protocol."""

    def find(self, path: bytes) -> HttpRoute | None:
        """
        Return the route of a path (without query, decoded); None if the protocol has none.

        Raises:
            ClewlineError: The path belongs to the protocol, but names what does not exist.
        """
