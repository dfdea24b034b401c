"""
From columns of values to checked rows, by the same rules as JSON rows.

A column that is plainly right is taken at once; every other column is decided value by value,
so that each bad row and field is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from clewline.errors import FieldProblem, MalformedInput, UnknownFormat
from clewline.serve.formats.body_format import RequestRows, too_many_rows
from clewline.signature.check import Checker, refused_rows
from clewline.signature.field_rules import (
    EXACT,
    FieldRule,
    RefusedValue,
    is_encodable,
    printable_text,
)
from clewline.signature.json_rows import MOST_PROBLEMS, NameSuggestions, printable_json

CHARSETS = ("utf-8", "us-ascii", "iso-8859-1", "windows-1252", "utf-16")
MOST_COLUMNS = 16_384
"""Columns of one table."""

_SAFE = math.nextafter(EXACT, 0.0)


class FormatDetails(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a format must know beside the bytes, as JSON in the detail of a request."""

    charset: str = "utf-8"  # of text/csv
    entities: str | None = None  # the column that names the entity of a row


def write_details(details: FormatDetails) -> str:
    """Write details; an empty string if there are none."""
    text = msgspec.json.encode(details).decode()
    return "" if text == "{}" else text


def read_details(detail: str) -> FormatDetails:
    """Read details that `write_details` wrote."""
    return msgspec.json.decode(detail, type=FormatDetails) if detail else FormatDetails()


def require_charset(charset: str) -> str:
    """
    Return a charset in its usual spelling.

    Raises:
        UnknownFormat: It is not supported.
    """
    name = charset.strip().strip('"').lower()
    name = {"utf8": "utf-8", "ascii": "us-ascii", "latin1": "iso-8859-1"}.get(name, name)
    if name not in CHARSETS:
        raise UnknownFormat(
            f"The charset {printable_text(name)!r} is not supported.",
            f"Send one of {', '.join(CHARSETS)}.",
        )
    return name


def rows_from_columns(
    values: Mapping[str, Sequence[Any]],
    count: int,
    checker: Checker,
    max_rows: int,
    entities: list[str] | None = None,
) -> RequestRows:
    """
    Check columns and turn them into rows.

    Args:
        values: The values of each column, in any order; None is null.
        count: The number of values of each.
        checker: Checks them.
        max_rows: The most rows that are accepted.
        entities: The entity of each row.

    Raises:
        MalformedInput: There are no rows, more than `MOST_COLUMNS`, or not one entity per row.
        TooManyRows: There are more than `max_rows`.
        InvalidInput: Columns are missing or unknown, or values are refused; `fields` names each.
    """
    require_count(count, max_rows)
    require_few_columns(len(values))
    rules = {rule.field.name: rule for rule in checker.rules}
    problems = [
        FieldProblem(0, name, None, f"{rule.expected}; the column is missing")
        for name, rule in rules.items()
        if name not in values
    ]
    suggestions = NameSuggestions(rules)
    for name in values:
        if name not in rules:
            expected = f"no such field{suggestions.hint(name)}"
            problems.append(FieldProblem(0, printable_text(name), None, expected))
    columns = [
        _checked_column(rule, values[name], problems)
        for name, rule in rules.items()
        if name in values
    ]
    if problems:
        raise refused_rows(sorted(problems, key=lambda problem: problem.row), count)
    return with_entities(list(map(checker.row_type, *columns)), entities)


def require_count(count: int, max_rows: int) -> None:
    """Raise unless there are rows, and not too many; as `rows_from_columns`."""
    if count == 0:
        raise MalformedInput("There are no rows.", "Send at least one.")
    if count > max_rows:
        raise too_many_rows(max_rows)


def require_few_columns(count: int) -> None:
    """Raise `MalformedInput` if a table has more than `MOST_COLUMNS`."""
    if count > MOST_COLUMNS:
        raise MalformedInput(
            f"There are {count} columns; the limit is {MOST_COLUMNS}.", "Send one for each field."
        )


def with_entities(rows: list[Any], entities: list[str] | None) -> RequestRows:
    """
    Return rows with their entities.

    Raises:
        MalformedInput: There is not one entity per row.
    """
    if entities is not None and len(entities) != len(rows):
        raise MalformedInput(
            f"There are {len(entities)} entities and {len(rows)} rows.",
            "Send one entity per row, or leave entities out.",
        )
    return RequestRows(rows, entities)


def first_repeated(names: Iterable[str]) -> str | None:
    """Return the first name that comes twice, if any does."""
    seen = set[str]()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def take_entities(
    values: dict[str, Sequence[Any]], column: str | None, checker: Checker
) -> list[str] | None:
    """
    Take the column of entities out, unless it is a field too.

    Raises:
        MalformedInput: There is no such column, or a value in it is no string or integer.
    """
    if column is None:
        return None
    if column not in values:
        hint = NameSuggestions(values).hint(column)
        raise MalformedInput(
            f"There is no column {printable_text(column)!r} of entities{hint}.",
            "?entities= names a column of the body.",
        )
    is_field = any(rule.field.name == column for rule in checker.rules)
    found = values[column] if is_field else values.pop(column)
    for row, value in enumerate(found):
        if (
            isinstance(value, bool)
            or not isinstance(value, int | str)
            or not is_encodable(str(value))
        ):
            raise MalformedInput(
                f"The entity of row {row} is not a string: {printable_text(repr(value))}.",
                "The column of entities must hold a string or an integer per row.",
            )
    return [str(value) for value in found]


def _checked_column(
    rule: FieldRule, values: Sequence[Any], problems: list[FieldProblem]
) -> Sequence[Any]:
    """Return a column as rows hold it; add what is refused to `problems`."""
    quick = _quick_column(rule, values)
    if quick is not None:
        return quick
    found, refused = [], 0
    for row, value in enumerate(values):
        outcome = rule.judge(value)
        found.append(outcome)
        if isinstance(outcome, RefusedValue):
            refused += 1
            if refused <= MOST_PROBLEMS:
                shown = printable_json(value)
                problems.append(FieldProblem(row, rule.field.name, shown, outcome.expected))
    return found


def _quick_column(rule: FieldRule, values: Sequence[Any]) -> Sequence[Any] | None:
    """Return a column as rows hold it if all of it is plainly right, else None."""
    types, kind = set(map(type, values)), rule.field.kind
    if type(None) in types:
        if not rule.field.nullable:
            return None
        present = [value for value in values if value is not None]
        found = _quick_column(rule, present) if present else present
        rest = iter(found or ())
        return None if found is None else [None if v is None else next(rest) for v in values]
    if kind in ("category", "text") and types == {str}:
        if rule.levels is not None:
            return values if set(values).issubset(rule.levels) else None
        return values if is_encodable("".join(values)) else None
    if kind == "boolean":
        return values if types == {bool} else None
    if kind not in ("number", "integer") or not types <= {int, float}:
        return None
    low, high = rule.bounds or (-_SAFE, _SAFE)
    low, high = max(low, -_SAFE), min(high, _SAFE)
    try:
        floats = values if types == {float} else list(map(float, values))
    except OverflowError:
        return None
    # An integer that was rounded here lies beyond the limits, too. The sum is NaN where one of
    # them is, which neither least nor greatest need show.
    if not (low <= min(floats) and max(floats) <= high):
        return None
    if types != {int} and (
        math.isnan(sum(floats)) or (kind == "integer" and not all(map(float.is_integer, floats)))
    ):
        return None
    return floats
