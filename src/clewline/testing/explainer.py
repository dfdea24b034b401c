"""
The tests that every explainer must pass, ours and those of plug-ins.

Subclass `ExplainerContract` in a test module and override the fixtures `explainer`, `make_row`
and, where its defaults do not fit the row, `given`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from clewline.errors import InvalidInput
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.explain.explainer import Explainer, ExplainerOptions
from clewline.explainer_kinds import read_options
from clewline.signature.columns import Columns


class ExplainerContract:
    """Tests that an explanation is plain, repeatable, and says what it rests on."""

    @pytest.fixture
    def explainer(self) -> Explainer[Any]:
        """Return the explainer to be tested."""
        raise NotImplementedError

    @pytest.fixture
    def make_row(self) -> Callable[[], ExplainedRow]:
        """Return a function that returns the same row each time, each time of a new model."""
        raise NotImplementedError

    @pytest.fixture
    def given(self) -> dict[str, Any]:
        """Return options, as a person writes them."""
        return {}

    @pytest.fixture
    def options(self, explainer: Explainer[Any], given: dict[str, Any]) -> ExplainerOptions:
        """Read the options."""
        found: ExplainerOptions = read_options(explainer, given)
        return found

    def test_every_option_has_a_default_and_is_plain(self, explainer: Explainer[Any]) -> None:
        default = read_options(explainer, {})
        plain = msgspec.to_builtins(default, order="sorted")
        assert set(plain) == set(explainer.options.__struct_fields__)
        assert read_options(explainer, msgspec.json.decode(msgspec.json.encode(plain))) == default

    def test_an_unknown_option_is_refused(self, explainer: Explainer[Any]) -> None:
        with pytest.raises(InvalidInput, match="no_such_option"):
            read_options(explainer, {"no_such_option": 1})

    def test_the_explanation_is_of_its_kind_and_says_its_terms(
        self,
        explainer: Explainer[Any],
        make_row: Callable[[], ExplainedRow],
        options: ExplainerOptions,
    ) -> None:
        row = make_row()
        assert explainer.preference(row.model) > 0
        found = explainer.explain(row, options)
        assert type(found) is explainer.explanation
        assert (found.kind, found.model) == (explainer.kind, row.model.ref)
        assert found.terms == msgspec.to_builtins(options, order="sorted")
        assert isinstance(getattr(found, "status", None), str)
        assert (found.prediction, found.revision) == (row.prediction, row.revision)
        assert found.background

    def test_it_counts_the_rows_that_the_model_answered(
        self,
        explainer: Explainer[Any],
        make_row: Callable[[], ExplainedRow],
        options: ExplainerOptions,
    ) -> None:
        row = make_row()
        found = explainer.explain(row, options)
        assert found.model_rows == row.model.rows_asked

    def test_the_same_question_gives_the_same_bytes(
        self,
        explainer: Explainer[Any],
        make_row: Callable[[], ExplainedRow],
        options: ExplainerOptions,
    ) -> None:
        """Of a model loaded anew, of one that was asked before, whatever was drawn elsewhere."""
        row = make_row()
        first = self.content(explainer.explain(row, options))
        np.random.seed(1)
        random.seed(1)
        assert self.content(explainer.explain(row, options)) == first
        assert self.content(explainer.explain(make_row(), options)) == first

    def test_it_leaves_the_state_of_others_alone(
        self,
        explainer: Explainer[Any],
        make_row: Callable[[], ExplainedRow],
        options: ExplainerOptions,
    ) -> None:
        row = make_row()
        before = [self.arrays(each) for each in (row.columns, row.background)]
        states = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]
        explainer.explain(row, options)
        assert before == [self.arrays(each) for each in (row.columns, row.background)]
        assert states == (random.getstate(), np.random.get_state()[1].tobytes())  # type: ignore[index]

    def test_what_is_stored_reads_back_equal(
        self,
        explainer: Explainer[Any],
        make_row: Callable[[], ExplainedRow],
        options: ExplainerOptions,
    ) -> None:
        found = explainer.explain(make_row(), options)
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(msgspec.to_builtins(found)))
        assert self.content(msgspec.convert(stored, explainer.explanation)) == self.content(found)

    def content(self, found: Explanation) -> bytes:
        """Return the bytes of an explanation."""
        return msgspec.msgpack.encode(found)

    def arrays(self, columns: Columns) -> tuple[Any, ...]:
        """Return the content of columns."""
        tensors = {name: each.tobytes() for name, each in columns.tensors.items()}
        return columns.numbers.tobytes(), columns.texts.tolist(), tensors
