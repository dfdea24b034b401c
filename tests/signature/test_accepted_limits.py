"""`signatures/NAME.yaml`: the bounds and levels that a person has accepted."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from clewline.errors import InvalidConfig
from clewline.signature.accepted_limits import (
    AcceptedFieldLimits,
    AcceptedLimits,
    accepted_from_builtins,
    read_accepted,
)
from clewline.signature.check import Checker


def test_bounds_and_levels_are_read_and_survive_being_pinned(tmp_path: Path) -> None:
    path = tmp_path / "income.yaml"
    path.write_text(
        "fields:\n  age: {bounds: [17, 90]}\n  job: {levels: [nurse, smith]}\n"
        "  rows: {bounds: [2024-01-01T00:00:00Z, '2025-01-01T00:00:00+01:00']}\n"
    )
    accepted = read_accepted(path)
    assert accepted.fields["job"] == AcceptedFieldLimits(levels=("nurse", "smith"))
    pinned = accepted_from_builtins(msgspec.json.decode(msgspec.json.encode(accepted)))
    assert pinned.fields["age"] == AcceptedFieldLimits(bounds=(17, 90))
    assert pinned.fields["rows"].bounds == ("2024-01-01T00:00:00Z", "2025-01-01T00:00:00+01:00")


@pytest.mark.parametrize("text", ["", "fields: {}", None])
def test_nothing_is_accepted_unless_somebody_said_so(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "income.yaml"
    if text is not None:
        path.write_text(text)
    assert read_accepted(path) == AcceptedLimits()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fields: [", "not YAML"),
        ("filds: {}", "filds"),
        ("fields: {age: {bound: [1, 2]}}", "bound"),
        ("fields: {job: {levels: [yes, no]}}", "Expected `str`"),
        ("[]", "Expected `object`"),
    ],
)
def test_a_forbidden_entry_of_the_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "income.yaml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=words):
        read_accepted(path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"agee": {"bounds": [1, 2]}}, "'agee'.*did you mean 'age'"),
        ({"age": {"bounds": [2, 1]}}, "wrong order"),
        ({"age": {"bounds": ["1", 2]}}, "'age'"),
        ({"age": {"bounds": [0, float("inf")]}}, "'age'"),
        ({"age": {"bounds": [0, float("nan")]}}, "'age'"),
        ({"age": {"levels": ["a"]}}, "has no levels"),
        ({"job": {"bounds": [1, 2]}}, "has no bounds"),
        ({"job": {"levels": []}}, "empty"),
        ({"class": {"bounds": [0, 1]}}, "has no bounds"),
        ({"rows": {"bounds": [0, 1]}}, "'rows'"),
        ({"rows": {"bounds": ["2024-01-01", "2025-01-01"]}}, "'rows'"),
    ],
)
def test_a_limit_that_does_not_fit_the_signature_is_named(
    mixed: Checker, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidConfig, match=words):
        Checker(mixed.signature, accepted_from_builtins({"fields": fields}))
