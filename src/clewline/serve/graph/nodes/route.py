"""The node of which one arm answers each row."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidConfig
from clewline.serve.graph.batch import Batch, NodeAnswers, node_failure
from clewline.serve.graph.builder import Builder, Node
from clewline.serve.graph.edges import AlignedNode, same_output, union
from clewline.serve.graph.joined import joined_background
from clewline.serve.graph.regroup import ArmChoices, regrouped
from clewline.serve.graph.routers.router import RouteContext, Router, router_kind
from clewline.signature.field import Signature


class RouteNode:
    """Asks a router for the arm of each row, and the arms for the answers."""

    def __init__(self, name: str, arms: dict[str, Node], build: Builder) -> None:
        signatures = {arm: node.signature for arm, node in arms.items()}
        self.signature = Signature(
            fields=union(name, signatures), output=same_output(name, signatures)
        )
        self._nodes = list(arms.values())
        self._name = name
        self._arms = [(arm, AlignedNode(node, self.signature)) for arm, node in arms.items()]
        self._build = build
        self._router: Router

    @property
    def background(self) -> bytes:
        """Rows with the fields of all arms."""
        return joined_background(self._nodes, self.signature.fields)

    @classmethod
    def build(cls, tree: dict[str, Any], build: Builder) -> RouteNode:
        """Build the arms and the router `tree["how"]` over them."""
        name, arms = tree["name"], tree.get("arms")
        if not isinstance(arms, dict) or not arms:
            raise InvalidConfig(f"The route {name!r} has no arms.", "Give it one or more.")
        node = cls(name, {arm: build.node(below) for arm, below in arms.items()}, build)
        setting = RouteContext(build.endpoint, name, tuple(arms), node.signature, build.since)
        node._router = router_kind(tree["how"]).build(tree.get("config") or {}, setting)
        return node

    def answer(self, batch: Batch) -> NodeAnswers:
        """Choose, and let each arm answer its rows in one call."""
        start = time.perf_counter()
        state = self._build.state(self._name) if self._router.learns else None
        try:
            arms, propensities = self._router.choose(batch, state)
            _require_choices(arms, propensities, len(batch.ids), len(self._arms))
        except BaseException as error:
            raise node_failure(self._name, error) from error
        spent_us = round((time.perf_counter() - start) * 1e6, 1)
        number = 0 if state is None else state.number
        chosen = ArmChoices(
            self._name, arms.astype(np.intp, copy=False), propensities, number, spent_us
        )
        return regrouped(batch, chosen, self._arms)

    def close(self) -> None:
        """Hold nothing: the builder closes the arms."""


def _require_choices(
    arms: NDArray[np.intp], propensities: NDArray[np.float64], rows: int, among: int
) -> None:
    if arms.shape != (rows,) or propensities.shape != (rows,):
        raise ValueError(f"{arms.shape} arms and {propensities.shape} propensities, {rows} rows")
    if not 0 <= min(arms.tolist()) <= max(arms.tolist()) < among:
        raise ValueError(f"an arm that is not there: {arms.tolist()}, of {among}")
    if not min(propensities.tolist()) > 0:
        raise ValueError("an arm was chosen whose propensity is nothing")
