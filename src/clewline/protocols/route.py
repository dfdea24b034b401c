"""What a protocol over HTTP offers: routes, found by the path of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

import msgspec

from clewline.errors import ClewlineError
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.serve.access import Need
from clewline.serve.endpoint_server import ServedEndpoint

READ = (b"GET", b"HEAD")
POST = (b"POST",)


class HttpRoute(msgspec.Struct, eq=False):
    """Where requests of one path go, and who may send them."""

    name: str  # for metrics and logs: "predict", "oip.infer", "mlflow.invocations" …
    role: Need | None  # None: open to everyone, as health is; "any": any valid token
    methods: tuple[bytes, ...]  # others are told which ones there are
    handle: Callable[[HttpRequest], None]  # answers now or later; may raise a ClewlineError at once
    admit: Callable[[HttpRequest], HttpResponse | None] | None = None  # judges by the head alone
    endpoint: ServedEndpoint | None = None
    dress: Callable[[HttpResponse], HttpResponse] | None = (
        None  # gives an error the protocol's own shape
    )
    keep: bool = True  # found once and remembered; False where paths have no end, as ids have none


def error_route(
    name: str, error: ClewlineError, dress: Callable[[HttpResponse], HttpResponse] | None = None
) -> HttpRoute:
    """Return a route that raises, for any caller who shows a valid token."""

    def fail(request: HttpRequest) -> NoReturn:
        raise error

    return HttpRoute(name, "any", (), fail, fail, dress=dress, keep=False)


class RouteFinder(Protocol):
    """What each protocol offers to the application."""

    def find(self, path: bytes) -> HttpRoute | None:
        """
        Find the route of a path (without query, decoded); None when it is none of this protocol's.

        Raises:
            ClewlineError: It is, and what it names is not there.
        """
