"""
The second pass over JSON: slow, exact, and it names every bad row and field.

It runs when the fast pass was not content, or could not be sure. It keeps
repeated keys and reads each number as it was written.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from clewline.errors import FieldProblem, MalformedInput
from clewline.signature.field_rules import (
    EXACT,
    FieldRule,
    Refusal,
    UnrepresentableNumber,
    printable_text,
    printable_value,
)

_WHOLE = re.compile(r"-?\d+\.0+")
_LONGEST = 310  # digits; an integer with more is beyond every float64
_LONGEST_NAME = 100  # characters; the nearest name is not looked for beyond
_MOST_NAMES = 200  # different names that a nearest one is looked for: each takes 0.1 ms


class JsonObject(tuple[tuple[str, Any], ...]):
    """A JSON object as it was written: (key, value) pairs, repeated keys and all."""

    __slots__ = ()


def parse_exactly(body: bytes | memoryview) -> Any:
    """
    Read JSON exactly.

    Returns:
        None, bool, int, float, str, list and `JsonObject`; a number that no
        float64 holds is `Unfit`.

    Raises:
        MalformedInput: The body is not JSON; says where.
    """
    text = _utf8(bytes(body))
    try:
        return json.loads(
            text,
            object_pairs_hook=JsonObject,
            parse_int=_whole,
            parse_float=_decimal,
            parse_constant=UnrepresentableNumber,
        )
    except json.JSONDecodeError as error:
        raise MalformedInput(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            "Send one JSON document in UTF-8.",
        ) from error
    except RecursionError as error:
        raise MalformedInput(
            "The body is nested too deeply to be read.", "A row is an object of plain values."
        ) from error


def check_rows(
    values: Sequence[Any], rules: tuple[FieldRule, ...]
) -> tuple[list[tuple[Any, ...]], list[FieldProblem]]:
    """
    Check parsed rows.

    Args:
        values: Rows as `parse_exactly` gives them.
        rules: One a field, in the order of a row.

    Returns:
        The rows' values in the order of `rules` (meaningful where nothing was
        refused), and every problem, by row, then field.
    """
    reader = _RowReader(rules)
    good: list[tuple[Any, ...]] = []
    problems: list[FieldProblem] = []
    for number, value in enumerate(values):
        refused = len(problems)
        row = reader.read(number, value, problems)
        if len(problems) == refused:
            good.append(row)
    return good, problems


class _RowReader:
    def __init__(self, rules: tuple[FieldRule, ...]) -> None:
        self.rules = {rule.field.name: rule for rule in rules}
        self.judges = [(name, rule.judge) for name, rule in self.rules.items()]
        self.nearest = NameSuggestions(self.rules)

    def read(self, number: int, row: Any, problems: list[FieldProblem]) -> tuple[Any, ...]:
        """The row's values in order; adds what is wrong with it to `problems`."""
        if not isinstance(row, JsonObject):
            expected = "object with one value a field"
            problems.append(FieldProblem(number, None, printable_json(row), expected))
            return ()
        cells = dict(row)
        values = tuple(
            judge(cells[name]) if name in cells else _MISSING for name, judge in self.judges
        )
        if len(cells) != len(row):
            problems.extend(_repeated(number, row))
        if len(cells) != len(values) or _has_refusal(values):
            problems.extend(self._refused(number, cells, values))
        return values

    def _refused(
        self, number: int, cells: dict[str, Any], values: tuple[Any, ...]
    ) -> Iterator[FieldProblem]:
        for (name, rule), value in zip(self.rules.items(), values, strict=True):
            if value is _MISSING:
                expected = f"{rule.expected}; the field is missing"
                yield FieldProblem(number, name, None, expected)
            elif isinstance(value, Refusal):
                yield FieldProblem(number, name, printable_json(cells[name]), value.expected)
        for name, value in cells.items():
            if name not in self.rules:
                expected = f"no such field{self.nearest.hint(name)}"
                yield FieldProblem(number, printable_text(name), printable_json(value), expected)


_MISSING = Refusal("a value")


def _has_refusal(values: tuple[Any, ...]) -> bool:
    return Refusal in map(type, values)


class NameSuggestions:
    """Finds the name that somebody may have meant; remembers what it found."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._found: dict[str, str] = {}

    def hint(self, name: str) -> str:
        """Say `; did you mean 'NAME'?`, or nothing."""
        if name not in self._found:
            if len(name) > _LONGEST_NAME or len(self._found) >= _MOST_NAMES:
                return ""
            near = difflib.get_close_matches(name, self._names, n=1)
            self._found[name] = f"; did you mean {near[0]!r}?" if near else ""
        return self._found[name]


def printable_json(value: Any) -> Any:
    """Make a parsed JSON value fit to be repeated in an answer."""
    if isinstance(value, JsonObject):
        return f"object with {len(value)} fields"
    if isinstance(value, list):
        return f"array of {len(value)}"
    return printable_value(value)


def count_keys(body: bytes) -> int:
    """Count the keys of all objects in JSON that is known to be well formed, repeated ones too."""
    total = 0

    def add(pairs: list[tuple[str, Any]]) -> None:
        nonlocal total
        total += len(pairs)

    json.loads(body, object_pairs_hook=add)
    return total


def _repeated(number: int, row: JsonObject) -> Iterator[FieldProblem]:
    cells = dict(row)
    for name, times in Counter(key for key, _ in row).items():
        if times > 1:
            expected = f"one value; the field stands here {times} times"
            yield FieldProblem(number, printable_text(name), printable_json(cells[name]), expected)


def _utf8(body: bytes) -> str:
    if not body.strip():
        raise MalformedInput("The body is empty.", 'Send {"rows": [{…}]} or one row object.')
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedInput(
            f"The body is not UTF-8: {error.reason} at byte {error.start}.",
            "Send one JSON document in UTF-8.",
        ) from error


def _whole(literal: str) -> int | UnrepresentableNumber:
    return UnrepresentableNumber(literal) if len(literal) > _LONGEST else int(literal)


def _decimal(literal: str) -> int | float | UnrepresentableNumber:
    value = float(literal)
    if abs(value) < EXACT:
        return value
    if value in (float("inf"), float("-inf")):
        return UnrepresentableNumber(literal)
    if _WHOLE.fullmatch(literal):
        return int(literal.split(".")[0])
    return value
