"""
From columns of values to checked rows, by the same rules as JSON rows.

What is plainly right is taken a column at once; every other column is decided
value by value, so that each bad row and field is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from clewline.errors import FieldProblem, MalformedInput, UnknownFormat
from clewline.serve.formats import RequestRows, too_many_rows
from clewline.signature.check import Checker, refused_rows
from clewline.signature.field_rules import EXACT, FieldRule, Refusal, is_encodable, printable_text
from clewline.signature.json_rows import NameSuggestions, printable_json

CHARSETS = ("utf-8", "us-ascii", "iso-8859-1", "windows-1252", "utf-16")
MOST_PROBLEMS = 10_000
"""Bad values of one column that are named."""

_SAFE = math.nextafter(EXACT, 0.0)


class Details(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a format must know beside the bytes, as JSON in the detail of an `Ask`."""

    charset: str = "utf-8"  # of text/csv
    entities: str | None = None  # the column that says whom a row is about


def write_details(details: Details) -> str:
    """Write details; nothing when there are none."""
    text = msgspec.json.encode(details).decode()
    return "" if text == "{}" else text


def read_details(detail: str) -> Details:
    """Read what `write_details` wrote."""
    return msgspec.json.decode(detail, type=Details) if detail else Details()


def require_charset(charset: str) -> str:
    """
    Give a charset in its usual spelling.

    Raises:
        UnknownFormat: It is not read here.
    """
    name = charset.strip().strip('"').lower()
    name = {"utf8": "utf-8", "ascii": "us-ascii", "latin1": "iso-8859-1"}.get(name, name)
    if name not in CHARSETS:
        raise UnknownFormat(
            f"The charset {printable_text(name)!r} is not read here.",
            f"Send one of {', '.join(CHARSETS)}.",
        )
    return name


def rows_of(
    values: Mapping[str, Sequence[Any]], count: int, checker: Checker, max_rows: int
) -> list[Any]:
    """
    Check columns and turn them into rows.

    Args:
        values: The values of each column, in any order; None is null.
        count: How many values each has.
        checker: Checks them.
        max_rows: How many there may be.

    Raises:
        MalformedInput: There are no rows.
        TooManyRows: There are more than `max_rows`.
        InvalidInput: Columns are missing or unknown, or values are refused; names every one.
    """
    require_count(count, max_rows)
    problems = strange_columns(values, checker)
    columns = []
    for rule in checker.rules:
        column = values.get(rule.field.name)
        if column is not None:
            columns.append(_column(rule, column, problems))
    if problems:
        raise refused_rows(sorted(problems, key=lambda problem: problem.row), count)
    row_type = checker.row_type
    return list(map(row_type, *columns))


def require_count(count: int, max_rows: int) -> None:
    """Raise unless there are rows, and not too many; as `rows_of`."""
    if count == 0:
        raise MalformedInput("There are no rows.", "Send at least one.")
    if count > max_rows:
        raise too_many_rows(max_rows)


def strange_columns(names: Iterable[str], checker: Checker) -> list[FieldProblem]:
    """Name the columns that are missing, and those that the signature does not know."""
    found = list(names)
    known = {rule.field.name: rule for rule in checker.rules}
    problems = [
        FieldProblem(0, name, None, f"{rule.expected}; the column is missing")
        for name, rule in known.items()
        if name not in found
    ]
    nearest = NameSuggestions(known)
    for name in found:
        if name not in known:
            expected = f"no such field{nearest.hint(name)}"
            problems.append(FieldProblem(0, printable_text(name), None, expected))
    return problems


def with_entities(rows: list[Any], entities: list[str] | None) -> RequestRows:
    """
    Put rows and whom they are about together.

    Raises:
        MalformedInput: They are not as many.
    """
    if entities is not None and len(entities) != len(rows):
        raise MalformedInput(
            f"There are {len(entities)} entities and {len(rows)} rows.",
            "Send one entity a row, or leave entities out.",
        )
    return RequestRows(rows, entities)


def take_entities(
    values: dict[str, Sequence[Any]], column: str | None, checker: Checker
) -> list[str] | None:
    """
    Take the column of entities out, unless it is a field too.

    Raises:
        MalformedInput: There is no such column, or a value in it is no text or integer.
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
                f"The entity of row {row} is no text: {printable_text(repr(value))}.",
                "The column of entities holds a text or an integer a row.",
            )
    return [str(value) for value in found]


def _column(rule: FieldRule, values: Sequence[Any], problems: list[FieldProblem]) -> Sequence[Any]:
    """Give a column as rows hold it; adds what is refused to `problems`."""
    quick = _quick(rule, values)
    if quick is not None:
        return quick
    found, refused = [], 0
    for row, value in enumerate(values):
        outcome = rule.judge(value)
        found.append(outcome)
        if isinstance(outcome, Refusal):
            refused += 1
            if refused <= MOST_PROBLEMS:
                said = printable_json(value)
                problems.append(FieldProblem(row, rule.field.name, said, outcome.expected))
    return found


def _quick(rule: FieldRule, values: Sequence[Any]) -> Sequence[Any] | None:
    """Give a column as rows hold it where all of it is plainly right, else None."""
    types = set(map(type, values))
    if type(None) not in types:
        return _quick_whole(rule, values, types)
    if not rule.field.nullable:
        return None
    present = [value for value in values if value is not None]
    found = _quick_whole(rule, present, types - {type(None)}) if present else present
    if found is None:
        return None
    rest = iter(found)
    return [None if value is None else next(rest) for value in values]


def _quick_whole(rule: FieldRule, values: Sequence[Any], types: set[type]) -> Sequence[Any] | None:
    kind = rule.field.kind
    if kind in ("category", "text"):
        return values if types == {str} and _are_texts(rule, values) else None
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
    # An integer that was rounded here lies beyond the limits, too.
    if not (low <= min(floats) and max(floats) <= high):
        return None
    if types == {int}:
        return floats
    # The sum is NaN where one of them is, which neither least nor greatest need show.
    if math.isnan(sum(floats)) or (kind == "integer" and not _are_whole(floats)):
        return None
    return floats


def _are_whole(values: Sequence[Any]) -> bool:
    return all(float(value).is_integer() for value in values)


def _are_texts(rule: FieldRule, values: Sequence[str]) -> bool:
    if rule.levels is not None:
        return set(values).issubset(rule.levels)
    return is_encodable("".join(values))
