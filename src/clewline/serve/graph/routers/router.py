"""
What chooses the arm of a route. Kinds register under the entry-point group `clewline.routers`.

A router is also the seam for bandits: it is given the state that was learned so
far, an immutable numbered record, and says with each arm how likely it was to
choose it. Both are logged with the prediction.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.entry_points import load_entry_point
from clewline.serve.graph.batch import Batch
from clewline.signature.field import Signature
from clewline.store.records import RouterState

GROUP = "clewline.routers"


class RouteContext(msgspec.Struct, frozen=True, eq=False):
    """Where a router stands."""

    endpoint: str
    node: str  # name of the route
    arms: tuple[str, ...]
    signature: Signature  # of the batches that it is given
    since: float  # when the revision first went live, in seconds since the epoch


class Router(Protocol):
    """
    Chooses an arm for each row.

    The same row with the same id and entity, under the same state, is given the
    same arm with the same propensity, whatever batch it stands in, in any process
    and after a restart: a replay depends on it. The batch's arrays are not
    changed. Called from one thread at a time, and must be quick.
    """

    learns: bool  # whether it wants states; where False, `state` is always None

    def choose(
        self, batch: Batch, state: RouterState | None
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """
        Choose.

        Args:
            batch: n rows.
            state: What was learned; None before there is anything.

        Returns:
            Shape (n,): the index of each row's arm, and how likely it was to be
            chosen for that row, over the router's own randomness: in (0, 1].
        """


class RouterKind(Protocol):
    """Makes the routers of one kind."""

    def build(self, config: dict[str, Any], setting: RouteContext) -> Router:
        """
        Make a router.

        Raises:
            InvalidConfig: The config says what this kind does not know.
        """


def router_kind(name: str) -> RouterKind:
    """
    Find a kind of router by its name.

    Raises:
        NotSupported: Nothing that is installed offers it.
    """
    kind: RouterKind = load_entry_point(GROUP, name)
    return kind
