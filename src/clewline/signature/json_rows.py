"""
The exact pass over JSON rows: slow, and it names every bad row and field.

It runs if the fast pass refuses a body or cannot be sure. It keeps repeated keys, and reads
each number as it was written.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from clewline.errors import FieldProblem, MalformedInput
from clewline.signature.field_rules import (
    EXACT,
    FieldRule,
    RefusedValue,
    UnrepresentableNumber,
    printable_text,
    printable_value,
)

_WHOLE = re.compile(r"-?\d+\.0+")
_MOST_DIGITS = 310  # of an integer; one with more is beyond every float64
_LONGEST_NAME = 100  # characters; longer names get no suggestion
_ONE_DOCUMENT = "Send one JSON document in UTF-8."
_MOST_COMPARISONS = 1_000  # of two names in one request: each takes up to 20 µs
MOST_VALUES = 2 << 20
"""Values of a JSON body that is read in one go; the exact pass takes about 1 µs for each."""
MOST_PROBLEMS = 10_000
"""Problems of one request that are looked for, and that its answer names."""


class JsonObject(tuple[tuple[str, Any], ...]):
    """A JSON object as it was written: (key, value) pairs, including repeated keys."""

    __slots__ = ()


def parse_exactly(body: bytes | memoryview) -> Any:
    """
    Read JSON exactly.

    Returns:
        None, bool, int, float, str, list and `JsonObject`; a number that no float64 holds is
        an `UnrepresentableNumber`.

    Raises:
        MalformedInput: The body is not JSON; says where.

    Source:
        RFC 8259.
    """
    data = bytes(body)
    if not data.strip():
        raise MalformedInput("The body is empty.", 'Send {"rows": [{…}]} or one row object.')
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=JsonObject,
            parse_int=_read_integer,
            parse_float=_read_decimal,
            parse_constant=UnrepresentableNumber,
        )
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise MalformedInput(f"The body is not UTF-8: {where}.", _ONE_DOCUMENT) from error
    except json.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise MalformedInput(f"The body is not JSON: {where}.", _ONE_DOCUMENT) from error
    except RecursionError as error:
        raise MalformedInput(
            "The body is nested too deeply to be read.", "A row is an object of plain values."
        ) from error


def _read_integer(literal: str) -> int | UnrepresentableNumber:
    return UnrepresentableNumber(literal) if len(literal) > _MOST_DIGITS else int(literal)


def _read_decimal(literal: str) -> int | float | UnrepresentableNumber:
    value = float(literal)
    if abs(value) < EXACT:
        return value
    if value in (float("inf"), float("-inf")):
        return UnrepresentableNumber(literal)
    if _WHOLE.fullmatch(literal):
        return int(literal.split(".")[0])
    return value


def check_rows(
    values: Sequence[Any], rules: tuple[FieldRule, ...]
) -> tuple[list[tuple[Any, ...]], list[FieldProblem]]:
    """
    Check parsed rows.

    Args:
        values: Rows as `parse_exactly` returns them.
        rules: One per field, in the order of a row.

    Returns:
        The values of the rows in which nothing was refused, in the order of `rules`; and
        every problem, by row, then field. Behind `MOST_PROBLEMS` no further row is looked at.
    """
    judges = [(rule.field.name, rule.judge) for rule in rules]
    suggestions = NameSuggestions(name for name, _ in judges)
    good: list[tuple[Any, ...]] = []
    problems: list[FieldProblem] = []
    for number, row in enumerate(values):
        if not isinstance(row, JsonObject):
            expected = "object with one value per field"
            problems.append(FieldProblem(number, None, printable_json(row), expected))
            continue
        cells = dict(row)
        checked = tuple(judge(cells[name]) if name in cells else _MISSING for name, judge in judges)
        if len(cells) == len(row) == len(checked) and RefusedValue not in map(type, checked):
            good.append(checked)
        else:
            found = _row_problems(number, row, checked, rules, suggestions)
            problems.extend(islice(found, MOST_PROBLEMS))
        if len(problems) >= MOST_PROBLEMS:
            break
    return good, problems


_MISSING = RefusedValue("a value")


def _row_problems(
    number: int,
    row: JsonObject,
    checked: tuple[Any, ...],
    rules: tuple[FieldRule, ...],
    suggestions: NameSuggestions,
) -> Iterator[FieldProblem]:
    cells = dict(row)
    if len(cells) != len(row):
        for name, times in Counter(key for key, _ in row).items():
            if times > 1:
                expected = f"one value; the field occurs {times} times"
                yield FieldProblem(
                    number, printable_text(name), printable_json(cells[name]), expected
                )
    for rule, value in zip(rules, checked, strict=True):
        name = rule.field.name
        if value is _MISSING:
            yield FieldProblem(number, name, None, f"{rule.expected}; the field is missing")
        elif isinstance(value, RefusedValue):
            yield FieldProblem(number, name, printable_json(cells[name]), value.expected)
    known = {rule.field.name for rule in rules}
    for name, value in cells.items():
        if name not in known:
            expected = f"no such field{suggestions.hint(name)}"
            yield FieldProblem(number, printable_text(name), printable_json(value), expected)


class NameSuggestions:
    """Finds the name that somebody may have meant; remembers what it found."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._found: dict[str, str] = {}
        self._left = _MOST_COMPARISONS

    def hint(self, name: str) -> str:
        """Return `; did you mean 'NAME'?`, or nothing."""
        if name not in self._found:
            names = self._names
            if len(names) > self._left:  # among many, only names that begin alike
                names = [known for known in names if known[:2] == name[:2]]
            if len(name) > _LONGEST_NAME or not 0 < len(names) <= self._left:
                return ""
            self._left -= len(names)
            near = difflib.get_close_matches(name, names, n=1)
            self._found[name] = f"; did you mean {near[0]!r}?" if near else ""
        return self._found[name]


def printable_json(value: Any) -> Any:
    """Make a parsed JSON value fit to be repeated in an answer."""
    if isinstance(value, JsonObject):
        return f"object with {len(value)} fields"
    if isinstance(value, list):
        return f"array of {len(value)}"
    return printable_value(value)


def count_quotes(body: bytes) -> int:
    """Count the quotation marks in well-formed JSON that begin or end a string."""
    unescaped = body.replace(b"\\\\", b"") if b"\\\\" in body else body
    return body.count(b'"') - unescaped.count(b'\\"')


def without_strings(body: bytes) -> bytes:
    """Return well-formed JSON without its strings: all brackets, colons and commas that count."""
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(unescaped.split(b'"')[::2])


def count_values(body: bytes) -> int:
    """Count the values in JSON: at least as many as there are; commas in strings count too."""
    return 1 + sum(map(body.count, (b",", b"[", b"{")))
