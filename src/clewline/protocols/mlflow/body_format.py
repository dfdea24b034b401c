"""
The body format `mlflow`: requests of MLflow's scoring protocol as rows.

Exactly one key says how the rows are sent:

    dataframe_split      {"columns": […], "data": [[…], …]}, as pandas writes it; no index is read
    dataframe_records    [{column: value, …}, …]
    instances, inputs    rows, as objects or lists; or columns, as an object of lists

A row without names, a list, has its values in the order of the signature. As in MLflow, columns
that no field has are left out, and so are `params` and other keys; `entities`, our own key, names
the entity of each row. NaN is null, and so is NaT in a date-time field; a date-time without
offset is in UTC.

Source: MLflow 3.17, mlflow/pyfunc/scoring_server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from clewline.errors import InvalidInput, MalformedInput
from clewline.serve.formats.body_format import RequestRows, require_few_values
from clewline.serve.formats.columns import first_repeated, require_count, require_few_columns
from clewline.serve.formats.json_formats import is_text
from clewline.signature.check import Checker
from clewline.signature.field import Field
from clewline.signature.field_rules import UnrepresentableNumber, is_encodable, printable_text
from clewline.signature.json_rows import JsonObject, parse_exactly, printable_json

MLFLOW = "mlflow"
ENTITIES = "entities"
DEEPEST = 64
"""Lists in lists that are written out for `why`; no tensor has as many axes."""
_LOCAL = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?", re.ASCII)
_ESCAPED = re.compile(rb"\\u00[2-7]")
"""A letter that no program escapes; one who writes it may hide a key that stands twice."""


class MlflowFormat:
    """Reads a request in JSON."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of a request."""
        require_few_values(body)
        reader = _readers.get(checker)
        if reader is None:
            reader = _readers[checker] = MlflowReader(checker)
        return reader.read_quickly(body, max_rows) or reader.read_exactly(body, max_rows)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Return each row as a JSON object; values without names go by their place."""
        found = []
        for row in parse_request(body)[0]:
            if isinstance(row, JsonObject):
                named = _plain(row)
            else:
                values = row if isinstance(row, list) else [row]
                named = {str(place): _plain(value) for place, value in enumerate(values)}
            found.append(json.dumps(named, ensure_ascii=False, separators=(",", ":")).encode())
        return found


FORMAT = MlflowFormat()


class _SplitTable(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    data: list[list[Any]]
    columns: list[str]
    index: msgspec.Raw = msgspec.Raw()


class _SplitRequest(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    dataframe_split: _SplitTable


class _RecordsRequest(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    dataframe_records: msgspec.Raw


_decode_split = msgspec.json.Decoder(_SplitRequest).decode
_decode_records = msgspec.json.Decoder(_RecordsRequest).decode


class MlflowReader:
    """Reads the requests to endpoints of one signature."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        fields = checker.signature.fields
        self._fields = {field.name: field for field in fields}
        self._scalars = frozenset(field.name for field in fields if field.kind != "tensor")
        # A string may be a date-time without its offset; only the exact pass adds that.
        self._has_datetime = any(field.kind == "datetime" for field in fields)

    def read_quickly(self, body: bytes, max_rows: int) -> RequestRows | None:
        """Read a table as MLflow's clients send it if everything is plainly right, else None."""
        if body.startswith(b'{"dataframe_records"'):
            read: Callable[[bytes, int], list[Any] | None] = self._read_records
        elif body.startswith(b'{"dataframe_split"') and not self._has_datetime:
            read = self._read_split
        else:
            return None
        try:
            rows = read(body, max_rows)
        except (msgspec.DecodeError, UnicodeError, RecursionError, InvalidInput):
            return None  # a column too many, or a time without offset: the exact pass decides
        return RequestRows(rows) if rows and len(rows) <= max_rows else None

    def _read_records(self, body: bytes, max_rows: int) -> list[Any] | None:
        if body.count(b'"dataframe_records"') > 1:
            return None
        records = bytes(_decode_records(body).dataframe_records)
        # A key that is written with escapes may be the same one again.
        if b"\\" in body[: len(body) - len(records)] or not records.startswith(b"["):
            return None
        return self._checker.decode(records)

    def _read_split(self, body: bytes, max_rows: int) -> list[Any] | None:
        table = _decode_split(body).dataframe_split
        names, width = set(table.columns), len(table.columns)
        # A string that reads like a key counts as one.
        keys = (b'"dataframe_split"', b'"columns"', b'"data"')
        is_repeated = any(body.count(key) > 1 for key in keys) or _ESCAPED.search(body) is not None
        if len(names) != width or not self._fields.keys() <= names or is_repeated:
            return None
        if len(table.data) > max_rows:
            return None
        places = [(name, table.columns.index(name)) for name in self._fields]
        row_type, rows = self._checker.row_type, []
        for values in table.data:
            if len(values) != width:
                return None
            rows.append(msgspec.convert({name: values[place] for name, place in places}, row_type))
        return rows

    def read_exactly(self, body: bytes, max_rows: int) -> RequestRows:
        """Read any request, and say what is wrong with it if anything is."""
        rows, entities = parse_request(body, self._scalars)
        require_count(len(rows), max_rows)
        checked = self._checker.settle([self._named(row) for row in rows])
        if entities is not None and (
            not isinstance(entities, list)
            or not all(map(is_text, entities))
            or len(entities) != len(checked)
        ):
            raise MalformedInput(
                f"entities is not a list of {len(checked)} strings.",
                "Send one string per row, or leave it out.",
            )
        return RequestRows(checked, entities)

    def _named(self, row: Any) -> Any:
        """Give a row the names of the signature, and its values as the signature reads them."""
        fields, names = self._fields, tuple(self._fields)
        if not isinstance(row, JsonObject):
            if len(names) == 1 and not (names[0] in self._scalars and isinstance(row, list)):
                row = JsonObject([(names[0], row)])
            elif isinstance(row, list) and len(row) == len(names):
                row = JsonObject(zip(names, row, strict=True))
            else:
                return row
        # An unknown name is shown if it may be a field that is missing.
        is_complete = fields.keys() <= {name for name, _ in row}
        return JsonObject(
            (name, value if (field := fields.get(name)) is None else _field_value(field, value))
            for name, value in row
            if not is_complete or name in fields
        )


