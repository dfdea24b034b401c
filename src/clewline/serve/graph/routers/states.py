"""What routers have learned: numbered states in the catalog, followed by every server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from clewline.store.records import RouterState
from clewline.store.ref import RecordSource
from clewline.store.store import Store


class LearnedStates:
    """
    The latest states of the routers that somebody here asks for.

    `refresh` is called as often as other processes' states should be seen: all
    workers read one catalog, so they choose by one state. Any thread may ask.
    """

    def __init__(self, records: RecordSource) -> None:
        self._records = records
        self._latest: dict[tuple[str, str], RouterState | None] = {}

    def of(self, endpoint: str) -> Callable[[str], RouterState | None]:
        """Give what a `Builder` asks for the states of an endpoint, by the name of the route."""
        return lambda node: self._get(endpoint, node)

    def refresh(self) -> None:
        """Read the latest states again; the cost is one query for each route that learns."""
        for endpoint, node in list(self._latest):
            self._latest[endpoint, node] = latest(self._records, endpoint, node)

    def numbers(self) -> dict[tuple[str, str], int]:
        """Give the number of each state, by endpoint and node; 0 before anything was learned."""
        return {
            key: 0 if state is None else state.number for key, state in list(self._latest.items())
        }

    def _get(self, endpoint: str, node: str) -> RouterState | None:
        key = endpoint, node
        if key not in self._latest:  # once a route, while its revision is loaded
            self._latest[key] = latest(self._records, endpoint, node)
        return self._latest[key]


def latest(records: RecordSource, endpoint: str, node: str) -> RouterState | None:
    """Read the latest state of a router; None when it has learned nothing yet."""
    found = records.find(RouterState, order="-number", limit=1, endpoint=endpoint, node=node)
    return found[0] if found else None


def learn(store: Store, endpoint: str, node: str, content: dict[str, Any]) -> RouterState:
    """Record what a router has learned under the next number; every server follows."""
    with store.catalog.transaction() as transaction:
        before = latest(transaction, endpoint, node)
        state = RouterState(
            endpoint=endpoint,
            node=node,
            number=1 if before is None else before.number + 1,
            content=content,
            created=time.time(),
        )
        transaction.add(state)
    return state
