"""The most similar training rows, and how far the model can be trusted among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from explained import classified, fitted, serve_two_rows
from sklearn.ensemble import RandomForestClassifier

from clewline.cli.explain import show
from clewline.errors import ModelFailed
from clewline.explain.explain_prediction import explain_prediction
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow
from clewline.explain.explainer import Explainer, explainer_of
from clewline.explain.neighbours import NeighbourExplainer, NeighbourExplanation, NeighbourOptions
from clewline.model.families.sample_file import TrainingSample
from clewline.model.runtime.outputs import FunctionPredictor, Outputs
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Output, Signature
from clewline.testing.explainer import ExplainerContract

SIGNATURE = Signature(
    fields=(
        Field(name="age", kind="integer", nullable=True),
        Field(name="work", kind="category", nullable=True, levels=("own", "state")),
    ),
    output=Output(name="rich", task="binary", labels=("no", "yes")),
)


def old(columns: Columns) -> Outputs:
    return Outputs(np.greater(columns.numbers[:, 0], 50).astype(np.int64))


def table(rows: int = 200) -> tuple[Columns, Any]:
    """Return ages from 20 on; who is 40 and more is rich, so that `old` errs from 40 to 50."""
    age = 20.0 + np.arange(rows) % 60
    texts = np.array(["own", "state"], dtype=object)[np.arange(rows) % 2]
    return Columns(age[:, None], texts[:, None]), (age >= 40).astype(np.int64)


def row(
    age: float = 45,
    *,
    answers: bool = True,
    truth: bool = True,
    predict: Callable[[Columns], Outputs] = old,
) -> ExplainedRow:
    columns, labels = table()
    sample = TrainingSample(
        columns, labels if truth else None, predict(columns) if answers else None, of_rows=200
    )
    mine = Columns(np.array([[age]]), np.array([["own"]], dtype=object))
    label = ("no", "yes")[int(predict(mine).choices[0])]  # type: ignore[index]
    return ExplainedRow(
        model=ExplainedModel("m@1", SIGNATURE, lambda: FunctionPredictor(predict), lambda: sample),
        columns=mine,
        values={"age": int(age), "work": "own"},
        answer={"label": label},
        seed=7,
    )


def explain(row: ExplainedRow, **options: Any) -> NeighbourExplanation:
    return NeighbourExplainer().explain(row, NeighbourOptions(**options))


class TestContract(ExplainerContract):
    @pytest.fixture(params=[True, False], ids=["stored", "asked"])
    def make_row(self, request: pytest.FixtureRequest) -> Callable[[], ExplainedRow]:
        return lambda: row(answers=request.param)

    @pytest.fixture
    def explainer(self) -> Explainer[Any]:
        return NeighbourExplainer()

    def test_it_is_installed_under_its_kind(self) -> None:
        assert isinstance(explainer_of("neighbours"), NeighbourExplainer)


def test_the_nearest_rows_come_first_with_their_truth_answer_and_differences() -> None:
    found = explain(row(46), count=8)
    first, last = found.neighbours[0], found.neighbours[-1]
    assert (first.distance, first.values, first.differences) == (
        0.0,
        {"age": 46, "work": "own"},
        [],
    )
    assert (first.truth, first.answer) == ("yes", "no")
    unit = 15.0  # the median absolute deviation of the ages
    assert last.distance == pytest.approx(2 / unit)
    assert [(each.field, each.value) for each in last.differences] == [("age", 44)]
    distances = [each.distance for each in found.neighbours]
    assert distances == sorted(distances)


def test_another_level_or_null_counts_as_one() -> None:
    missing = dataclasses.replace(
        row().columns, numbers=np.array([[np.nan]]), texts=np.array([[None]], dtype=object)
    )
    found = explain(msgspec.structs.replace(row(), columns=missing))
    assert {each.distance for each in found.neighbours} == {2.0}


def test_the_error_around_the_row_is_that_of_the_rows_around_it() -> None:
    """`old` is wrong just from 40 to 50, whose label it misses."""
    inside, far = explain(row(45), around=10), explain(row(75), around=10)
    assert inside.local_error is not None
    assert far.local_error is not None
    assert inside.local_error.error.value == 1.0
    assert far.local_error.error.value == 0.0
    assert 0 < far.local_error.error.high < 0.3
    assert inside.local_error.overall == far.local_error.overall
    assert 0 < inside.local_error.overall < 0.5
    assert (inside.answered_alike, inside.around) == (0, 10)


def test_the_trust_score_is_the_ratio_of_distances_to_other_and_answered_label() -> None:
    """By hand: at 44, answered `no`, the nearest `no` is 39, the nearest `yes` is 44 itself."""
    doubtful = explain(row(44.5)).trust
    assert doubtful is not None
    assert doubtful.other == "yes"
    assert doubtful.to_answered == pytest.approx((44.5 - 38) / 15)  # 39 is of the other work
    assert doubtful.to_other == pytest.approx(0.5 / 15)
    assert doubtful.score == pytest.approx(0.5 / 6.5)
    clear = explain(row(20)).trust
    assert clear is not None
    assert (clear.score, clear.to_answered) == (None, 0.0)


def test_without_stored_answers_the_model_is_asked_within_the_budget() -> None:
    found = explain(row(answers=False), around=50, budget=30)
    assert found.model_rows == 30
    assert found.local_error is not None
    assert found.local_error.rows == 30
    unasked = explain(row(answers=False), budget=0)
    assert (unasked.model_rows, unasked.local_error) == (0, None)
    assert unasked.neighbours[0].answer is None


def test_without_truth_there_is_neither_error_nor_trust() -> None:
    found = explain(row(truth=False))
    assert (found.trust, found.local_error, found.answered_alike) == (None, None, None)
    assert found.neighbours[0].answer == "no"


def test_a_model_that_answers_one_label_alone_has_no_trust_score() -> None:
    model = row(predict=lambda columns: Outputs(np.zeros(len(columns), dtype=np.int64)))
    sample = dataclasses.replace(model.model.sample, truth=np.zeros(200, dtype=np.int64))
    model.model.sample = sample  # type: ignore[misc]
    found = explain(model)
    assert found.trust is None
    assert found.local_error is not None
    assert found.local_error.error.value == 0


def test_texts_are_compared_by_words_and_arrays_by_their_elements() -> None:
    signature = Signature(
        fields=(
            Field(name="note", kind="text", nullable=True),
            Field(name="image", kind="tensor", dtype="float32", shape=(2,)),
        ),
        output=Output(name="y", task="regression"),
    )
    texts = np.array([["a big dog"], ["A small dog"], [None]], dtype=object)
    images = np.array([[0, 0], [0, 0], [4, 4]], dtype=np.float32)
    sample = TrainingSample(
        Columns(np.empty((3, 0)), texts, {"image": images}),
        truth=np.array([1.0, 2.0, np.nan]),
        answers=Outputs(values=np.array([1.5, 2.5, 3.0])),
        of_rows=3,
    )
    mine = Columns(
        np.empty((1, 0)),
        np.array([["a big cat"]], dtype=object),
        {"image": np.ones((1, 2), dtype=np.float32)},
    )
    model = ExplainedModel("m@1", signature, lambda: None, lambda: sample)  # type: ignore[arg-type,return-value]
    found = explain(
        ExplainedRow(model=model, columns=mine, values={}, answer={"value": 1.0}, seed=1)
    )
    assert [each.truth for each in found.neighbours] == [1.0, 2.0, None]
    assert [each.distance for each in found.neighbours] == pytest.approx([1.5, 1.8, 4.0])
    assert found.trust is None
    assert found.local_error is not None
    assert found.local_error.measure == "mean absolute error"
    assert (found.local_error.error.value, found.local_error.rows) == (0.5, 2)


def test_constant_and_empty_fields_and_ten_thousand_levels_tell_nothing_apart() -> None:
    fields = (
        Field(name="constant", kind="number"),
        Field(name="nothing", kind="number", nullable=True),
        Field(name="id", kind="category"),
    )
    signature = Signature(fields=fields, output=SIGNATURE.output)
    rows = 10_000
    columns = Columns(
        np.stack([np.full(rows, 3.0), np.full(rows, np.nan)], axis=1),
        np.array([[f"id {at}"] for at in range(rows)], dtype=object),
    )
    answers = Outputs(np.zeros(rows, dtype=np.int64))
    sample = TrainingSample(columns, np.zeros(rows, dtype=np.int64), answers, of_rows=rows)
    model = ExplainedModel("m@1", signature, lambda: None, lambda: sample)  # type: ignore[arg-type,return-value]
    mine = Columns(np.array([[4.0, 1.0]]), np.array([["id 17"]], dtype=object))
    found = explain(
        ExplainedRow(model=model, columns=mine, values={}, answer={"label": "no"}, seed=1)
    )
    assert found.neighbours[0].values["id"] == "id 17"
    assert found.neighbours[0].distance == 2.0  # another constant, and null
    assert found.neighbours[1].distance == 3.0


def test_a_model_that_raises_on_a_training_row_is_named() -> None:
    def broken(columns: Columns) -> Outputs:
        if len(columns) > 1:
            raise RuntimeError("one at a time")
        return old(columns)

    asked = row(answers=False, predict=broken)
    with pytest.raises(ModelFailed, match=r"m@1 raised RuntimeError .* one at a time"):
        explain(asked)


def test_a_logged_prediction_is_shown_beside_rows_of_its_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = classified()
    model = fitted(RandomForestClassifier(10, max_depth=4, random_state=0), train)
    project, ids = serve_two_rows(tmp_path, model, train)
    found = explain_prediction(project, ids[0], "neighbours", {"count": 2}).explanation
    assert isinstance(found, NeighbourExplanation)
    assert (found.background_rows, found.model_rows) == (200, 0)
    show(found)
    text = capsys.readouterr().out
    assert "compared    with 200 rows: training rows in the package" in text
    assert "1. was no, is answered no, distance " in text
    assert "trust score" in text
    assert "The model's error rate on the 100 nearest rows is 0 [0, 0.03699]; on all, 0." in text
