"""
JSON values with everything that Python adds to JSON, so that they come back the same.

Plain JSON stands as it is. What JSON has not is an object under the key `$`:
`{"$": "tuple", "v": [1, 2]}`. What is no JSON value at all, such as a table in a
dict, is stored by itself and stands as a reference.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import importlib
import json
import math
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import msgspec

from clewline.errors import IntegrityError, NotStorable
from clewline.flow.code import origin
from clewline.flow.values.pieces import type_name

TAG = "$"

Leaf = Callable[[Any], dict[str, Any]]
"""Stores what is no JSON value, and gives the reference to it."""

Fetch = Callable[[dict[str, Any]], Any]
"""Loads what a reference stands for."""


def encode(value: Any, leaf: Leaf) -> bytes:
    """
    A value as JSON text.

    Raises:
        NotStorable: Something in it has no format; also raised by `leaf`.
    """
    try:
        return json.dumps(packed(value, leaf), separators=(",", ":")).encode()
    except (RecursionError, ValueError) as error:
        raise NotStorable(
            f"A {type(value).__name__} cannot be stored as JSON: {error}.",
            "A value that contains itself, or is nested hundreds deep, has no JSON form: "
            "return its parts as a flat list or a table.",
        ) from error


def decode(data: bytes, fetch: Fetch) -> Any:
    """
    A value from JSON text.

    Raises:
        IntegrityError: The text is not what `encode` writes.
    """
    try:
        return unpacked(json.loads(data), fetch)
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise IntegrityError(
            f"A stored JSON value cannot be read: {error!r}.",
            "Run `clewline doctor` to check the store.",
        ) from error


def packed(value: Any, leaf: Leaf) -> Any:
    """A value in terms of JSON."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else tagged("float", repr(value))
    if kind is list:
        return [packed(part, leaf) for part in value]
    if kind is dict:
        return packed_dict(value, leaf)
    if kind in (tuple, set, frozenset):
        return tagged(kind.__name__, [packed(part, leaf) for part in ordered(value)])
    if kind in TEXTS:
        return tagged(kind.__name__, TEXTS[kind][0](value))
    return packed_object(value, leaf) if is_object(kind) else leaf(value)


def unpacked(value: Any, fetch: Fetch) -> Any:
    """A value from terms of JSON."""
    if isinstance(value, list):
        return [unpacked(part, fetch) for part in value]
    if not isinstance(value, dict):
        return value
    tag = value.get(TAG)
    if tag is None:
        return {name: unpacked(part, fetch) for name, part in value.items()}
    if tag in SEQUENCES:
        return SEQUENCES[tag](unpacked(part, fetch) for part in value["v"])
    if tag == "dict":
        return {unpacked(key, fetch): unpacked(part, fetch) for key, part in value["v"]}
    if tag in ("object", "enum", "flag"):
        return unpacked_object(value, fetch)
    return FROM_TEXT[tag](value["v"]) if tag in FROM_TEXT else fetch(value)


def tagged(tag: str, content: Any) -> dict[str, Any]:
    """What JSON has not."""
    return {TAG: tag, "v": content}


def packed_dict(value: dict[Any, Any], leaf: Leaf) -> Any:
    """A dict; as pairs when its keys are not all texts."""
    if all(type(key) is str for key in value) and TAG not in value:
        return {key: packed(part, leaf) for key, part in value.items()}
    return tagged("dict", [[packed(key, leaf), packed(part, leaf)] for key, part in value.items()])


def ordered(value: Any) -> Any:
    """Parts of a set in an order that does not depend on the hash seed."""
    return (
        value
        if type(value) is tuple
        else sorted(value, key=lambda part: (str(type(part)), repr(part)))
    )


# ── texts ───────────────────────────────────────────────────────────────────


def time_text(value: datetime.datetime | datetime.time) -> list[Any]:
    """ISO text, zone name, fold."""
    zone = value.tzinfo
    if zone is None or type(zone) is datetime.timezone:
        return [value.isoformat(), None, value.fold]
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return [value.replace(tzinfo=None).isoformat(), zone.key, value.fold]
    raise NotStorable(
        f"{value!r} has a time zone of type {type_name(type(zone))}, which cannot be stored.",
        "Use datetime.timezone or zoneinfo.ZoneInfo.",
    )


def time_from(cls: Any) -> Callable[[list[Any]], Any]:
    """The reader of datetimes or of times."""

    def read(content: list[Any]) -> Any:
        text, zone, fold = content
        found = cls.fromisoformat(text).replace(fold=fold)
        return found if zone is None else found.replace(tzinfo=zoneinfo.ZoneInfo(zone))

    return read


