"""What the routes tell of the server as a whole."""

from __future__ import annotations

from collections import Counter

from fairlead.protocols.team import Team


class Vitals:
    """Written by the application, read by `/health/ready` and `/metrics`; on the loop's thread."""

    def __init__(self) -> None:
        self.draining = False  # it stops: whoever balances load should send no more
        self.statuses: Counter[tuple[str, int]] = Counter()  # (route, status) → requests
        self.team: Team | None = None  # the other workers, where there is a supervisor
