"""
How a record stands in a table: one column a field.

Text, numbers and null stay as they are; a field that holds more (a dictionary,
a list) is MessagePack, which keeps NaN and the difference between 1 and 1.0.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from clewline.errors import NotStorable, UsageError
from clewline.store.records import Record

R = TypeVar("R", bound=Record)
Query = tuple[str, tuple[Any, ...]]
ColumnType = Literal["text", "integer", "real", "packed"]

_unpack = msgspec.msgpack.decode
_AFTER_ALL_TEXT = "\U0010ffff"
_SCALARS: dict[Any, ColumnType] = {str: "text", int: "integer", float: "real"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    type: ColumnType
    nullable: bool
    key: bool


@dataclass(frozen=True, slots=True)
class Table:
    """The table of one kind of record."""

    name: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    names: tuple[str, ...]
    packed: tuple[int, ...]  # positions of the packed columns
    select: str
    by_keys: str

    def column(self, name: str) -> Column:
        """
        Find a column by name.

        Raises:
            UsageError: The kind has no such field.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise UsageError(
            f"Records of {self.name} have no field {name!r}.", f"They have {', '.join(self.names)}."
        )


@cache
def table(kind: type[Record]) -> Table:
    """Describe the table of a kind of record."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
    hints = get_type_hints(kind)
    fields = kind.__struct_fields__
    columns = tuple(_column(field, hints[field], field in kind.KEYS) for field in fields)
    packed = tuple(i for i, column in enumerate(columns) if column.type == "packed")
    select = f'SELECT {", ".join(map(_quoted, fields))} FROM "{name}"'
    by_keys = f"{select} WHERE {' AND '.join(f'{_quoted(key)} = ?' for key in kind.KEYS)}"
    return Table(name, columns, kind.KEYS, fields, packed, select, by_keys)


def decode(kind: type[R], row: Sequence[Any]) -> R:
    """Make a record of a row, its columns in the order of the fields."""
    values, here = list(row), table(kind)
    for position in here.packed:
        if values[position] is not None:
            values[position] = _unpack(values[position])
    return kind(**dict(zip(here.names, values, strict=True)))


def encode(record: Record) -> dict[str, Any]:
    """
    Make a row of a record, as a dictionary of column to value.

    Raises:
        NotStorable: A field holds what MessagePack cannot say.
    """
    return {
        column.name: _encoded(record, column, getattr(record, column.name))
        for column in table(type(record)).columns
    }


def find_query(
    kind: type[Record],
    *,
    equal: Mapping[str, Any],
    prefix: Mapping[str, str] | None,
    order: str,
    limit: int | None,
    offset: int,
) -> Query:
    """Write the query of `find`. An order is a field, `-field` for descending; keys break ties."""
    here = table(kind)
    where, values = _where(here, equal, prefix or {})
    ordered = f" ORDER BY {_order(here, order)}"
    page = f" LIMIT {-1 if limit is None else int(limit)} OFFSET {int(offset)}"
    return here.select + where + ordered + page, values


def count_query(
    kind: type[Record], *, equal: Mapping[str, Any], prefix: Mapping[str, str] | None
) -> Query:
    """Write the query of `count`."""
    here = table(kind)
    where, values = _where(here, equal, prefix or {})
    return f'SELECT count(*) FROM "{here.name}"{where}', values


def key_of(record: Record) -> tuple[Any, ...]:
    """Give the values of a record's keys."""
    return tuple(getattr(record, key) for key in record.KEYS)


def named(record: Record) -> str:
    """Name a record in a message: `model version income@3`."""
    return f"{table(type(record)).name.replace('_', ' ')} {'@'.join(map(str, key_of(record)))}"


def _column(name: str, hint: Any, key: bool) -> Column:
    kinds: tuple[Any, ...] = (hint,)
    if get_origin(hint) in (Union, types.UnionType):
        kinds = get_args(hint)
    nullable = type(None) in kinds
    plain = [getattr(kind, "__supertype__", kind) for kind in kinds if kind is not type(None)]
    if get_origin(plain[0]) is Literal:
        plain = [str]
    column_type = _SCALARS.get(plain[0], "packed") if len(plain) == 1 else "packed"
    return Column(name, column_type, nullable, key)


def _encoded(record: Record, column: Column, value: Any) -> Any:
    try:
        if column.type == "packed" and value is not None:
            return msgspec.msgpack.encode(value, enc_hook=_plain)
        if isinstance(value, str) and not value.isascii():
            value.encode()  # a file's name may be bytes that are no text
        return value
    except (NotImplementedError, TypeError, OverflowError, UnicodeEncodeError) as error:
        raise NotStorable(
            f"The field {column.name!r} of {ascii(named(record))[1:-1]} cannot be recorded: "
            f"{error}.",
            "Use text, numbers of at most 64 bits, booleans, null, lists and dictionaries.",
        ) from error


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    raise NotImplementedError(f"{value!r} is a {type(value).__module__}.{type(value).__qualname__}")


def _where(
    here: Table, equal: Mapping[str, Any], prefix: Mapping[str, str]
) -> tuple[str, tuple[Any, ...]]:
    parts: list[str] = []
    values: list[Any] = []
    for name, value in equal.items():
        column = _quoted(here.column(name).name)
        parts.append(f"{column} IS NULL" if value is None else f"{column} = ?")
        values.extend(() if value is None else (value,))
    for name, start in prefix.items():
        column = _quoted(here.column(name).name)
        parts.append(f"{column} >= ? AND {column} < ?")
        values.extend((start, start + _AFTER_ALL_TEXT))
    return (f" WHERE {' AND '.join(parts)}" if parts else ""), tuple(values)


def _order(here: Table, order: str) -> str:
    terms = {order.lstrip("-"): "DESC" if order.startswith("-") else "ASC"} if order else {}
    for key in here.keys:
        terms.setdefault(key, "ASC")
    return ", ".join(f"{_quoted(here.column(name).name)} {way}" for name, way in terms.items())


def _quoted(name: str) -> str:
    return f'"{name}"'
