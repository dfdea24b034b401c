"""
Requests of MLflow's scoring protocol as rows.

Exactly one key says how the rows stand:

    dataframe_split      {"columns": […], "data": [[…], …]}, as pandas writes it; no index is read
    dataframe_records    [{column: value, …}, …]
    instances, inputs    rows, as objects or lists; or columns, as an object of lists

A row without names, a list, has its values in the order of the signature. As in
MLflow, columns that no field has are left out, and so are `params` and other
keys; `entities`, ours, says whom each row is about. NaN is null, and so is NaT
where a date-time is wanted; a date-time without offset is one of UTC.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from clewline.errors import InvalidInput, MalformedInput
from clewline.serve.formats.body_format import RequestRows, too_many_rows
from clewline.signature import json_rows
from clewline.signature.check import Checker
from clewline.signature.field import Field
from clewline.signature.field_rules import UnrepresentableNumber, is_encodable, printable_text
from clewline.signature.json_rows import JsonObject

WAYS = ("dataframe_split", "dataframe_records", "instances", "inputs")
"""The keys of which a request has exactly one."""
ENTITIES = "entities"
SHAPE = f"Send a JSON object with exactly one of {', '.join(WAYS)}."
DEEPEST = 64
"""Lists in lists that are written out for `why`; no tensor has as many axes."""
_SPLIT = frozenset({"columns", "data", "index"})
_LOCAL = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?", re.ASCII)


class MlflowRequests:
    """Reads a request in JSON."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of a request."""
        reader = _readers.get(checker)
        if reader is None:
            reader = _readers[checker] = Reader(checker)
        return reader.quick(body, max_rows) or reader.exact(body, max_rows)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object; values without names go by their place."""
        rows, _ = sent(body)
        return [_written(row) for row in rows]


FORMAT = MlflowRequests()
MLFLOW = "mlflow"


class Split(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A table as its columns' names and its rows' values."""

    data: list[list[Any]]
    columns: list[str]
    index: msgspec.Raw = msgspec.Raw()


