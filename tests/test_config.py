"""YAML that people write is read strictly."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from clewline import config
from clewline.errors import InvalidConfig


def parse(text: str) -> object:
    return config.parse(text.encode(), Path("gate.yaml"), "Mend it.")


def test_values_come_as_yaml_says_and_an_empty_file_is_none() -> None:
    assert parse("a: {b: [1, x]}\nc: 1_000") == {"a": {"b": [1, "x"]}, "c": 1000}
    assert parse("") is None


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb: 2\na: 3", "x: {a: 1, a: 2}", "x: [{deep: {a: 1, a: 1}}]"],
)
def test_a_key_that_stands_twice_is_refused_wherever_it_stands(text: str) -> None:
    with pytest.raises(InvalidConfig, match="the key a is given twice"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: b: c", "\t- x", "d: 2020-13-45", "!!python/object:os.system {}", "[" * 5000],
)
def test_what_is_not_plain_yaml_is_refused_with_the_file_and_a_fix(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"gate\.yaml is not YAML") as caught:
        parse(text)
    assert caught.value.fix == "Mend it."


def test_an_alias_that_leads_in_a_circle_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="grows without bounds"):
        parse("&a [*a]")


def test_aliases_that_grow_without_bounds_are_refused() -> None:
    names = "abcdefghijkl"
    lines = [f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in pairwise(names)]
    text = "\n".join(["a: &a [1]", *lines])
    with pytest.raises(InvalidConfig, match="grows without bounds"):
        parse(text)
    assert parse("a: &a [1]\nb: *a\nc: *a") == {"a": [1], "b": [1], "c": [1]}
