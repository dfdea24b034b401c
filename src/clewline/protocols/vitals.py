"""What the routes tell of the server as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from clewline.protocols.workers.team import Team


class Lossy(Protocol):
    """What drops lines rather than wait, and counts them."""

    @property
    def dropped(self) -> int: ...


class Ending(Protocol):
    """What is valid until some time."""

    ends: float  # seconds since the epoch


class Vitals:
    """Written by the application, read by `/health/ready` and `/metrics`; on the loop's thread."""

    def __init__(self) -> None:
        self.draining = False  # it stops: whoever balances load should send no more
        self.statuses: Counter[tuple[str, int]] = Counter()  # (route, status) → requests
        self.refused: Counter[str] = Counter()  # code of the error → callers who did not pass
        self.team: Team | None = None  # the other workers, where there is a supervisor
        self.access_log: Lossy | None = None
        self.certificate: Ending | None = None
        self.connections: Callable[[], int] = int  # how many are open
