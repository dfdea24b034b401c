"""The state of the server as a whole, for `/health/ready` and `/metrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from clewline.errors import NotFound, Overloaded
from clewline.protocols.peer_workers import PeerWorkers
from clewline.serve.served_endpoint import ServedEndpoint


class Lossy(Protocol):
    """What drops lines rather than wait, and counts them."""

    @property
    def dropped(self) -> int: ...


class Ending(Protocol):
    """What is valid until some time."""

    ends: float  # seconds since the epoch


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


class ServerHealth:
    """Written by the application, read by `/health/ready` and `/metrics`; on the loop's thread."""

    def __init__(self) -> None:
        self.draining = False  # it stops: whoever balances load should send no more
        self.statuses: Counter[tuple[str, int]] = Counter()  # (route, status) → requests
        self.refused: Counter[str] = Counter()  # code of the error → callers who did not pass
        self.peers: PeerWorkers | None = None  # the other workers, where there is a supervisor
        self.access_log: Lossy | None = None
        self.certificate: Ending | None = None
        self.connections: Callable[[], int] = int  # how many are open
