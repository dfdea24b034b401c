"""A checksum tells each difference in a row, wherever the row stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clewline.model.runtime import Outputs
from clewline.serve.graph.node import NodeAnswers
from clewline.serve.graph.row_trace import column_checksums, output_checksums, row_traces
from clewline.serve.log.frame import RoutePath
from clewline.signature.columns import Columns


def columns(*rows: tuple[list[float], list[str | None], list[float]]) -> Columns:
    texts = np.empty((len(rows), len(rows[0][1])), dtype=object)
    for row, (_, cells, _) in enumerate(rows):
        texts[row] = cells
    numbers = np.array([numbers for numbers, _, _ in rows])
    return Columns(numbers, texts, {"t": np.array([tensor for _, _, tensor in rows])})


ROW = ([1.0, 2.0], ["a", None], [5.0])


@pytest.mark.parametrize(
    "other",
    [
        ([1.0, 2.5], ["a", None], [5.0]),
        ([2.0, 1.0], ["a", None], [5.0]),
        ([1.0, 2.0], ["b", None], [5.0]),
        ([1.0, 2.0], ["a", "a"], [5.0]),
        ([1.0, 2.0], [None, "a"], [5.0]),
        ([1.0, 2.0], ["a", ""], [5.0]),
        ([1.0, 2.0], ["a", None], [6.0]),
    ],
)
def test_rows_that_differ_in_one_cell_have_different_checksums(other: Any) -> None:
    first, second, third = column_checksums(columns(ROW, other, ROW)).tolist()
    assert first == third != second


def test_a_row_has_the_same_checksum_alone_and_in_a_batch() -> None:
    other = ([7.0, 8.0], ["x", "y"], [9.0])
    alone = [column_checksums(columns(row)).tolist()[0] for row in (ROW, other)]
    assert column_checksums(columns(ROW, other)).tolist() == alone
    assert column_checksums(columns(other, ROW)).tolist() == alone[::-1]


def test_texts_and_numbers_both_count_when_both_change() -> None:
    texts_only = columns(([1.0, 2.0], ["b", None], [5.0]))
    both = columns(([3.0, 2.0], ["b", None], [5.0]))
    numbers_only = columns(([3.0, 2.0], ["a", None], [5.0]))
    found = [
        int(column_checksums(each)[0]) for each in (columns(ROW), texts_only, both, numbers_only)
    ]
    assert len(set(found)) == 4


def test_answers_that_differ_in_a_label_or_probability_have_different_checksums() -> None:
    shares = np.array([[0.5, 0.5], [0.5, 0.5], [0.4, 0.6]])
    found = output_checksums(Outputs(choices=np.array([0, 1, 0]), probabilities=shares))
    assert len(set(found.tolist())) == 3
    values = output_checksums(Outputs(values=np.array([1.0, 1.0, np.nextafter(1.0, 2.0)])))
    assert values[0] == values[1] != values[2]


def test_each_row_has_the_path_that_it_took_and_its_own_checksums() -> None:
    paths = (
        RoutePath("a@1", (("left", 1.0),), "left"),
        RoutePath("b@1", (("right", 2.0),), "right"),
    )
    answers = NodeAnswers(
        Outputs(values=np.zeros(3)),
        paths,
        np.array([1, 0, 1]),
        {"left": np.array([10, 11, 12]), "right": np.array([20, 21, 22])},
    )
    traces = row_traces(answers, 3)
    assert [trace.path for trace in traces] == [paths[1], paths[0], paths[1]]
    assert [int.from_bytes(trace.checksums, "little") for trace in traces] == [20, 11, 22]
