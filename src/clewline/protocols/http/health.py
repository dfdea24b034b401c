"""
The state of the server as a whole, for `/health/ready` and `/metrics`.

Imports little at run time, because the supervisor imports it too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from clewline.errors import NotFound, Overloaded
from clewline.serve.metrics.metric_families import MetricFamily

if TYPE_CHECKING:
    from clewline.explain.requests import ExplanationRequests
    from clewline.protocols.http.access_log import AccessLog
    from clewline.protocols.http.tls import Certificate
    from clewline.serve.served_endpoint import ServedEndpoint


def require_ready(endpoint: ServedEndpoint) -> None:
    """
    Accept an endpoint that answers; a cold one does, after it is loaded.

    Raises:
        NotFound: It is unloaded.
        Overloaded: It is being loaded.
        ClewlineError: It failed to load; the reason.
    """
    if endpoint.state in ("ready", "cold"):
        return
    if endpoint.trouble is not None:
        raise endpoint.trouble
    if endpoint.state == "unloaded":
        raise NotFound(f"{endpoint.name} is unloaded.", "An operator can load it.")
    raise Overloaded(f"{endpoint.name} is {endpoint.state}.", "Ask again in a second.")


class Readiness(NamedTuple):
    """How many workers answer, of how many, and why the others do not."""

    ready: int
    of: int
    reasons: tuple[str, ...] = ()


class PeerWorkers(Protocol):
    """The workers of a server that has a supervisor."""

    def readiness(self) -> Readiness:
        """Count the workers that answer."""

    def gather(
        self, own: list[MetricFamily], then: Callable[[Callable[[], list[MetricFamily]]], None]
    ) -> None:
        """Call `then`, on this thread, with a function that merges the metrics of all workers."""


class ServerHealth:
    """The state of a server. The application writes it; it lives on the loop's thread."""

    def __init__(self) -> None:
        self.draining = False  # it stops, and load balancers should send no more
        self.statuses: Counter[tuple[str, int]] = Counter()  # (route, status) → requests
        self.refused: Counter[str] = Counter()  # code of the error → callers without access
        self.peers: PeerWorkers | None = None  # all workers, if there is a supervisor
        self.explanations: ExplanationRequests | None = None
        self.explaining: Callable[[], list[list[MetricFamily]]] = list  # without a supervisor
        self.access_log: AccessLog | None = None
        self.certificate: Certificate | None = None
        self.connections: Callable[[], int] = int  # number of open connections
