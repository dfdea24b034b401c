"""Named slices, and weak ones that are found."""

import datetime as dt

import msgspec
import numpy as np
import polars as pl
import pytest

from clewline.errors import InvalidInput
from clewline.evaluation.columns import read_columns
from clewline.evaluation.conditions import rows_that_meet
from clewline.evaluation.evaluate import evaluate
from clewline.evaluation.report import Report

from .stated_answers import StatedAnswers

PEOPLE = pl.DataFrame(
    {
        "age": [20, 30, None, 50],
        "sex": ["f", "m", "f", None],
        "member": [True, False, None, True],
        "hours-a-week": [40.0, 20.0, 10.0, 0.0],
        "since": [dt.datetime(2020, 1, day) for day in (1, 2, 3, 4)],
        "mixed up": [[1], [2], [3], [4]],
    }
)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("age >= 30", [1, 3]),
        ("20 <= age < 50", [0, 1]),
        ("30 > age", [0]),
        ("age != 20", [1, 3]),
        ("age is None", [2]),
        ("age is not None and sex == 'f'", [0]),
        ("sex == 'f' or sex is None", [0, 2, 3]),
        ("sex != 'f'", [1]),
        ("sex in ['m', 'x']", [1]),
        ("not (sex in ('m',))", [0, 2, 3]),
        ("sex not in ['m']", [0, 2]),
        ("age in [20, 50]", [0, 3]),
        ("member", [0, 3]),
        ("member == False", [1]),
        ("not member", [1, 2]),
        ("`hours-a-week` > 15 and member", [0]),
        ("since >= '2020-01-03'", [2, 3]),
        ("sex == 'nobody'", []),
    ],
)
def test_a_condition_is_met_by(condition: str, rows: list[int]) -> None:
    mask = rows_that_meet(condition, read_columns(PEOPLE), 4)
    assert np.flatnonzero(mask).tolist() == rows


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("age >", "cannot be read"),
        ("(" * 5000, "cannot be read"),
        ("hours-a-week > 3", "does not compare columns"),
        ("agee > 3", "no column 'agee'.*Did you mean 'age'"),
        ("`mixed up` == 1", "no column 'mixed up'"),
        ("sex > 'a'", "texts, which have no order"),
        ("sex == 1", "'sex' with 1.*texts or booleans"),
        ("age == 'old'", "'age' with 'old'.*numbers"),
        ("age == True", "'age' with True"),
        ("since > 'soon'", "date-times"),
        ("age + 1 > 3", "does not compare"),
        ("__import__('os')", "does not compare"),
        ("age > open('x')", "does not compare"),
        ("1 in sex", "does not compare"),
        ("age is 3", "does not compare"),
    ],
)
def test_a_condition_that_cannot_be_used_is_named(condition: str, words: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        rows_that_meet(condition, read_columns(PEOPLE), 4)
    text = f"{raised.value.message} {raised.value.fix}"
    import re

    assert re.search(words, text), text


def planted(rows: int = 4000, seed: int = 0, bad: float = 0.5) -> tuple[pl.DataFrame, list[int]]:
    """A model that is wrong in 10 % of all rows, and in `bad` of a slice of two conditions."""
    random = np.random.default_rng(seed)
    table = pl.DataFrame(
        {
            "age": random.normal(40, 10, rows),
            "city": np.array(list("abcde"))[random.integers(0, 5, rows)],
            "noise": random.normal(size=rows),
            "word": np.array(list("pqrs"))[random.integers(0, 4, rows)],
            "y": random.integers(0, 2, rows),
        }
    )
    weak = (table["age"] > 46.7) & (table["city"] == "b")
    wrong = random.uniform(size=rows) < np.where(weak, bad, 0.1)
    return table, np.where(wrong, 1 - table["y"].to_numpy(), table["y"].to_numpy()).tolist()


def measured(table: pl.DataFrame, answers: list, **asked) -> Report:
    return evaluate(StatedAnswers(answers, [0, 1]), table, target="y", resamples=100, **asked)


def test_named_slices_have_their_own_metrics() -> None:
    table, answers = planted()
    report = measured(
        table, answers, find_slices=False,
        slices={"b": "city == 'b'", "nobody": "city == 'z'", "all": "age > -1000"},
    )  # fmt: skip
    b, nobody, every = report.slices.given
    inside = (table["city"] == "b").to_numpy()
    hits = np.array(answers) == table["y"].to_numpy()
    assert (b.rows, b.share) == (inside.sum(), inside.mean())
    assert b.metrics["accuracy"].value == pytest.approx(hits[inside].mean())
    assert b.metrics["accuracy"].low < b.metrics["accuracy"].value < b.metrics["accuracy"].high
    assert b.others == pytest.approx(hits[~inside].mean())
    assert (nobody.rows, nobody.small, nobody.metrics) == (0, True, {})
    assert every.others is None
    assert every.metrics["accuracy"].value == report.metrics["accuracy"].value
    assert report.slices.weak is None
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_a_field_is_a_slice_for_each_value() -> None:
    table, answers = planted(400)
    given = measured(table, answers, slices=["city", "age > 40", "noise"]).slices.given
    names = [each.name for each in given]
    assert {f"city is {city}" for city in "abcde"} < set(names)
    assert "age > 40" in names
    assert len([name for name in names if name.startswith("noise is >")]) == 3
    assert len(names) == 10


def test_a_planted_weak_slice_is_found_and_confirmed() -> None:
    table, answers = planted()
    report = measured(table, answers)
    weak = report.slices.weak
    first = weak.slices[0]
    assert first.condition.startswith("age > 46") or first.condition.startswith("age > 47")
    assert first.condition.endswith("and city == 'b'")
    assert first.loss.value == pytest.approx(0.5, abs=0.12)
    assert first.loss.low > first.other_loss
    assert first.p_value < 0.001
    assert weak.tried > 1000
    assert (weak.searched_rows, weak.confirming_rows) == (2000, 2000)
    # Its condition can be asked for.
    [again] = measured(table, answers, slices=[first.condition], find_slices=False).slices.given
    assert again.rows > first.rows


def test_a_weak_slice_of_a_regression_is_found() -> None:
    table, _ = planted()
    random = np.random.default_rng(0)
    weak = ((table["age"] > 46.7) & (table["city"] == "b")).to_numpy()
    answers = random.normal(size=4000) * np.where(weak, 3.0, 1.0)
    report = evaluate(
        StatedAnswers(answers), table.with_columns(y=pl.lit(0.0)), target="y", resamples=20
    )
    assert report.slices.weak.loss == "absolute_error"
    assert "city == 'b'" in report.slices.weak.slices[0].condition


def test_slices_are_not_found_in_noise() -> None:
    """At most one search in twenty may find something; 3 of 20 is the 98th percentile."""
    found = 0
    for seed in range(20):
        table, answers = planted(1000, seed=seed, bad=0.1)
        found += bool(measured(table, answers).slices.weak.slices)
    assert found <= 3


def test_a_group_of_copied_rows_does_not_confirm_a_slice() -> None:
    """One customer with a hundred wrong rows is one observation."""
    random = np.random.default_rng(0)
    rows = 3000
    owner = np.repeat(np.arange(60), 50)
    table = pl.DataFrame(
        {
            "owner": owner,
            "city": np.array(list("abcdef"))[(owner // 4) % 6],
            "y": random.integers(0, 2, rows),
        }
    )
    wrong = np.isin(owner, random.choice(60, 6, replace=False))
    answers = np.where(wrong, 1 - table["y"].to_numpy(), table["y"].to_numpy()).tolist()
    weak = measured(table, answers, group="owner").slices.weak
    assert weak.slices == ()
    assert "owner" not in weak.combined_fields


def test_few_rows_have_no_weak_slices() -> None:
    table, answers = planted(10)
    weak = measured(table, answers).slices.weak
    assert (weak.slices, weak.candidates) == ((), 0)


def test_a_name_that_is_no_column_and_no_condition_is_refused() -> None:
    table, answers = planted(50)
    with pytest.raises(InvalidInput, match="no column 'ctiy'"):
        measured(table, answers, slices=["ctiy"])
