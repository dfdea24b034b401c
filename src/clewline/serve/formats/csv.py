"""
Comma-separated values with a header line, as RFC 4180 writes them, typed by the signature.

An empty cell is null where its field is nullable, and an empty text in a field
of texts that is not. A tensor is the JSON of its arrays.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from clewline.errors import MalformedInput
from clewline.serve.formats import RequestRows, too_many_rows
from clewline.serve.formats.columns import (
    Details,
    read_details,
    rows_of,
    take_entities,
    with_entities,
)
from clewline.signature import json_rows
from clewline.signature.check import Checker
from clewline.signature.field_rules import EXACT, FieldRule, UnrepresentableNumber, printable_text

LONGEST_CELL = 16 << 20
"""Characters of one cell: as many as a body may have bytes."""
MOST_COLUMNS = 16_384
LONGEST_NUMBER = 310
"""Digits; an integer with more is beyond every float64."""

_HEADER = "Send a header line with the names of the fields, then one line a row."
_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)
_WHOLE_WITH_ZEROS = re.compile(r"([+-]?[0-9]+)\.0*", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_NOT_FINITE = frozenset({"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
_DIGITS = frozenset("0123456789-")
_NUMERAL = frozenset("0123456789+-.eE")
_TRUTH = {"true": True, "false": False, "1": True, "0": False}

csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))


class Csv:
    """Reads text/csv."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of a body."""
        details = read_details(detail)
        names, lines = _lines(body, details, max_rows)
        cells: dict[str, Sequence[Any]] = dict(zip(names, zip(*lines, strict=True), strict=False))
        if not lines:
            cells = dict.fromkeys(names, ())
        entities = take_entities(cells, details.entities, checker)
        for rule in checker.rules:
            if (column := cells.get(rule.field.name)) is not None:
                cells[rule.field.name] = _typed(rule, column)
        return with_entities(rows_of(cells, len(lines), checker, max_rows), entities)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object of texts; an empty cell is null."""
        details = read_details(detail)
        names, lines = _lines(body, details, len(body))
        return [
            msgspec.json.encode({n: cell or None for n, cell in zip(names, line, strict=True)})
            for line in lines
        ]


FORMAT = Csv()


def _lines(body: bytes, details: Details, max_rows: int) -> tuple[list[str], list[list[str]]]:
    """
    Cut a body into its header and its lines, each as long as the header.

    Raises:
        MalformedInput: It is no CSV of this kind; says where.
        TooManyRows: There are more than `max_rows` lines.
    """
    reader = csv.reader(_text(body, details.charset), strict=True)
    try:
        names = next(reader, [])
        _check_names(names)
        lines = list(islice((line for line in reader if line), max_rows + 1))
    except csv.Error as error:
        raise MalformedInput(
            f"The body is no CSV: {error}, at line {reader.line_num}.",
            "Quote a cell with a comma, a quotation mark or a line break, and double the mark.",
        ) from error
    if len(lines) > max_rows:
        raise too_many_rows(max_rows)
    for row, line in enumerate(lines):
        if len(line) != len(names):
            raise MalformedInput(
                f"Row {row} has {len(line)} cells, and the header has {len(names)}.", _HEADER
            )
    return names, lines


def _text(body: bytes, charset: str) -> Iterator[str]:
    """Give the lines of a body, line breaks and all."""
    body = body.removeprefix(codecs.BOM_UTF8) if charset == "utf-8" else body
    try:
        text = body.decode(charset)
    except UnicodeDecodeError as error:
        raise MalformedInput(
            f"The body is not {charset}: {error.reason} at byte {error.start}.",
            "Name the charset in the content type: text/csv; charset=iso-8859-1.",
        ) from error
    return iter(re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text))


def _check_names(names: list[str]) -> None:
    if not names:
        raise MalformedInput("The body is empty.", _HEADER)
    if len(names) > MOST_COLUMNS:
        raise MalformedInput(f"There are more than {MOST_COLUMNS} columns.", _HEADER)
    seen = set()
    for name in names:
        if name in seen:
            raise MalformedInput(f"Two columns are named {printable_text(name)!r}.", _HEADER)
        seen.add(name)


def _typed(rule: FieldRule, cells: Sequence[str]) -> Sequence[Any]:
    """Give cells as values of the kind that a field has; what is none stays a text."""
    kind = rule.field.kind
    if kind in ("category", "text"):
        if rule.field.nullable and "" in cells:
            return [cell or None for cell in cells]
        return cells
    if kind in ("number", "integer"):
        return _numbers(cells)
    if kind == "boolean":
        return [_truth(cell) if cell else None for cell in cells]
    if kind == "tensor":
        return [_array(cell) if cell else None for cell in cells]
    return [cell or None for cell in cells]


def _numbers(cells: Sequence[str]) -> list[Any]:
    letters = set("".join(cells))
    to: Any = int if letters <= _DIGITS else float
    if letters <= _NUMERAL:
        try:
            values = [to(cell) if cell and len(cell) < 18 else None for cell in cells]
        except ValueError:
            values = []
        # What is long or large is read exactly below.
        if values and all((v is None) == (not c) for v, c in zip(values, cells, strict=True)):
            present = [value for value in values if value is not None]
            if not present or (max(present) < EXACT and min(present) > -EXACT):
                return values
    return [_number(cell) if cell else None for cell in cells]


def _number(cell: str) -> Any:
    """Read a number exactly; a text where it is none."""
    if len(cell) <= LONGEST_NUMBER and _WHOLE.fullmatch(cell):
        return int(cell)
    if not _DECIMAL.fullmatch(cell):
        return UnrepresentableNumber(cell) if cell.lower() in _NOT_FINITE else cell
    value = float(cell)
    if value in (float("inf"), float("-inf")):
        return UnrepresentableNumber(cell)
    if abs(value) >= EXACT and (whole := _WHOLE_WITH_ZEROS.fullmatch(cell)):
        return int(whole[1])
    return value


def _truth(cell: str) -> Any:
    return _TRUTH.get(cell.lower(), cell)


def _array(cell: str) -> Any:
    try:
        return json_rows.parse_exactly(cell.encode("utf-8", "surrogatepass"))
    except MalformedInput:
        return cell