_readers: WeakKeyDictionary[Checker, MlflowReader] = WeakKeyDictionary()


def parse_request(body: bytes, scalars: frozenset[str] = frozenset()) -> tuple[list[Any], Any]:
    """
    Take a request apart.

    Args:
        body: JSON.
        scalars: Columns whose values may stand in lists of one, as an array of shape (n, 1) does.

    Returns:
        The rows, each a `JsonObject` if it has names, else a list; and the entities.

    Raises:
        MalformedInput: It is no JSON, has not exactly one of the keys for rows, or what stands
            there is something else.
    """
    document = parse_exactly(body)
    shape = f"Send a JSON object with exactly one of {', '.join(_READERS)}."
    if not isinstance(document, JsonObject):
        raise MalformedInput("The body is not a JSON object.", shape)
    keys = [key for key, _ in document]
    sent = [key for key in keys if key in _READERS]
    if len(sent) != 1 or keys.count(ENTITIES) > 1:
        named = ", ".join(repr(printable_text(key)[:50]) for key in keys[:10]) or "none"
        raise MalformedInput(f"The keys of the body are: {named}.", shape)
    parts = dict(document)
    rows = _READERS[sent[0]](sent[0], parts[sent[0]], scalars)
    return rows, parts.get(ENTITIES)


def _read_table(key: str, table: Any, scalars: frozenset[str]) -> list[Any]:
    parts = dict(table) if isinstance(table, JsonObject) else {}
    if (
        "data" not in parts
        or len(parts) != len(table)
        or not parts.keys() <= {"columns", "data", "index"}
    ):
        raise MalformedInput(
            f"{key} is not a table.", 'Send {"columns": […], "data": [[…], …]}, each once.'
        )
    rows, columns = parts["data"], parts.get("columns")
    if not isinstance(rows, list):
        raise MalformedInput(f"The data of {key} is not a list.", "Send a list of rows.")
    if columns is None or (isinstance(columns, list) and columns == list(range(len(columns)))):
        return rows
    if not isinstance(columns, list) or not all(map(is_text, columns)):
        raise MalformedInput(
            f"The columns of {key} are not strings.", "Name each column, or leave columns out."
        )
    _check_names(columns)
    for number, row in enumerate(rows):
        if type(row) is not list or len(row) != len(columns):
            raise MalformedInput(
                f"Row {number} of {key} does not have one value per column.",
                f"Send a list of {len(columns)} values.",
            )
    return [JsonObject(zip(columns, row, strict=True)) for row in rows]


def _read_list(key: str, rows: Any, scalars: frozenset[str]) -> list[Any]:
    if not isinstance(rows, list):
        raise MalformedInput(f"{key} is not a list.", "Send a list of rows.")
    return rows


def _read_rows_or_columns(key: str, data: Any, scalars: frozenset[str]) -> list[Any]:
    if not isinstance(data, JsonObject):
        return _read_list(key, data, scalars)
    names = [name for name, _ in data]
    _check_names(names)
    are_lists = [type(column) is list for _, column in data]
    if not any(are_lists):
        return [data] if data else []
    lengths = [len(column) if type(column) is list else 1 for _, column in data]
    if len(set(lengths)) != 1 or not all(are_lists):
        sizes = list(zip(names, lengths, strict=True))[:10]
        shown = ", ".join(f"{printable_text(name)[:50]}: {size}" for name, size in sizes)
        raise MalformedInput(
            f"The columns of {key} are not lists of one length ({shown}).",
            "Send one value per row in each.",
        )
    columns = []
    for name, column in data:
        alone = name in scalars and all(type(v) is list and len(v) == 1 for v in column)
        columns.append([value[0] for value in column] if alone else column)
    return [JsonObject(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


_READERS: dict[str, Callable[[str, Any, frozenset[str]], list[Any]]] = {
    "dataframe_split": _read_table,
    "dataframe_records": _read_list,
    "instances": _read_rows_or_columns,
    "inputs": _read_rows_or_columns,
}
"""The keys of which a request has exactly one."""


def _field_value(field: Field, value: Any) -> Any:
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


def _check_names(columns: Sequence[str]) -> None:
    require_few_columns(len(columns))
    if (twice := first_repeated(columns)) is not None:
        raise MalformedInput(
            f"The column {printable_text(twice)!r} is there more than once.", "Send each once."
        )


def _plain(value: Any, depth: int = 0) -> Any:
    """Turn a value into one that JSON has; a column that was left out may hold anything."""
    if isinstance(value, JsonObject | list) and depth > DEEPEST:
        return printable_json(value)
    if isinstance(value, JsonObject):
        return {_plain(name): _plain(each, depth + 1) for name, each in value}
    if isinstance(value, list):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, UnrepresentableNumber):
        return None if value == "NaN" else str(value)
    return printable_text(value) if isinstance(value, str) and not is_encodable(value) else value
