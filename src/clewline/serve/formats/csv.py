"""
The body format `csv`: comma-separated values with a header line, typed by the signature.

Python's `csv` cuts the cells; numbers are read here, because an integer must stay exact and
each refused cell must be named. An empty cell is null if its field is nullable, and an empty
string in a text field that is not. A tensor is the JSON of its arrays.

Source: RFC 4180.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec

from clewline.errors import BodyTooLarge, MalformedInput
from clewline.serve.formats.body_format import RequestRows, too_many_rows
from clewline.serve.formats.columns import (
    FormatDetails,
    first_repeated,
    read_details,
    require_few_columns,
    rows_from_columns,
    take_entities,
)
from clewline.signature.check import Checker
from clewline.signature.field_rules import EXACT, FieldRule, UnrepresentableNumber, printable_text
from clewline.signature.json_rows import MOST_VALUES, parse_exactly

LONGEST_CELL = 16 << 20
"""Characters of one cell: as many as a body may have bytes."""
LONGEST_NUMBER = 310
"""Digits; an integer with more is beyond every float64."""

_HEADER = "Send a header line with the names of the fields, then one line per row."
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$")
_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)
_WHOLE_WITH_ZEROS = re.compile(r"([+-]?[0-9]+)\.0*", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"nan|[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}

csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))


class CsvFormat:
    """Reads text/csv."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of a body."""
        details = read_details(detail)
        names, lines = _lines(body, details, max_rows)
        columns = zip(*lines, strict=True) if lines else [()] * len(names)
        cells: dict[str, Sequence[Any]] = dict(zip(names, columns, strict=True))
        entities = take_entities(cells, details.entities, checker)
        for rule in checker.rules:
            if (column := cells.get(rule.field.name)) is not None:
                cells[rule.field.name] = _typed_cells(rule, column)
        return rows_from_columns(cells, len(lines), checker, max_rows, entities)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Return each row as a JSON object of strings; an empty cell is null."""
        names, lines = _lines(body, read_details(detail), len(body))
        return [
            msgspec.json.encode({n: cell or None for n, cell in zip(names, line, strict=True)})
            for line in lines
        ]


FORMAT = CsvFormat()


def _lines(body: bytes, details: FormatDetails, max_rows: int) -> tuple[list[str], list[list[str]]]:
    """
    Cut a body into its header and its lines, each as long as the header.

    Raises:
        MalformedInput: It is no CSV of this kind; says where.
        TooManyRows: There are more than `max_rows` lines.
        BodyTooLarge: There are more than `MOST_VALUES` cells and lines.
    """
    charset = details.charset
    try:
        text = (body.removeprefix(codecs.BOM_UTF8) if charset == "utf-8" else body).decode(charset)
    except UnicodeDecodeError as error:
        raise MalformedInput(
            f"The body is not {charset}: {error.reason} at byte {error.start}.",
            "Name the charset in the content type: text/csv; charset=iso-8859-1.",
        ) from error
    if len(text) > MOST_VALUES and sum(map(text.count, ",\r\n")) > MOST_VALUES:
        raise BodyTooLarge(
            f"The body has more than {MOST_VALUES} commas and line breaks.",
            "Send fewer rows at once.",
        )
    reader = csv.reader((line[0] for line in _LINE.finditer(text)), strict=True)
    try:
        names = next(reader, [])
        if not names:
            raise MalformedInput("The body is empty.", _HEADER)
        require_few_columns(len(names))
        if (twice := first_repeated(names)) is not None:
            raise MalformedInput(f"Two columns are named {printable_text(twice)!r}.", _HEADER)
        lines = list(islice((line for line in reader if line), max_rows + 1))
    except csv.Error as error:
        raise MalformedInput(
            f"The body is not CSV: {error}, at line {reader.line_num}.",
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


def _typed_cells(rule: FieldRule, cells: Sequence[str]) -> Sequence[Any]:
    """Return cells as values of the kind of a field; a cell that is none stays a string."""
    kind = rule.field.kind
    if kind in ("category", "text"):
        has_null = rule.field.nullable and "" in cells
        return [cell or None for cell in cells] if has_null else cells
    if kind in ("number", "integer"):
        return _quick_numbers(cells) or [_number(cell) if cell else None for cell in cells]
    if kind == "boolean":
        return [_BOOLEANS.get(cell.lower(), cell) if cell else None for cell in cells]
    if kind == "tensor":
        return [_array(cell) if cell else None for cell in cells]
    return [cell or None for cell in cells]


def _quick_numbers(cells: Sequence[str]) -> list[Any] | None:
    """Return short and small numbers; None if any cell is something else."""
    letters = set("".join(cells))
    if not letters <= set("0123456789+-.eE") or any(len(cell) >= 18 for cell in cells):
        return None
    number: Any = int if letters <= set("0123456789-") else float
    try:
        values = [number(cell) if cell else None for cell in cells]
    except ValueError:
        return None
    present = [value for value in values if value is not None]
    is_small = not present or (max(present) < EXACT and min(present) > -EXACT)
    return values if is_small else None


def _number(cell: str) -> Any:
    """Read a number exactly; return a string if it is none."""
    if len(cell) <= LONGEST_NUMBER and _WHOLE.fullmatch(cell):
        return int(cell)
    if not _DECIMAL.fullmatch(cell):
        return UnrepresentableNumber(cell) if _NOT_FINITE.fullmatch(cell) else cell
    value = float(cell)
    if value in (float("inf"), float("-inf")):
        return UnrepresentableNumber(cell)
    if abs(value) >= EXACT and (whole := _WHOLE_WITH_ZEROS.fullmatch(cell)):
        return int(whole[1])
    return value


def _array(cell: str) -> Any:
    try:
        return parse_exactly(cell.encode("utf-8", "surrogatepass"))
    except MalformedInput:
        return cell
