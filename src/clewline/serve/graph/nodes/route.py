"""The node of which one arm answers each row: `{route: sticky, arms: [income@1, income@2]}`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.entry_points import names
from clewline.errors import InvalidInput
from clewline.model.runtime import Outputs
from clewline.model.runtime.outputs import take_rows
from clewline.serve.graph.builder import Builder
from clewline.serve.graph.fields import AlignedNode, NodeFit
from clewline.serve.graph.node import Batch, NodeAnswers
from clewline.serve.graph.node_kind import NodeKind
from clewline.serve.graph.parser import DeclaredNode, GraphParser, WrittenNode, child_names
from clewline.serve.graph.routers.router import ROUTERS, Config, RouteContext, router_class
from clewline.serve.graph.tree import Tree
from clewline.serve.log.frame import RouteChoice, RoutePath
from clewline.signature.field import Signature

Arms = Sequence[tuple[str, AlignedNode]]


class RouteNode(NodeKind):
    """Asks a router for the arm of each row, and the arms for the answers."""

    children = ("arms",)

    def __init__(self, tree: Tree, builder: Builder) -> None:
        arms, router = builder.nodes(tree, "arms"), router_class(tree["how"])
        self.nodes = list(arms.values())
        self.signature = self.require_fit(tree, self.nodes, builder)
        self._arms = [(arm, AlignedNode(node, self.signature)) for arm, node in arms.items()]
        context = RouteContext(
            builder.endpoint, tree["name"], tuple(arms), self.signature, builder.since
        )
        self._router = router(tree.get("config") or {}, context)
        self._state = builder.state

    @classmethod
    def parse(cls, written: WrittenNode, parser: GraphParser) -> DeclaredNode | None:
        """Read the router's name and settings, and the arms."""
        name = parser.name(written.path, "route")
        arms = written.level.get("arms")
        nodes = parser.named_nodes(arms, f"{written.at}.arms", least=1, path=written.path)
        value, at, problems = written.value, written.value_at, parser.problems
        router = value if isinstance(value, dict) else {"kind": value}
        how = router.get("kind")
        settings: Config = {}
        if not isinstance(how, str) or not how:
            problems.add_wrong_value(at, value, "Write a kind, such as {kind: sticky}.")
        elif how not in names(ROUTERS):
            problems.add("unknown_kind", at, value=how, known=names(ROUTERS))
        else:
            stated = {str(key): each for key, each in router.items() if key != "kind"}
            config = router_class(how).parse(stated, child_names(arms), at, problems)
            settings = {"how": how, "config": config}
        return written.declare(name, settings, arms=nodes)

    @classmethod
    def fit(cls, fit: NodeFit) -> Signature | None:
        """Check that the arms answer alike, and that the router finds its fields."""
        if not fit.sides:
            return None
        fit.check_same_answers("arms", shares=True)
        signature = Signature(fields=fit.join_fields("arms"), output=fit.outputs[0])
        config, name = fit.tree.get("config") or {}, fit.tree["name"]
        router_class(fit.tree["how"]).check(config, signature, name, fit.problems)
        return signature

    @classmethod
    def title(cls, tree: Tree) -> str:
        """Say which router it has, and its settings."""
        config = tree.get("config") or {}
        return f"route {tree['how']}{router_class(tree['how']).config_text(config)}"

    def compute(self, batch: Batch) -> NodeAnswers:
        """Choose, and let each arm answer its rows in one call."""
        start = time.perf_counter()
        state = self._state(self.name) if self._router.learns else None
        arms, propensities = self._router.choose(batch, state)
        rows, among = len(batch.ids), len(self._arms)
        if arms.shape != (rows,) or propensities.shape != (rows,):
            sizes = f"{arms.shape} arms and {propensities.shape} propensities"
            raise ValueError(f"{sizes}, {rows} rows")
        if not 0 <= min(arms.tolist()) <= max(arms.tolist()) < among:
            raise ValueError(f"an arm that does not exist: {arms.tolist()}, of {among}")
        if not min(propensities.tolist()) > 0:
            raise ValueError("an arm with the propensity 0 was chosen")
        spent_us = round((time.perf_counter() - start) * 1e6, 1)
        number = 0 if state is None else state.number
        choices = ArmChoices(
            self.name, arms.astype(np.intp, copy=False), propensities, number, spent_us
        )
        return answer_by_arms(batch, choices, self._arms)


