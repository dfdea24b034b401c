"""What a Python model answers is read in many forms, and held to its signature."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.errors import ModelFailed
from clewline.signature.field import Output
from clewline.signature.model_answers import read_answers, read_probabilities

MOOD = Output(name="mood", task="binary", labels=("bad", "good"))
DIGIT = Output(name="digit", task="multiclass", labels=(0, 1, 2))
PRICE = Output(name="price", task="regression")
SHARES = [{"bad": 0.25, "good": 0.75}, {"bad": 1.0}]
MATRIX = [[0.25, 0.75], [1.0, 0.0]]


@pytest.mark.parametrize(
    "said",
    [
        ["good", "bad"],
        ("good", "bad"),
        np.array(["good", "bad"]),
        np.array([["good"], ["bad"]]),
        pl.Series(["good", "bad"]),
        [{"label": "good"}, {"label": "bad"}],
        {"label": ["good", "bad"]},
    ],
)
def test_labels_alone(said: Any) -> None:
    found = read_answers(said, MOOD, 2, who="M")
    assert found.choices is not None
    assert found.choices.tolist() == [1, 0]
    assert found.probabilities is None


@pytest.mark.parametrize(
    "said",
    [
        (["good", "bad"], MATRIX),
        (np.array(["good", "bad"]), np.array(MATRIX, dtype=np.float32)),
        (["good", "bad"], SHARES),
        SHARES,
        MATRIX,
        np.array(MATRIX),
        [
            {"label": "good", "probabilities": SHARES[0]},
            {"label": "bad", "probabilities": SHARES[1]},
        ],
        [{"probabilities": share} for share in SHARES],
        {"label": ["good", "bad"], "probabilities": MATRIX},
        {"probabilities": np.array(MATRIX)},
    ],
)
def test_labels_with_probabilities(said: Any) -> None:
    found = read_answers(said, MOOD, 2, who="M")
    assert found.choices is not None
    assert found.probabilities is not None
    assert found.choices.tolist() == [1, 0]
    assert found.probabilities.tolist() == MATRIX


@pytest.mark.parametrize(
    "said",
    [
        [1, 2.5],
        np.array([1, 2.5]),
        np.array([[1], [2.5]]),
        {"value": [1, 2.5]},
        [{"value": 1}, {"value": 2.5}],
    ],
)
def test_numbers(said: Any) -> None:
    found = read_answers(said, PRICE, 2, who="M")
    assert found.values is not None
    assert found.values.tolist() == [1.0, 2.5]


def test_columns_of_probabilities_stand_in_the_order_of_classes() -> None:
    found = read_probabilities(MATRIX, MOOD, 2, who="M", labels=np.array(["good", "bad"]))
    assert found.tolist() == [[0.75, 0.25], [0.0, 1.0]]


def test_a_label_that_is_no_text_may_be_a_key_as_json_writes_it() -> None:
    assert read_probabilities([{"2": 1.0}], DIGIT, 1, who="M").tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (["good"], "with 1 answers; expected 2, one per row"),
        ("good", "with a str;"),
        (None, "with a NoneType;"),
        (np.float64(3), "with a float64;"),
        (["good", "meh"], "'meh' to row 1; expected one of"),
        (["good", None], "None to row 1"),
        (["good", ["bad", "good"]], "to row 1"),
        ((["good", "bad"], [[0.5, 0.5]]), r"shape \(1, 2\); expected shape \(2, 2\)"),
        ([[0.5, 0.6], [1.0, 0.0]], "1.1 in all"),
        ([[0.5, float("nan")], [1.0, 0.0]], "nan in all"),
        ([[1.5, -0.5], [1.0, 0.0]], "row 0"),
        ([{"bad": 1.0}, {"worse": 1.0}], "the label 'worse' to row 1"),
        ([{"label": "good", "probabilities": {"good": 1.0}}, {"label": "bad"}], "some without"),
        ({"mood": ["good", "bad"]}, 'without "label"'),
        ([{"bad": "x", "good": 1}, {"bad": 1}], "'x'"),
    ],
)
def test_any_other_answer_is_refused_and_named(said: Any, says: str) -> None:
    with pytest.raises(ModelFailed, match=says) as caught:
        read_answers(said, MOOD, 2, who="Model")
    assert caught.value.message.startswith("Model answered 2 rows with ")


@pytest.mark.parametrize("said", [[1.0, float("inf")], [1.0, None], ["1", 2], [True, 1.0]])
def test_a_value_is_a_finite_number(said: Any) -> None:
    with pytest.raises(ModelFailed, match="expected a finite number"):
        read_answers(said, PRICE, 2, who="M")


def test_classes_must_be_the_labels() -> None:
    with pytest.raises(ModelFailed, match="classes_"):
        read_answers(["good"], MOOD, 1, who="M", labels=("good", "worse"))


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=9))
def test_every_form_of_the_same_answers_reads_the_same(labels: list[int]) -> None:
    eye = np.eye(3)[labels]
    forms: list[Any] = [
        (labels, eye),
        eye,
        [{"label": label, "probabilities": {label: 1.0}} for label in labels],
        {"label": labels, "probabilities": eye.tolist()},
    ]
    for said in forms:
        found = read_answers(said, DIGIT, len(labels), who="M")
        assert found.choices is not None
        assert found.probabilities is not None
        assert found.choices.tolist() == labels
        assert (found.probabilities == eye).all()
