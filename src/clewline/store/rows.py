"""
How a record stands in a table, one column for each field, and the queries that read it.

Text, numbers and null stay as they are; a field that holds more (a dictionary, a list) is
MessagePack, which keeps NaN and the difference between 1 and 1.0.
"""

from __future__ import annotations

import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from clewline.errors import IntegrityError, NotStorable, UsageError
from clewline.store.digest import Digest, digest_bytes
from clewline.store.records import Record

R = TypeVar("R", bound=Record)
ColumnType = Literal["text", "integer", "real", "packed"]

_AFTER_ALL_TEXT = "\U0010ffff"
_SCALARS: dict[Any, ColumnType] = {str: "text", int: "integer", float: "real"}


@dataclass(frozen=True, slots=True)
class RecordField:
    """One field of a kind of record: a column of its table."""

    name: str
    type: ColumnType
    nullable: bool


@dataclass(frozen=True, slots=True)
class RecordTable:
    """The table of one kind of record."""

    name: str
    fields: dict[str, RecordField]
    keys: tuple[str, ...]
    key_positions: tuple[int, ...]
    packed: tuple[int, ...]  # positions of the packed columns
    select: str
    by_keys: str
    insert: str  # fails where the keys are taken
    insert_or_ignore: str
    insert_or_replace: str

    def quoted(self, name: str) -> str:
        """
        Return a field's name as SQL writes it.

        Raises:
            UsageError: The kind has no such field.
        """
        if name not in self.fields:
            raise UsageError(
                f"Records of {self.name} have no field {name!r}.",
                f"They have {', '.join(self.fields)}.",
            )
        return f'"{name}"'

    def where(
        self, equal: dict[str, Any], prefix: dict[str, str] | None
    ) -> tuple[str, tuple[Any, ...]]:
        """Write the WHERE of a query, and the values that it binds."""
        parts: list[str] = []
        values: list[Any] = []
        for name, value in equal.items():
            parts.append(f"{self.quoted(name)} {'IS NULL' if value is None else '= ?'}")
            values.extend(() if value is None else (value,))
        for name, start in (prefix or {}).items():
            parts.append(f"{self.quoted(name)} >= ? AND {self.quoted(name)} < ?")
            values.extend((start, start + _AFTER_ALL_TEXT))
        return (f" WHERE {' AND '.join(parts)}" if parts else ""), tuple(values)

    def order_by(self, order: str) -> str:
        """Write the ORDER BY of a query: a field, `-field` for descending; the keys break ties."""
        terms = {order.lstrip("-"): "DESC" if order.startswith("-") else "ASC"} if order else {}
        for key in self.keys:
            terms.setdefault(key, "ASC")
        return " ORDER BY " + ", ".join(f"{self.quoted(name)} {way}" for name, way in terms.items())


