"""
The one validator: the same rules for a JSON row and for a table.

`Checker.decode` is one fast msgspec pass with the rules compiled into the row's
type. When that pass refuses, or cannot be sure (repeated keys, integers that a
float64 may have rounded), a second, exact pass decides and names every bad row
and field. `Checker.columns` turns rows into the arrays that a model takes and
flags what the training data had not shown.

No envelope is known here: an object is always one row, so a field may bear any
name, `rows` too. Telling `{"rows": […]}` from such a row is up to whoever reads
requests (`clewline.serve.json_reader`): an object with all fields of the signature is
a row.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import FieldProblem, InvalidInput, MalformedInput
from clewline.signature import json_rows, timestamps
from clewline.signature.accepted_limits import AcceptedLimits, field_rules
from clewline.signature.columns import Columns
from clewline.signature.field import Field, Signature
from clewline.signature.field_rules import EXACT, FieldRule, bounds_in_kind, value_in_kind
from clewline.signature.flag import Flag
from clewline.signature.row_type import plain_row_type, row_order, row_type
from clewline.signature.table_reader import read_table

Row = msgspec.Struct
_astuple = msgspec.structs.astuple
_HAS_NONE = operator.methodcaller("count", None)


@dataclass(frozen=True, slots=True)
class CheckedRows:
    """Rows as arrays, the flags on them, and what an accepted bound refuses."""

    columns: Columns
    flags: list[tuple[int, Flag]]  # (row, flag), by field, then row
    refused: list[FieldProblem]


class Checker:
    """
    Checks rows and tables against a signature.

    Immutable; may be used from any thread.

    Args:
        signature: The fields.
        accepted: Bounds and levels that a person has accepted: outside them a
            value is refused, where outside a proposal it is only flagged.

    Raises:
        InvalidConfig: `accepted` does not fit the signature.
    """

    def __init__(self, signature: Signature, accepted: AcceptedLimits | None = None) -> None:
        self.signature = signature
        rules = field_rules(signature, accepted or AcceptedLimits())
        self.rules: tuple[FieldRule, ...] = tuple(rules[place] for place in row_order(signature))
        fields = [rule.field for rule in self.rules]
        decodable = row_type(self.rules)
        self.row_type: type[Row] = decodable or plain_row_type(self.rules)
        self._many, self._one = _decoders(decodable)
        self._limits = _Limits(self.rules)
        self._instants = [i for i, field in enumerate(fields) if field.kind == "datetime"]
        quoted = [(f"f{i}", field) for i, field in enumerate(fields) if _is_quoted(field)]
        self._quotes = 2 * (len(fields) + len(quoted))
        self._nullable = [name for name, field in quoted if field.nullable]

    def decode(self, body: bytes) -> list[Row]:
        """
        Read rows from JSON.

        Args:
            body: An array of row objects, or one bare row object.

        Returns:
            Instances of `row_type`, at least one; nothing in them is refused
            by the signature or by an accepted bound.

        Raises:
            MalformedInput: The body is not JSON, or holds no rows.
            InvalidInput: Rows that are refused; names every bad row and field.
        """
        rows = self._fast(body)
        if not rows or self.suspicious(body, rows):
            return self.settle(json_rows.parse_exactly(body))
        return rows

    def settle(self, document: Any) -> list[Row]:
        """Check what `reading.parse` read, exactly; otherwise as `decode`."""
        values = document if isinstance(document, list) else [document]
        good, problems = json_rows.check_rows(values, self.rules)
        if problems:
            raise refused_rows(problems, len(values))
        if not good:
            raise MalformedInput("There are no rows.", "Send at least one.")
        return [self.row_type(*row) for row in good]

    def problems(self, body: bytes | Sequence[msgspec.Raw]) -> list[FieldProblem]:
        """
        Name every bad row and field: the second pass alone.

        Args:
            body: As for `decode`, or rows one by one.

        Raises:
            MalformedInput: It is not JSON at all.
        """
        if isinstance(body, bytes):
            document = json_rows.parse_exactly(body)
        else:
            document = [json_rows.parse_exactly(memoryview(row)) for row in body]
        values = document if isinstance(document, list) else [document]
        return json_rows.check_rows(values, self.rules)[1]

    def suspicious(
        self, body: bytes, rows: Sequence[Row], *, quotes: int = 0, keys: int = 0
    ) -> bool:
        """
        Tell whether decoded rows still need the second pass.

        msgspec keeps the last of repeated keys without a word. Every key and
        every text has two quotation marks, so their number shows a repetition;
        when it differs (a text may hold escaped ones) the keys are counted.

        Args:
            body: The JSON that `rows` were decoded from.
            rows: All rows in it.
            quotes: Quotation marks in the body outside of the rows.
            keys: Keys in the body outside of the rows.
        """
        if self._instants and any(map(self._far, rows)):
            return True
        nulls = self._nulls(rows) if self._nullable and b"null" in body else 0
        if body.count(b'"') == quotes + len(rows) * self._quotes - 2 * nulls:
            return False
        return json_rows.count_keys(body) - keys != len(rows) * len(self.rules)

    def columns(self, rows: Sequence[Row]) -> CheckedRows:
        """
        Turn decoded rows into arrays and mark what lies outside bounds and levels.

        Args:
            rows: Instances of `row_type`, any number, of any callers.
        """
        tuples: list[Sequence[Any]] = list(map(_astuple, rows))
        if self._instants:
            tuples = [self._with_micros(row) for row in tuples]
        limits = self._limits
        split, end = limits.numbers, limits.numbers + limits.texts
        if len(tuples) == 1 and end == len(self.rules):
            return limits.one(tuples[0])
        cells = np.empty((len(tuples), end), dtype=object)
        if tuples:
            cells[:] = tuples if end == len(self.rules) else [row[:end] for row in tuples]
        arrays = Columns(
            cells[:, :split].astype(np.float64), cells[:, split:].copy(), self._tensors(tuples, end)
        )
        return limits.mark(arrays)

    def table(self, frame: Any) -> CheckedRows:
        """
        Check a table by the same rules: a row gets the verdict that it gets as JSON.

        Args:
            frame: A Polars, pandas or Arrow table with one column a field, in
                any order, and no other (drop the target: `frames.without`).

        Raises:
            InvalidInput: It is not that; names bad cells, up to 10,000 a column.
        """
        columns, problems = read_table(frame, self.rules)
        if problems:
            raise refused_rows(problems, len(columns))
        return self._limits.mark(columns)

    def _fast(self, body: bytes) -> list[Row] | None:
        if self._many is None or self._one is None:
            return None
        try:
            if body.lstrip()[:1] == b"{":
                return [self._one.decode(body)]
            return self._many.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _nulls(self, rows: Sequence[Row]) -> int:
        """Count the texts and date-times that are null."""
        if not any(map(_HAS_NONE, map(_astuple, rows))):
            return 0
        return sum(getattr(row, name) is None for row in rows for name in self._nullable)

    def _far(self, row: Row) -> bool:
        """Tell of an instant that float64 may round or that an accepted bound refuses."""
        values = _astuple(row)
        for i in self._instants:
            if (moment := values[i]) is not None:
                low, high = self.rules[i].bounds or (-EXACT, EXACT)
                count = timestamps.to_microseconds(moment)
                if abs(count) >= EXACT or not low <= count <= high:
                    return True
        return False

    def _with_micros(self, row: Sequence[Any]) -> list[Any]:
        values = list(row)
        for i in self._instants:
            if values[i] is not None:
                values[i] = timestamps.to_microseconds(values[i])
        return values

    def _tensors(
        self, tuples: Sequence[Sequence[Any]], first: int
    ) -> dict[str, NDArray[np.generic]]:
        arrays: dict[str, NDArray[np.generic]] = {}
        for place, rule in enumerate(self.rules[first:], first):
            shape = (len(tuples), *(rule.field.shape or ()))
            values = np.array([row[place] for row in tuples], dtype=rule.field.dtype)
            arrays[rule.field.name] = values.reshape(shape)
        return arrays


class _Limits:
    """Bounds and levels as arrays and sets, to mark many rows at once."""

    def __init__(self, rules: tuple[FieldRule, ...]) -> None:
        self._rules = rules
        kinds = [rule.field.kind for rule in rules]
        self.texts = sum(kind in ("category", "text") for kind in kinds)
        self.numbers = len(kinds) - self.texts - kinds.count("tensor")
        bounds = [_bounds(rule) or (-np.inf, np.inf) for rule in rules[: self.numbers]]
        self._low = np.array([low for low, _ in bounds])
        self._high = np.array([high for _, high in bounds])
        self._bounds = bounds
        texts = rules[self.numbers : self.numbers + self.texts]
        self._levels = [
            (place, frozenset((*levels, None)))
            for place, rule in enumerate(texts)
            if (levels := rule.levels or rule.field.levels) is not None
        ]

    def one(self, row: Sequence[Any]) -> CheckedRows:
        """Do for one row what else many arrays would be made for: a third of the time."""
        split = self.numbers
        numbers = np.array([row[:split]], dtype=np.float64)  # of None too: NaN
        texts = np.empty((1, self.texts), dtype=object)
        texts[0] = row[split:]
        columns = Columns(numbers, texts)
        for value, (low, high) in zip(numbers.tolist()[0], self._bounds, strict=True):
            if value < low or value > high:
                return self.mark(columns)
        for place, levels in self._levels:
            if row[split + place] not in levels:
                return self.mark(columns)
        return CheckedRows(columns, [], [])

    def mark(self, columns: Columns) -> CheckedRows:
        flags: list[tuple[int, Flag]] = []
        refused: list[FieldProblem] = []
        numbers = columns.numbers
        outside = (numbers < self._low) | (numbers > self._high)
        if 1 in outside.tobytes():  # a quarter of the time of `any` on one row
            self._outside(numbers, outside, flags, refused)
        texts = columns.texts.T.tolist()
        for place, levels in self._levels:
            if not levels.issuperset(texts[place]):
                self._unseen(place, texts[place], levels, flags, refused)
        return CheckedRows(columns, flags, refused)

    def _outside(
        self,
        numbers: NDArray[np.float64],
        outside: NDArray[np.bool_],
        flags: list[tuple[int, Flag]],
        refused: list[FieldProblem],
    ) -> None:
        for place, row in np.argwhere(outside.T).tolist():
            rule = self._rules[place]
            value = value_in_kind(rule.field, float(numbers[row, place]))
            if rule.bounds is not None:
                refused.append(FieldProblem(row, rule.field.name, value, rule.expected))
            elif rule.field.bounds is not None:
                bounds = bounds_in_kind(rule.field, rule.field.bounds)
                mark = Flag(
                    field=rule.field.name, value=value, flag="outside bounds", bounds=bounds
                )
                flags.append((row, mark))

    def _unseen(
        self,
        place: int,
        column: list[str | None],
        levels: frozenset[str | None],
        flags: list[tuple[int, Flag]],
        refused: list[FieldProblem],
    ) -> None:
        rule = self._rules[self.numbers + place]
        for row, value in enumerate(column):
            if value in levels:
                continue
            if rule.levels is not None:
                refused.append(FieldProblem(row, rule.field.name, value, rule.expected))
            else:
                mark = Flag(
                    field=rule.field.name,
                    value=value,
                    flag="unseen level",
                    levels=rule.field.levels,
                )
                flags.append((row, mark))


def refused_rows(problems: Sequence[FieldProblem], rows: int) -> InvalidInput:
    """Make the error that names every problem in its fields and the first in words."""
    first, bad = problems[0], len({problem.row for problem in problems})
    named = "" if first.field is None else f", field {first.field!r}"
    values = "one value" if len(problems) == 1 else f"{len(problems)} values"
    return InvalidInput(
        f"{bad} of {rows} rows refused, for {values}; first row {first.row}{named}: "
        f"{_said(first.value)} where this was expected: {first.expected}.",
        None,
        tuple(problems),
    )


def _said(value: Any) -> str:
    """A value as its sender knows it: null and true, not None and True."""
    if value is None or isinstance(value, bool):
        return msgspec.json.encode(value).decode()
    return repr(value)


def _decoders(
    row: type[Row] | None,
) -> tuple[msgspec.json.Decoder[list[Row]] | None, msgspec.json.Decoder[Row] | None]:
    if row is None:
        return None, None
    return msgspec.json.Decoder(list[row]), msgspec.json.Decoder(row)  # type: ignore[valid-type]


def _bounds(rule: FieldRule) -> tuple[float, float] | None:
    return rule.bounds or rule.field.bounds


def _is_quoted(field: Field) -> bool:
    return field.kind in ("category", "text", "datetime")