def base64_text(value: bytes | bytearray) -> str:
    """Bytes as text."""
    return base64.b64encode(value).decode()


TEXTS: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    bytes: (base64_text, base64.b64decode),
    bytearray: (base64_text, lambda text: bytearray(base64.b64decode(text))),
    complex: (
        lambda value: [repr(value.real), repr(value.imag)],
        lambda parts: complex(float(parts[0]), float(parts[1])),
    ),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.datetime: (time_text, time_from(datetime.datetime)),
    datetime.time: (time_text, time_from(datetime.time)),
    datetime.timedelta: (
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: datetime.timedelta(*parts),
    ),
    decimal.Decimal: (str, decimal.Decimal),
    fractions.Fraction: (str, fractions.Fraction),
    uuid.UUID: (str, uuid.UUID),
    range: (lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
}

FROM_TEXT: dict[str, Callable[[Any], Any]] = {
    "float": float,
    **{kind.__name__: read for kind, (_, read) in TEXTS.items()},
}

SEQUENCES: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


# ── objects of the project ──────────────────────────────────────────────────


def is_object(cls: type) -> bool:
    """Whether objects of a class are stored by their fields: data classes of the project."""
    plain = dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct | enum.Enum)
    return plain and origin.of_type(cls) in ("own", "clewline") and is_importable(cls)


def is_importable(cls: type) -> bool:
    """Whether another process finds a class under its name."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls and cls.__module__ != "__main__"


def object_fields(value: Any) -> dict[str, Any]:
    """The fields of an object of a data class, and what else was put on the object."""
    cls = type(value)
    names = getattr(cls, "__struct_fields__", None)
    if names is None:
        names = [field.name for field in dataclasses.fields(value)]
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    beside = getattr(value, "__dict__", {}).items()
    return found | {
        name: part
        for name, part in beside
        if name not in found and not isinstance(getattr(cls, name, None), functools.cached_property)
    }


def path_of(cls: type) -> str:
    """A class as it is named in storage, `module:qualified.name`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def packed_object(value: Any, leaf: Leaf) -> dict[str, Any]:
    """An object as its class's name and its fields."""
    path = path_of(type(value))
    if isinstance(value, enum.Flag):
        return {TAG: "flag", "type": path, "v": value.value}  # several at once have no one name
    if isinstance(value, enum.Enum):
        return {TAG: "enum", "type": path, "v": value.name}
    fields = {name: packed(part, leaf) for name, part in object_fields(value).items()}
    return {TAG: "object", "type": path, "v": fields}


def unpacked_object(value: dict[str, Any], fetch: Fetch) -> Any:
    """An object from its class's name and its fields."""
    cls: Any = data_class(value["type"])
    if issubclass(cls, enum.Enum):
        return cls(value["v"]) if value[TAG] == "flag" else cls[value["v"]]
    fields = {name: unpacked(part, fetch) for name, part in value["v"].items()}
    if issubclass(cls, msgspec.Struct):
        return unpacked_struct(cls, fields)
    made = object.__new__(cls)
    for name, part in fields.items():
        object.__setattr__(made, name, part)
    return made


def unpacked_struct(cls: Any, fields: dict[str, Any]) -> Any:
    """A Struct, which can only be made by its constructor; what that changes is set right."""
    made = cls(**{name: fields[name] for name in cls.__struct_fields__ if name in fields})
    for name, part in fields.items():
        if name in cls.__struct_fields__:
            msgspec.structs.force_setattr(made, name, part)
        else:
            made.__dict__[name] = part
    return made


def data_class(path: str) -> type:
    """
    The class under a stored name; nothing but modules of the project and ours is imported.

    Raises:
        IntegrityError: The class is gone, is no data class, or is someone else's.
    """
    module, _, qualname = path.partition(":")
    ours = module.partition(".")[0] == "clewline" or bool(origin.own_files(module))
    found: Any = sys.modules.get(module)
    if found is None and ours:
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            raise gone(path) from error
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not is_object(found):
        raise gone(path)
    return found


def gone(path: str) -> IntegrityError:
    """A stored value is of a class that cannot be used."""
    return IntegrityError(
        f"A stored value is of the class {path}, which is not a data class of this project "
        "that can be imported.",
        "Bring the class back under that name, or run the step again that made the value.",
    )