@cache
def table(kind: type[Record]) -> RecordTable:
    """Describe the table of a kind of record."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
    hints = get_type_hints(kind)
    fields = {field: _field(field, hints[field]) for field in kind.__struct_fields__}
    packed = tuple(i for i, field in enumerate(fields.values()) if field.type == "packed")
    columns = ", ".join(f'"{field}"' for field in fields)
    keys = ", ".join(f'"{key}"' for key in kind.KEYS)
    by_keys = " AND ".join(f'"{key}" = ?' for key in kind.KEYS)
    others = [f'"{field}" = excluded."{field}"' for field in fields if field not in kind.KEYS]
    select = f'SELECT {columns} FROM "{name}"'
    values = ", ".join(f":{field}" for field in fields)
    insert = f'INSERT INTO "{name}" ({columns}) VALUES ({values})'
    insert_or_ignore = f"{insert} ON CONFLICT DO NOTHING"
    # Not `INSERT OR REPLACE`: that deletes the row, and what refers to it.
    update = f"{insert} ON CONFLICT ({keys}) DO UPDATE SET {', '.join(others)}"
    return RecordTable(
        name=name,
        fields=fields,
        keys=kind.KEYS,
        key_positions=tuple(kind.__struct_fields__.index(key) for key in kind.KEYS),
        packed=packed,
        select=select,
        by_keys=f"{select} WHERE {by_keys}",
        insert=insert,
        insert_or_ignore=insert_or_ignore,
        insert_or_replace=update if others else insert_or_ignore,
    )


def _field(name: str, hint: Any) -> RecordField:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    plain = [getattr(kind, "__supertype__", kind) for kind in kinds if kind is not type(None)]
    if get_origin(plain[0]) is Literal:
        plain = [str]
    column_type = _SCALARS.get(plain[0], "packed") if len(plain) == 1 else "packed"
    return RecordField(name, column_type, type(None) in kinds)


class UnreadableRecord(IntegrityError):
    """The row of a record was changed, and can no longer be read."""

    def __init__(self, name: str, key: tuple[Any, ...], reason: str) -> None:
        super().__init__(
            f"The {name} in the catalog cannot be read: {reason}.",
            "Restore `catalog.db` from a backup.",
        )
        self.name, self.key = name, key

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.key, "its row was changed")


def decode(kind: type[R], row: Sequence[Any]) -> R:
    """
    Make a record of a row, its columns in the order of the fields.

    Raises:
        UnreadableRecord: A packed column is not MessagePack, or a key is neither text nor integer.
    """
    values, here = list(row), table(kind)
    try:
        for position in here.packed:
            if values[position] is not None:
                values[position] = msgspec.msgpack.decode(values[position])
        for position in here.key_positions:
            if type(values[position]) not in (str, int):
                raise TypeError("a key is neither text nor an integer")
    except (msgspec.DecodeError, TypeError) as error:
        key = tuple(row[position] for position in here.key_positions)
        raise UnreadableRecord(_name(kind, key), key, str(error).rstrip(".")) from error
    return kind(**dict(zip(here.fields, values, strict=True)))


def encode(record: Record) -> dict[str, Any]:
    """
    Make a row of a record, as a dictionary from column to value.

    Raises:
        NotStorable: A field holds what MessagePack cannot encode.
    """
    return {
        field.name: _encoded(record, field, getattr(record, field.name))
        for field in table(type(record)).fields.values()
    }


def _encoded(record: Record, field: RecordField, value: Any) -> Any:
    try:
        if field.type == "packed" and value is not None:
            return msgspec.msgpack.encode(value, enc_hook=_numpy_scalar)
        if isinstance(value, str) and not value.isascii():
            value.encode()  # the name of a file may hold bytes that are not text
        return value
    except (NotImplementedError, TypeError, OverflowError, UnicodeEncodeError) as error:
        raise NotStorable(
            f"The field {field.name!r} of {ascii(describe(record))[1:-1]} cannot be recorded: "
            f"{error}.",
            "Use text, numbers of at most 64 bits, booleans, null, lists and dictionaries.",
        ) from error


def _numpy_scalar(value: Any) -> Any:
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    raise NotImplementedError(f"{value!r} is a {type(value).__module__}.{type(value).__qualname__}")


def key_of(record: Record) -> tuple[Any, ...]:
    """Return the values of a record's keys."""
    return tuple(getattr(record, key) for key in record.KEYS)


def describe(record: Record) -> str:
    """Name a record in a message: `model version income@3`, `revision income#12`."""
    return _name(type(record), key_of(record))


def _name(kind: type[Record], key: tuple[Any, ...]) -> str:
    mark = "#" if kind.KEYS[0] == "endpoint" else "@"
    return f"{table(kind).name.replace('_', ' ')} {mark.join(map(str, key))}"


def _sealed_columns(record: Record) -> dict[str, Any]:
    """
    Return the columns of a record that the signed chain covers.

    Those with their default value are left out, so that a column that a later version adds
    changes no digest.
    """
    kind, row = type(record), encode(record)
    defaults = _default_columns(kind)
    return {
        name: value
        for name, value in row.items()
        if name not in kind.UNSEALED_FIELDS
        and (name not in defaults or (type(value), value) != defaults[name])
    }


@cache
def _default_columns(kind: type[Record]) -> dict[str, tuple[type, Any]]:
    found = {}
    for each in msgspec.structs.fields(kind):
        if not each.required:
            factory = each.default_factory
            value = each.default if factory is msgspec.NODEFAULT else factory()
            if table(kind).fields[each.name].type == "packed" and value is not None:
                value = msgspec.msgpack.encode(value)
            found[each.name] = type(value), value
    return found


def sealed_digest(record: Record) -> Digest:
    """Digest the columns of a record that the signed chain covers, together with its name."""
    content = [table(type(record)).name, _sealed_columns(record)]
    return digest_bytes(b"clewline record 1\n" + msgspec.msgpack.encode(content))


def field_hints(record: Record) -> dict[str, str]:
    """Return short digests of those columns, to tell which of them was changed."""
    columns = _sealed_columns(record)
    return {name: digest_bytes(msgspec.msgpack.encode(columns[name]))[:8] for name in columns}
