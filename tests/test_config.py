"""YAML that people write is read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead import config
from fairlead.errors import InvalidConfig


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
    with pytest.raises(InvalidConfig, match="the key a stands twice"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: b: c", "\t- x", "d: 2020-13-45", "!!python/object:os.system {}", "[" * 5000],
)
def test_what_is_not_plain_yaml_is_refused_with_the_file_and_a_fix(text: str) -> None:
    with pytest.raises(InvalidConfig, match=r"gate\.yaml is not YAML") as caught:
        parse(text)
    assert caught.value.fix == "Mend it."


def test_an_alias_that_leads_in_a_circle_ends() -> None:
    circle = parse("&a [*a]")
    assert isinstance(circle, list)
    assert circle[0] is circle