class Usual(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """What MLflow's own client sends for a table."""

    dataframe_split: Split


class Records(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Rows as objects."""

    dataframe_records: msgspec.Raw


_ESCAPED = re.compile(rb"\\u00[2-7]")
"""A letter that no program escapes; one who writes it may hide a key that stands twice."""
_decode_usual = msgspec.json.Decoder(Usual).decode
_decode_records = msgspec.json.Decoder(Records).decode


class Reader:
    """Reads the requests to endpoints of one signature."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        fields = checker.signature.fields
        self._fields = {field.name: field for field in fields}
        self._names = tuple(self._fields)
        self._scalars = frozenset(field.name for field in fields if field.kind != "tensor")
        # A text may be a date-time without its offset; only the exact way mends that.
        self._is_plain = all(field.kind != "datetime" for field in fields)

    def quick(self, body: bytes, max_rows: int) -> RequestRows | None:
        """Read a table as callers mostly send it, where everything is plainly right; else None."""
        if body.startswith(b'{"dataframe_records"'):
            return self._quick_records(body, max_rows)
        if body.startswith(b'{"dataframe_split"') and self._is_plain:
            return self._quick_split(body, max_rows)
        return None

    def _quick_records(self, body: bytes, max_rows: int) -> RequestRows | None:
        if body.count(b'"dataframe_records"') > 1:
            return None
        try:
            records = bytes(_decode_records(body).dataframe_records)
            if b"\\" in body[: len(body) - len(records)]:
                return None  # a key that is written with escapes may be the same one again
            rows = self._checker.decode(records) if records.startswith(b"[") else []
        except (msgspec.DecodeError, UnicodeError, RecursionError, InvalidInput):
            return None  # a column too many, or a time without offset: the exact way decides
        return RequestRows(rows) if 0 < len(rows) <= max_rows else None

    def _quick_split(self, body: bytes, max_rows: int) -> RequestRows | None:
        try:
            table = _decode_usual(body).dataframe_split
            places = self._places(table.columns)
            if places is None or not 0 < len(table.data) <= max_rows or _repeats(body):
                return None
            width, row_type = len(table.columns), self._checker.row_type
            rows = []
            for values in table.data:
                if len(values) != width:
                    return None
                row = {name: values[place] for name, place in places}
                rows.append(msgspec.convert(row, row_type))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        return RequestRows(rows)

    def exact(self, body: bytes, max_rows: int) -> RequestRows:
        """Read any request, and say what is wrong with it if anything is."""
        rows, entities = sent(body, self._scalars)
        if not rows:
            raise MalformedInput("There are no rows.", "Send at least one.")
        if len(rows) > max_rows:
            raise too_many_rows(max_rows)
        checked = self._checker.settle([self._named(row) for row in rows])
        return RequestRows(checked, _entities(entities, len(checked)))

    def _places(self, columns: list[str]) -> list[tuple[str, int]] | None:
        """Find each field among the columns; None unless each is there once."""
        if len(set(columns)) != len(columns) or not self._fields.keys() <= set(columns):
            return None
        return [(name, columns.index(name)) for name in self._names]

    def _named(self, row: Any) -> Any:
        """Give a row the names of the signature, and its values as the signature reads them."""
        if not isinstance(row, JsonObject):
            row = self._by_place(row)
        if not isinstance(row, JsonObject):
            return row
        # A name that is not known is shown where it may be a field that is missing.
        complete = self._fields.keys() <= {name for name, _ in row}
        fields = self._fields
        return JsonObject(
            (name, value if (field := fields.get(name)) is None else _meant(field, value))
            for name, value in row
            if not complete or name in fields
        )

    def _by_place(self, row: Any) -> Any:
        names = self._names
        if len(names) == 1 and not (names[0] in self._scalars and isinstance(row, list)):
            return JsonObject([(names[0], row)])
        if isinstance(row, list) and len(row) == len(names):
            return JsonObject(zip(names, row, strict=True))
        return row


_readers: WeakKeyDictionary[Checker, Reader] = WeakKeyDictionary()


def sent(body: bytes, scalars: frozenset[str] = frozenset()) -> tuple[list[Any], Any]:
    """
    Take a request apart.

    Args:
        body: JSON.
        scalars: Columns whose values may stand in lists of one, as an array of shape (n, 1) does.

    Returns:
        The rows: `Pairs` where they have names, lists where they have none; and the entities.

    Raises:
        MalformedInput: It is no JSON, has not exactly one of the ways to send rows, or the way
            is not followed.
    """
    document = json_rows.parse_exactly(body)
    if not isinstance(document, JsonObject):
        raise MalformedInput("The body is no JSON object.", SHAPE)
    keys = [key for key, _ in document]
    ways = [key for key in keys if key in WAYS]
    if len(ways) != 1 or keys.count(ENTITIES) > 1:
        named = ", ".join(repr(printable_text(key)[:50]) for key in keys[:10]) or "none"
        raise MalformedInput(f"The keys of the body are: {named}.", SHAPE)
    parts = dict(document)
    rows = _READ[ways[0]](ways[0], parts[ways[0]], scalars)
    return rows, parts.get(ENTITIES)


def _split(way: str, table: Any, scalars: frozenset[str]) -> list[Any]:
    parts = dict(table) if isinstance(table, JsonObject) else {}
    if "data" not in parts or len(parts) != len(table) or not parts.keys() <= _SPLIT:
        raise MalformedInput(
            f"{way} is not a table.", 'Send {"columns": […], "data": [[…], …]}, each once.'
        )
    rows, columns = parts["data"], parts.get("columns")
    if not isinstance(rows, list):
        raise MalformedInput(f"The data of {way} is no list.", "Send a list of rows.")
    if columns is None or (isinstance(columns, list) and columns == list(range(len(columns)))):
        return rows
    if not isinstance(columns, list) or not all(map(_is_text, columns)):
        raise MalformedInput(
            f"The columns of {way} are not texts.", "Name each column, or leave columns out."
        )
    _check_once(columns)
    wrong = next((n for n, row in enumerate(rows) if not _is_wide(row, len(columns))), None)
    if wrong is not None:
        raise MalformedInput(
            f"Row {wrong} of {way} has not one value a column.",
            f"Send a list of {len(columns)} values.",
        )
    return [JsonObject(zip(columns, row, strict=True)) for row in rows]


def _listed(way: str, rows: Any, scalars: frozenset[str]) -> list[Any]:
    if not isinstance(rows, list):
        raise MalformedInput(f"{way} is no list.", "Send a list of rows.")
    return rows


def _rows_or_columns(way: str, data: Any, scalars: frozenset[str]) -> list[Any]:
    if not isinstance(data, JsonObject):
        return _listed(way, data, scalars)
    names = [name for name, _ in data]
    _check_once(names)
    columns = [value for _, value in data]
    if not any(type(column) is list for column in columns):
        return [data] if data else []
    lengths = {name: len(value) if type(value) is list else 1 for name, value in data}
    if len(set(lengths.values())) != 1 or not all(type(column) is list for column in columns):
        shown = ", ".join(
            f"{printable_text(n)[:50]}: {size}" for n, size in list(lengths.items())[:10]
        )
        raise MalformedInput(
            f"The columns of {way} are not lists of one length ({shown}).",
            "Send one value a row in each.",
        )
    flat = [_alone(value) if name in scalars else value for name, value in data]
    return [JsonObject(zip(names, row, strict=True)) for row in zip(*flat, strict=True)]


_READ = {
    "dataframe_split": _split,
    "dataframe_records": _listed,
    "instances": _rows_or_columns,
    "inputs": _rows_or_columns,
}


def _alone(column: list[Any]) -> list[Any]:
    """Take each value out of its list, where every one stands in a list of one."""
    if all(type(value) is list and len(value) == 1 for value in column):
        return [value[0] for value in column]
    return column


def _meant(field: Field, value: Any) -> Any:
    """Read a value as pandas and MLflow's client write it: NaN, NaT, times without offset."""
    if field.kind == "tensor" or not isinstance(value, str):
        return value
    if isinstance(value, UnrepresentableNumber):
        return None if value == "NaN" else value
    if field.kind != "datetime":
        return value
    if value == "NaT":
        return None
    local = _LOCAL.fullmatch(value)
    if local is None:
        return value
    day, minutes, seconds = local.groups()
    return f"{day}T{minutes or '00:00'}{seconds or ':00'}Z"


def _entities(said: Any, rows: int) -> list[str] | None:
    if said is None:
        return None
    if not isinstance(said, list) or not all(map(_is_text, said)) or len(said) != rows:
        raise MalformedInput(
            f"entities is not a list of {rows} texts.", "Send one text a row, or leave it out."
        )
    return said


def _is_text(value: Any) -> bool:
    """Tell a text that can be logged from a number beyond float64 and from lone surrogates."""
    return (
        isinstance(value, str)
        and not isinstance(value, UnrepresentableNumber)
        and is_encodable(value)
    )


def _is_wide(row: Any, width: int) -> bool:
    return type(row) is list and len(row) == width


def _check_once(columns: Sequence[str]) -> None:
    if len(set(columns)) != len(columns):
        twice = next(name for name, times in Counter(columns).items() if times > 1)
        raise MalformedInput(
            f"The column {printable_text(twice)!r} is there more than once.", "Send each once."
        )


def _repeats(body: bytes) -> bool:
    """Tell that a key of the body may come twice; a text that reads like one counts too."""
    keys = (b'"dataframe_split"', b'"columns"', b'"data"')
    return any(body.count(key) > 1 for key in keys) or _ESCAPED.search(body) is not None


def _written(row: Any) -> bytes:
    if isinstance(row, JsonObject):
        named = _plain(row)
    else:
        values = row if isinstance(row, list) else [row]
        named = {str(place): _plain(value) for place, value in enumerate(values)}
    return json.dumps(named, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: Any, depth: int = 0) -> Any:
    """Make a value fit for JSON; a column that was left out may hold anything, however deep."""
    if isinstance(value, JsonObject | list) and depth > DEEPEST:
        return json_rows.printable_json(value)
    if isinstance(value, JsonObject):
        return {_plain(name): _plain(each, depth + 1) for name, each in value}
    if isinstance(value, list):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, UnrepresentableNumber):
        return None if value == "NaN" else str(value)
    return printable_text(value) if isinstance(value, str) and not is_encodable(value) else value
