"""
The tests that every node must pass, ours and those of plug-ins.

Subclass `NodeContract` in a test module and override the fixture `node`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clewline.serve.graph.node import Batch, Node, NodeAnswers
from clewline.serve.graph.row_trace import row_traces
from clewline.signature.check import Checker
from clewline.store.ids import prediction_ids


class NodeContract:
    """Tests that a node answers each row for itself, whatever batch it stands in."""

    @pytest.fixture
    def node(self) -> Node:
        """Return the node to be tested, ready to answer."""
        raise NotImplementedError

    @pytest.fixture
    def rows(self, node: Node) -> list[Any]:
        """Return at least three different rows that the node's signature accepts."""
        return Checker(node.signature).decode(node.background)

    def batch(self, node: Node, rows: list[Any], ids: list[bytes] | None = None) -> Batch:
        """Make the batch of rows that the server would; every second row has an entity."""
        checked = Checker(node.signature).columns(rows)
        known = ids or prediction_ids(len(rows))
        entities = [f"c-{one[-1]}" if one[-1] % 2 else None for one in known]
        return Batch(checked.columns, known, entities)

    def answer(self, node: Node, rows: list[Any], ids: list[bytes] | None = None) -> NodeAnswers:
        """Answer rows as the server would."""
        return node.answer(self.batch(node, rows, ids))

    def test_every_row_gets_one_answer(self, node: Node, rows: list[Any]) -> None:
        output = node.signature.output
        for count in (1, 2, len(rows)):
            outputs = self.answer(node, rows[:count]).outputs
            if output.labels is None:
                found = outputs.values if outputs.values is not None else outputs.tensor
                assert found is not None
                assert found.shape == (count, *(output.shape or ()))
                continue
            assert outputs.choices is not None
            assert outputs.choices.shape == (count,)
            assert ((outputs.choices >= 0) & (outputs.choices < len(output.labels))).all()
            if outputs.probabilities is not None:
                assert outputs.probabilities.shape == (count, len(output.labels))

    def test_a_row_has_the_same_bits_alone_and_in_any_batch(
        self, node: Node, rows: list[Any]
    ) -> None:
        ids = prediction_ids(len(rows))
        together = _facts(self.answer(node, rows, ids), len(rows))
        backwards = _facts(self.answer(node, rows[::-1], ids[::-1]), len(rows))[::-1]
        alone = [
            _facts(self.answer(node, [row], [identifier]), 1)[0]
            for row, identifier in zip(rows, ids, strict=True)
        ]
        assert together == backwards == alone

    def test_the_path_of_each_row_names_what_it_went_through_with_times(
        self, node: Node, rows: list[Any]
    ) -> None:
        answered = self.answer(node, rows)
        found = row_traces(answered, len(rows))
        assert len(found) == len(rows)
        for path in answered.paths:
            assert path.path
            assert all(name and spent_us >= 0 for name, spent_us in path.path)
            assert all(model.partition("@")[2].isdigit() for model in path.model.split("+"))

    def test_a_row_with_an_arm_says_how_likely_it_was(self, node: Node, rows: list[Any]) -> None:
        for path in self.answer(node, rows).paths:
            assert bool(path.arm) == bool(path.choices)
            assert all(0 < choice.propensity <= 1 for choice in path.choices)

    def test_the_batch_is_left_as_it_was(self, node: Node, rows: list[Any]) -> None:
        batch = self.batch(node, rows)
        columns = batch.columns
        arrays = [columns.numbers, *columns.tensors.values()]
        before = [array.tobytes() for array in arrays], columns.texts.tolist(), list(batch.ids)
        node.answer(batch)
        after = [array.tobytes() for array in arrays], columns.texts.tolist(), list(batch.ids)
        assert before == after

    def test_its_background_rows_are_rows_of_its_signature(self, node: Node) -> None:
        assert Checker(node.signature).decode(node.background)


def _facts(answers: NodeAnswers, rows: int) -> list[tuple[Any, ...]]:
    """Return the answer and trace of each row without the times."""
    outputs = answers.outputs
    parts = (outputs.choices, outputs.probabilities, outputs.values, outputs.tensor)
    found = []
    for row, trace in enumerate(row_traces(answers, rows)):
        bits = [np.ascontiguousarray(part[row]).tobytes() for part in parts if part is not None]
        path, names = trace.path, [name for name, _ in trace.path.path]
        found.append((path.model, path.arm, path.choices, names, trace.checksums, *bits))
    return found
