"""
What every node must keep, for nodes of ours and of others.

Subclass `NodeContract` in a test module and give the fixtures `node` and `rows`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from fairlead.serve.graph import Answered, Batch, Node
from fairlead.signature.check import Checker
from fairlead.store.ids import prediction_ids


class NodeContract:
    """Tests that a node answers each row for itself, whatever batch it stands in."""

    @pytest.fixture
    def node(self) -> Node:
        """The node to be tested, ready to answer."""
        raise NotImplementedError

    @pytest.fixture
    def rows(self, node: Node) -> list[Any]:
        """At least three different rows that the node's signature accepts."""
        return Checker(node.signature).decode(node.background)

    def answer(self, node: Node, rows: list[Any]) -> Answered:
        """Answer rows as the server would."""
        checked = Checker(node.signature).columns(rows)
        batch = Batch(checked.columns, prediction_ids(len(rows)), [None] * len(rows))
        return node.answer(batch)

    def test_every_row_gets_one_answer(self, node: Node, rows: list[Any]) -> None:
        for count in (1, 2, len(rows)):
            outputs = self.answer(node, rows[:count]).outputs
            if outputs.values is not None:
                assert outputs.values.shape == (count,)
                continue
            assert outputs.choices is not None
            assert outputs.probabilities is not None
            assert outputs.choices.shape == (count,)
            assert outputs.probabilities.shape == (count, len(node.signature.output.labels or ()))

    def test_a_row_has_the_same_bits_alone_and_in_any_batch(
        self, node: Node, rows: list[Any]
    ) -> None:
        together = _numbers(self.answer(node, rows))
        backwards = _numbers(self.answer(node, rows[::-1]))[::-1]
        alone = np.concatenate([_numbers(self.answer(node, [row])) for row in rows])
        assert together.tobytes() == backwards.tobytes() == alone.tobytes()

    def test_the_path_names_what_was_gone_through_with_times(
        self, node: Node, rows: list[Any]
    ) -> None:
        answered = self.answer(node, rows)
        for way in answered.ways:
            assert way.path
            assert all(name and spent_us >= 0 for name, spent_us in way.path)
            assert all(model.partition("@")[2].isdigit() for model in way.model.split("+"))

    def test_the_batch_is_left_as_it_was(self, node: Node, rows: list[Any]) -> None:
        checked = Checker(node.signature).columns(rows)
        before = checked.columns.numbers.copy(), checked.columns.texts.copy()
        node.answer(Batch(checked.columns, prediction_ids(len(rows)), [None] * len(rows)))
        assert before[0].tobytes() == checked.columns.numbers.tobytes()
        assert before[1].tolist() == checked.columns.texts.tolist()

    def test_its_background_rows_are_rows_of_its_signature(self, node: Node) -> None:
        raw = msgspec.json.decode(node.background, type=list[msgspec.Raw])
        assert raw
        assert Checker(node.signature).problems(raw) == []


def _numbers(answered: Answered) -> np.ndarray[Any, np.dtype[np.float64]]:
    outputs = answered.outputs
    found = outputs.probabilities if outputs.values is None else outputs.values
    assert found is not None
    return found
