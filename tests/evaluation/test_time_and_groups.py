"""Entities and futures that leak, contradictory labels, and metrics over time."""

import datetime as dt
import logging

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clewline.errors import InvalidInput
from clewline.evaluation.evaluate import evaluate
from clewline.evaluation.report import Report
from clewline.evaluation.time_and_groups import contradictory_rows

from .stated_answers import StatedAnswers


def day(number: int) -> dt.datetime:
    return dt.datetime(2024, 1, 1) + dt.timedelta(days=number)


def visits(days: range, people: str, labels: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"who": list(people), "at": [day(n) for n in days], "x": range(len(days)), "y": labels}
    )


TRAIN = visits(range(6), "abcabc", [0, 1, 0, 1, 1, 0])
LATER = visits(range(10, 14), "defd", [0, 1, 0, 1])
MIXED = visits(range(5, 9), "adbe", [0, 1, 0, 1])
MODEL = StatedAnswers([0, 1, 0, 1], [0, 1])


def measured(test: pl.DataFrame, **asked) -> Report:
    return evaluate(MODEL, test, target="y", train=TRAIN, resamples=20, **asked)


def test_a_clean_split_passes() -> None:
    report = measured(LATER, time="at", group="who", split=("time", "group"))
    check = report.time_and_groups.check
    assert (check.train_rows, check.test_rows) == (6, 4)
    assert (check.early_test_rows, check.shared_groups, check.shared_group_rows) == (0, 0, 0)
    assert check.train_end == "2024-01-06T00:00:00Z"
    assert check.test_start == "2024-01-11T00:00:00Z"
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_leaks_are_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check = measured(MIXED, time="at", group="who").time_and_groups.check
    assert (check.early_test_rows, check.shared_groups, check.shared_group_rows) == (1, 2, 2)
    assert check.examples == ("a", "b")
    assert any("1 of 4 test rows are not later" in message for message in caplog.messages)
    assert any("2 of 4 test rows belong to 2 groups" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("time", r"1 of 4 test rows are not later than .*2024-01-06"),
        ("group", r"2 of them have rows in training and test, such as a, b: 2 of 4"),
    ],
)
def test_leaks_that_a_split_forbids_are_refused(split: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        measured(MIXED, time="at", group="who", split=split)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"split": "time"}, "needs time="),
        ({"split": "group"}, "needs group="),
        ({"split": "luck"}, "'luck' is unknown"),
        ({"time": ["at", "at", "at"]}, "3 columns"),
        ({"time": "who"}, "dates the rows, and holds texts"),
        ({"time": "when"}, "no column 'when'"),
        ({"group": "whom"}, "no column 'whom'"),
    ],
)
def test_what_cannot_be_checked_is_named(asked, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        measured(LATER, **asked)


def test_a_split_without_training_rows_cannot_be_checked() -> None:
    with pytest.raises(InvalidInput, match="compares the test rows with the training rows"):
        evaluate(MODEL, LATER, target="y", time="at", split="time")


def test_rows_without_an_entity_are_refused_and_rows_without_a_time_counted() -> None:
    nobody = LATER.with_columns(who=pl.Series(["d", None, "e", "f"]))
    with pytest.raises(InvalidInput, match="1 of 4 rows have no 'who'"):
        measured(nobody, group="who")
    never = LATER.with_columns(at=pl.Series([day(10), None, day(11), day(12)]))
    section = measured(never, time="at").time_and_groups
    assert section.rows_without_time == 1
    assert sum(each.rows for each in section.bins) == 3


def test_an_entity_whose_label_changes_is_counted() -> None:
    labels = measured(LATER, time="at", group="who").time_and_groups.labels
    assert (labels.groups, labels.changing_groups) == (6, 2)  # a in training, d in test
    assert (labels.contradictory_rows, labels.contradictory_groups) == (0, 0)
    assert labels.examples == ("a", "d")
    without_time = measured(LATER, group="who").time_and_groups.labels
    assert without_time.contradictory_rows is None


def test_rows_of_one_moment_with_two_labels_contradict() -> None:
    test = visits(range(10, 14), "aade", [0, 1, 0, 1]).with_columns(
        at=pl.Series([day(10), day(10), day(10), day(11)])
    )
    labels = measured(test, time="at", group="who").time_and_groups.labels
    assert (labels.contradictory_rows, labels.contradictory_groups) == (2, 1)
    assert labels.examples == ("a",)


def test_windows_that_overlap_contradict_and_those_that_touch_do_not() -> None:
    def found(spans: list[tuple[int, int]], labels: list[int]) -> list[bool]:
        starts, ends = np.array(spans, dtype=float).T
        groups = np.zeros(len(spans), dtype=int)
        return contradictory_rows(groups, starts, ends, np.array(labels), closed=False).tolist()

    assert found([(0, 10), (5, 15), (15, 20)], [0, 1, 0]) == [True, True, False]
    assert found([(0, 10), (5, 15)], [0, 0]) == [False, False]
    assert found([(0, 100), (1, 2), (50, 60)], [0, 0, 1]) == [True, False, True]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_contradictions_are_those_of_all_pairs(seed: int, closed: bool) -> None:
    random = np.random.default_rng(seed)
    groups, labels = random.integers(0, 3, 30), random.integers(0, 3, 30)
    starts = random.integers(0, 20, 30).astype(float)
    ends = starts if closed else starts + random.integers(1, 6, 30)
    expected = np.zeros(30, dtype=bool)
    for one in range(30):
        for two in range(30):
            meets = starts[one] <= ends[two] and starts[two] <= ends[one]
            if not closed:
                meets = starts[one] < ends[two] and starts[two] < ends[one]
            differ = groups[one] == groups[two] and labels[one] != labels[two]
            expected[one] |= differ and meets
    found = contradictory_rows(groups, starts, ends, labels, closed=closed)
    assert found.tolist() == expected.tolist()


def test_metrics_over_time_show_a_model_that_ages() -> None:
    rows = 1000
    truth = np.array([0, 1] * 500)
    random = np.random.default_rng(0)
    answers = np.where(random.uniform(size=rows) < np.linspace(0, 0.5, rows), 1 - truth, truth)
    table = pl.DataFrame({"at": [day(n) for n in range(rows)], "x": range(rows), "y": truth})
    model = StatedAnswers(answers, [0, 1])
    bins = evaluate(model, table, target="y", time="at", resamples=20).time_and_groups.bins
    assert [each.rows for each in bins] == [100] * 10
    assert bins[0].start == "2024-01-01T00:00:00Z"
    assert bins[0].end < bins[1].start
    assert bins[0].metrics["accuracy"].low > bins[-1].metrics["accuracy"].high


def test_groups_widen_the_intervals() -> None:
    table = pl.DataFrame({"who": np.repeat(np.arange(40), 10), "y": np.repeat([0, 1], 200)})
    answers = np.repeat(np.random.default_rng(0).integers(0, 2, 40), 10)
    model = StatedAnswers(answers, [0, 1])
    grouped = evaluate(model, table, target="y", group="who").metrics["accuracy"]
    alone = evaluate(model, table, target="y").metrics["accuracy"]
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
