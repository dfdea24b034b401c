"""Conditions over answered rows mean what they say, and run nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from clewline.errors import InvalidConfig
from clewline.serve.condition import Condition, parse_condition

ROW = {"age": 41, "work": "own", "member": True, "debt": None, "hours per week": 38.5, "label": 3}
YES = {"label": "yes", "probabilities": {"no": 0.4, "yes": 0.6}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("probability < 0.7", True),
        ("probability > 0.7", False),
        ("0.5 <= probability < 0.6", False),
        ("0.5 <= probability <= 0.6", True),
        ('label == "yes"', True),
        ("label != 'yes'", False),
        ("age == 41", True),
        ("age == 41.0", True),
        ("age > -1", True),
        ("-age", None),
        ('work in ["own", "state"]', True),
        ("work not in ['own']", False),
        ("age in [40, 41]", True),
        ("member", True),
        ("member == true", True),
        ("member == 1", False),
        ("not member", False),
        ("debt == null", True),
        ("debt != null", False),
        ("debt < 5", False),
        ("debt >= 5", False),
        ("not debt < 5", True),
        ("work < 5", False),
        ('work < "p"', True),
        ("missing == null", True),
        ('row["hours per week"] > 38', True),
        ('row["label"] == 3', True),
        ("age > 40 and work == 'state' or probability < 0.7", True),
        ("age > 40 and (work == 'state' or probability > 0.7)", False),
        ("true", True),
        ("false", False),
        ("value > 3", False),
        ("1", False),
    ],
)
def test_a_condition_holds_or_not(text: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(InvalidConfig):
            parse_condition(text)
        return
    assert parse_condition(text).holds(YES, ROW) is expected


def test_the_probability_is_that_of_the_label_whatever_its_type() -> None:
    answer = {"label": True, "probabilities": {"true": 0.9, "false": 0.1}}
    assert parse_condition("probability == 0.9 and label == true").holds(answer, {})
    assert not parse_condition("probability < 1").holds({"label": "no"}, {})
    assert parse_condition("value >= 2").holds({"value": 2.5}, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "probability <",
        "label = 'yes'",
        "__import__('os').system('true')",
        "age.real > 1",
        "(lambda: 1)() == 1",
        "[age for age in [1]] == [1]",
        "age + 1 > 2",
        "f'{age}' == '41'",
        "age in work",
        "age in [work]",
        "1 < age in [2]",
        "age is null",
        "row[0] == 1",
        "other['x'] == 1",
        "age if member else work",
        "a\nb",
        "(" * 250 + "age" + ")" * 250,
        "not " * 2000 + "age",
        "1j < age",
        "b'x' == work",
        "(x := 1) == 1",
        "age\0",
    ],
)
def test_what_is_no_condition_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"is not a condition: \S"):
        parse_condition(text)


def test_a_condition_is_plain_and_reads_back_equal() -> None:
    found = parse_condition("age > 40 and not (work in ['own', null] or probability < 0.7)")
    plain: Any = msgspec.json.encode(found)
    assert msgspec.json.decode(plain, type=Condition) == found
    names = [each.field or each.answer for each in found.names()]
    assert names == ["age", "work", "probability"]
