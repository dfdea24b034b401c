"""The node that makes one answer of those of all its branches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidConfig, InvalidInput
from clewline.serve.graph.batch import Batch, NodeAnswers, node_failure
from clewline.serve.graph.branches import Branches
from clewline.serve.graph.builder import Builder, Node
from clewline.serve.graph.checksums import of_outputs
from clewline.serve.graph.combining import Combiner, combiner
from clewline.serve.graph.edges import AlignedNode, union
from clewline.serve.graph.joined import joined_background
from clewline.serve.log.frame import RoutePath
from clewline.signature.field import Signature


class CombineNode:
    """Lets every branch answer every row, and combines the answers."""

    def __init__(self, name: str, branches: dict[str, Node], how: Combiner, build: Builder) -> None:
        given = {branch: node.signature for branch, node in branches.items()}
        fields = union(name, given)
        self.signature = Signature(fields=fields, output=how.output)
        self._nodes = list(branches.values())
        self._name = name
        self._how = how
        below = [
            AlignedNode(node, Signature(fields=fields, output=how.given(node.signature.output)))
            for node in branches.values()
        ]
        self._branches = Branches(below, build.threads)

    @property
    def background(self) -> bytes:
        """Rows with the fields of all branches."""
        return joined_background(self._nodes, self.signature.fields)

    @classmethod
    def build(cls, tree: dict[str, Any], build: Builder) -> CombineNode:
        """Build the branches, and what combines their answers by `tree["how"]`."""
        name, trees = tree["name"], tree.get("branches")
        if not isinstance(trees, dict) or not trees:
            raise InvalidConfig(f"{name!r} has no branches.", "Give it two or more.")
        branches = {branch: build.node(below) for branch, below in trees.items()}
        return cls(name, branches, combiner(tree, branches, build), build)

    def answer(self, batch: Batch) -> NodeAnswers:
        """Ask the branches, beside each other where that pays, and combine."""
        answered = self._branches.answer(batch)
        start = time.perf_counter()
        try:
            outputs = self._how.combine([one.outputs for one in answered], batch.columns)
        except InvalidInput:
            raise
        except BaseException as error:
            raise node_failure(self._name, error) from error
        spent_us = round((time.perf_counter() - start) * 1e6, 1)
        ways, taken = self._ways(answered, spent_us)
        marks = {node: mark for one in answered for node, mark in one.marks.items()}
        return NodeAnswers(outputs, ways, taken, {**marks, self._name: of_outputs(outputs)})

    def _ways(
        self, answered: Sequence[NodeAnswers], spent_us: float
    ) -> tuple[tuple[RoutePath, ...], NDArray[np.intp] | None]:
        """Join the ways of the branches: for each row one that goes through all of them."""
        if all(one.taken is None for one in answered):
            return (self._joined([one.ways[0] for one in answered], spent_us),), None
        rows = next(len(one.taken) for one in answered if one.taken is not None)
        of_rows = np.column_stack(
            [np.zeros(rows, np.intp) if one.taken is None else one.taken for one in answered]
        )
        distinct, taken = np.unique(of_rows, axis=0, return_inverse=True)
        ways = tuple(
            self._joined([one.ways[p] for one, p in zip(answered, places, strict=True)], spent_us)
            for places in distinct.tolist()
        )
        return ways, taken.reshape(rows)

    def _joined(self, ways: list[RoutePath], spent_us: float) -> RoutePath:
        path = tuple(step for way in ways for step in way.path)
        models = [way.model for way in ways] + self._how.models
        return RoutePath(
            "+".join(models),
            (*path, (self._name, spent_us)),
            "+".join(way.arm for way in ways if way.arm),
            tuple(choice for way in ways for choice in way.choices),
        )

    def close(self) -> None:
        """Hold nothing: the builder closes the branches."""