# A batch split among arms, and their answers merged in the order of the rows


class ArmChoices(msgspec.Struct, frozen=True, eq=False):
    """What a route chose for each row of a batch."""

    node: str
    arms: NDArray[np.intp]  # shape (n,)
    propensities: NDArray[np.float64]  # shape (n,)
    state: int  # number of the router's state; 0 if it keeps none
    spent_us: float


def answer_by_arms(batch: Batch, choices: ArmChoices, arms: Arms) -> NodeAnswers:
    """Answer each row by its arm; each arm gets its rows in the order of the batch."""
    rows = len(batch.ids)
    parts: list[tuple[NDArray[np.intp], Outputs]] = []
    paths: list[RoutePath] = []
    path_of_row = np.zeros(rows, dtype=np.intp)
    checksums = {choices.node: choices.arms.astype(np.uint32)}
    present = sorted(set(choices.arms.tolist()))
    for index in present:
        arm, node = arms[index]
        if len(present) == 1:  # as all batches of one row
            places, answers = np.arange(rows), node.answer(batch)
            checksums |= answers.checksums
        else:
            places = np.flatnonzero(choices.arms == index)
            answers = _answer_rows(node, batch, places)
            for name, found in answers.checksums.items():
                checksums.setdefault(name, np.zeros(rows, dtype=np.uint32))[places] = found
        parts.append((places, answers.outputs))
        below = [0] * len(places) if answers.path_of_row is None else answers.path_of_row.tolist()
        shares = choices.propensities[places].tolist()
        known: dict[tuple[int, float], int] = {}
        for row, key in zip(places.tolist(), zip(below, shares, strict=True), strict=True):
            if key not in known:
                known[key] = len(paths)
                path, propensity = answers.paths[key[0]], key[1]
                choice = RouteChoice(choices.node, arm, propensity, choices.state)
                steps = ((choices.node, choices.spent_us), *path.path)
                full_arm = f"{arm}/{path.arm}" if path.arm else arm
                paths.append(RoutePath(path.model, steps, full_arm, (choice, *path.choices)))
            path_of_row[row] = known[key]
    outputs = parts[0][1] if len(parts) == 1 else _merge(parts, rows)
    return NodeAnswers(outputs, tuple(paths), None if len(paths) == 1 else path_of_row, checksums)


def _answer_rows(node: AlignedNode, batch: Batch, places: NDArray[np.intp]) -> NodeAnswers:
    rows = places.tolist()
    part = Batch(
        take_rows(batch.columns, places),
        [batch.ids[row] for row in rows],
        [batch.entities[row] for row in rows],
    )
    try:
        return node.answer(part)
    except InvalidInput as error:
        moved = [msgspec.structs.replace(one, row=rows[one.row]) for one in error.fields]
        raise InvalidInput(error.message, error.fix, tuple(moved)) from error


def _merge(parts: list[tuple[NDArray[np.intp], Outputs]], rows: int) -> Outputs:
    """Put the answers of the arms into the order of the rows."""
    merged: dict[str, Any] = {}
    for name in (part.name for part in fields(Outputs)):
        arrays = [getattr(outputs, name) for _, outputs in parts]
        if all(array is None for array in arrays):
            continue
        if any(array is None for array in arrays):
            raise TypeError(f"some arms answer without {name}")
        merged[name] = np.empty((rows, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
        for (places, _), array in zip(parts, arrays, strict=True):
            merged[name][places] = array
    return Outputs(**merged)
