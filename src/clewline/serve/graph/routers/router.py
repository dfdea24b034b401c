"""
The part of a route that chooses the arm of each row.

Routers register under the entry-point group `clewline.routers`, ours and those of
plug-ins alike; the name of the entry point is the `kind:` of a `route:`. A router may
learn, as a bandit does: it is given the state learned so far, an immutable numbered
record, and reports with each arm how likely it was to choose it. Both are logged with
the prediction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.entry_points import load_entry_point
from clewline.serve.graph.node import Batch
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.tree import settings_text
from clewline.signature.field import Signature
from clewline.store.records import RouterState
from clewline.store.ref import RecordSource
from clewline.store.rows import UnreadableRecord
from clewline.store.store import Store

ROUTERS = "clewline.routers"

Config = dict[str, Any]

ArmDraws = tuple[NDArray[np.intp], NDArray[np.float64]]
"""For n rows, each of shape (n,): the index of the row's arm, and its propensity in (0, 1]."""


class RouteContext(msgspec.Struct, frozen=True, eq=False):
    """The route in which a router stands."""

    endpoint: str
    node: str  # name of the route
    arms: tuple[str, ...]
    signature: Signature  # of the batches that the router gets
    since: float  # when the revision was made, in seconds since the epoch


class Router:
    """
    The class of a router; its objects choose.

    A plug-in writes `__init__` and `choose`; the other methods have defaults.

    The same row with the same id and entity, under the same state, gets the same arm
    with the same propensity, whatever batch it stands in, in any process and after a
    restart: a replay depends on it. The batch's arrays must not be changed. Called from
    one thread at a time, and must be quick.
    """

    learns: ClassVar[bool] = False
    """Whether it wants states; if False, `choose` always gets None."""

    @classmethod
    def parse(cls, settings: Config, arms: list[str], at: str, problems: Problems) -> Config:
        """
        Read what an endpoint's file says beside `kind:` into what a revision keeps.

        Args:
            settings: The mapping, without `kind`.
            arms: Names of the arms.
            at: Path of keys to the mapping.
            problems: Where mistakes are added.
        """
        return settings

    @classmethod
    def check(cls, config: Config, signature: Signature, at: str, problems: Problems) -> None:
        """Check the config against the rows that the route gets; `at` is the name of the route."""

    @classmethod
    def config_text(cls, config: Config) -> str:
        """Write the config in one line, behind the router's name."""
        return settings_text(config)

    def __init__(self, config: Config, context: RouteContext) -> None:
        """
        Make a router of the config that a revision pins.

        Raises:
            InvalidConfig: The config has settings that this router does not know.
        """
        raise NotImplementedError

    def choose(self, batch: Batch, state: RouterState | None) -> ArmDraws:
        """
        Choose an arm for each row.

        Args:
            batch: n rows.
            state: What was learned; None before anything was.

        Returns:
            The arm of each row, and how likely the router was to choose it for this
            row, over its own randomness.
        """
        raise NotImplementedError


def router_class(name: str) -> type[Router]:
    """
    Find a router by its name.

    Raises:
        NotSupported: No installed package offers it.
    """
    found: type[Router] = load_entry_point(ROUTERS, name)
    return found


class LearnedStates:
    """
    The latest states of the routers that are in use here.

    Call `refresh` as often as states of other processes should be seen: all workers
    read one catalog, so they choose by the same state. Any thread may ask.
    """

    def __init__(self, records: RecordSource) -> None:
        self._records = records
        self._latest: dict[tuple[str, str], RouterState | None] = {}

    def of(self, endpoint: str) -> Callable[[str], RouterState | None]:
        """Return the function that gives a `Builder` the states of an endpoint by route."""

        def get(node: str) -> RouterState | None:
            key = endpoint, node
            if key not in self._latest:  # once for a route, while its revision is loaded
                self._latest[key] = latest_state(self._records, endpoint, node)
            return self._latest[key]

        return get

    def refresh(self) -> None:
        """Read the latest states again: one query for each route that learns."""
        for endpoint, node in list(self._latest):
            with suppress(UnreadableRecord):  # `clewline doctor` names it; the last one stays
                self._latest[endpoint, node] = latest_state(self._records, endpoint, node)

    def numbers(self) -> dict[tuple[str, str], int]:
        """Return the number of each state by endpoint and node; 0 before anything was learned."""
        return {
            key: 0 if state is None else state.number for key, state in list(self._latest.items())
        }


def latest_state(records: RecordSource, endpoint: str, node: str) -> RouterState | None:
    """Read the latest state of a router; None if it has learned nothing yet."""
    found = records.find(RouterState, order="-number", limit=1, endpoint=endpoint, node=node)
    return found[0] if found else None


def record_state(store: Store, endpoint: str, node: str, content: dict[str, Any]) -> RouterState:
    """Record what a router has learned under the next number; every server follows."""
    with store.catalog.transaction() as transaction:
        before = latest_state(transaction, endpoint, node)
        number = 1 if before is None else before.number + 1
        values: dict[str, Any] = {"endpoint": endpoint, "node": node, "content": content}
        state = RouterState(**values, number=number, created=time.time())
        transaction.add(state)
    return state
