"""
JSON values and the Python values that JSON lacks, so that all come back the same.

Plain JSON is stored as it is. A value that JSON lacks is an object under the key `$`:
`{"$": "tuple", "v": [1, 2]}`. A value that is not JSON at all, such as a table in a
dict, is stored apart, with a reference in its place.
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
from clewline.flow.values.framing import type_name

TAG = "$"

StoreLeaf = Callable[[Any], dict[str, Any]]
"""Stores a value that is not JSON, and returns the reference to it."""

LoadLeaf = Callable[[dict[str, Any]], Any]
"""Loads the value of a reference."""


def encode(value: Any, leaf: StoreLeaf) -> bytes:
    """
    Return a value as JSON text.

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


def decode(data: bytes, fetch: LoadLeaf) -> Any:
    """
    Read a value from JSON text.

    Raises:
        IntegrityError: `encode` did not write this text.
    """
    try:
        return unpacked(json.loads(data), fetch)
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise IntegrityError(
            f"A stored JSON value cannot be read: {error!r}.",
            "Run `clewline doctor` to check the store.",
        ) from error


def packed(value: Any, leaf: StoreLeaf) -> Any:
    """Return a value in terms of JSON."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", "v": repr(value)}
    if kind is list:
        return [packed(part, leaf) for part in value]
    if kind is dict:
        if all(type(key) is str for key in value) and TAG not in value:
            return {key: packed(part, leaf) for key, part in value.items()}
        pairs = [[packed(key, leaf), packed(part, leaf)] for key, part in value.items()]
        return {TAG: "dict", "v": pairs}
    if kind in (tuple, set, frozenset):
        # The order of a set must not depend on the hash seed.
        if kind is not tuple:
            value = sorted(value, key=lambda part: (str(type(part)), repr(part)))
        return {TAG: kind.__name__, "v": [packed(part, leaf) for part in value]}
    if kind in _TEXTS:
        return {TAG: kind.__name__, "v": _TEXTS[kind][0](value)}
    if not is_object(kind):
        return leaf(value)
    path = path_of(kind)
    if isinstance(value, enum.Flag):
        return {TAG: "flag", "type": path, "v": value.value}  # several flags have no one name
    if isinstance(value, enum.Enum):
        return {TAG: "enum", "type": path, "v": value.name}
    fields = {name: packed(part, leaf) for name, part in object_fields(value).items()}
    return {TAG: "object", "type": path, "v": fields}


def unpacked(value: Any, fetch: LoadLeaf) -> Any:
    """Return the value of terms of JSON."""
    if isinstance(value, list):
        return [unpacked(part, fetch) for part in value]
    if not isinstance(value, dict):
        return value
    tag = value.get(TAG)
    if tag is None:
        return {name: unpacked(part, fetch) for name, part in value.items()}
    if tag in _SEQUENCES:
        return _SEQUENCES[tag](unpacked(part, fetch) for part in value["v"])
    if tag == "dict":
        return {unpacked(key, fetch): unpacked(part, fetch) for key, part in value["v"]}
    if tag in ("object", "enum", "flag"):
        return _unpacked_object(value, fetch)
    return _FROM_TEXT[tag](value["v"]) if tag in _FROM_TEXT else fetch(value)


# Values that are written as strings


def _time_text(value: datetime.datetime | datetime.time) -> list[Any]:
    """Return ISO text, zone name, fold."""
    zone = value.tzinfo
    if zone is None or type(zone) is datetime.timezone:
        return [value.isoformat(), None, value.fold]
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return [value.replace(tzinfo=None).isoformat(), zone.key, value.fold]
    raise NotStorable(
        f"{value!r} has a time zone of type {type_name(type(zone))}, which cannot be stored.",
        "Use datetime.timezone or zoneinfo.ZoneInfo.",
    )


def _time_reader(cls: Any) -> Callable[[list[Any]], Any]:
    def read(content: list[Any]) -> Any:
        text, zone, fold = content
        found = cls.fromisoformat(text).replace(fold=fold)
        return found if zone is None else found.replace(tzinfo=zoneinfo.ZoneInfo(zone))

    return read


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


_TEXTS: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    bytes: (_base64, base64.b64decode),
    bytearray: (_base64, lambda text: bytearray(base64.b64decode(text))),
    complex: (
        lambda value: [repr(value.real), repr(value.imag)],
        lambda parts: complex(float(parts[0]), float(parts[1])),
    ),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.datetime: (_time_text, _time_reader(datetime.datetime)),
    datetime.time: (_time_text, _time_reader(datetime.time)),
    datetime.timedelta: (
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: datetime.timedelta(*parts),
    ),
    decimal.Decimal: (str, decimal.Decimal),
    fractions.Fraction: (str, fractions.Fraction),
    uuid.UUID: (str, uuid.UUID),
    range: (lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
}

_FROM_TEXT: dict[str, Callable[[Any], Any]] = {
    "float": float,
    **{kind.__name__: read for kind, (_, read) in _TEXTS.items()},
}

_SEQUENCES: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


# Objects of the project


def is_object(cls: type) -> bool:
    """Return whether objects of a class are stored by their fields: data classes of the project."""
    is_data = dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct | enum.Enum)
    if not is_data or origin.of_type(cls) not in ("own", "clewline"):
        return False
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls and cls.__module__ != "__main__"


def object_fields(value: Any) -> dict[str, Any]:
    """Return the fields of an object of a data class, and its other attributes."""
    cls = type(value)
    names = getattr(cls, "__struct_fields__", None)
    if names is None:
        names = [field.name for field in dataclasses.fields(value)]
    found = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return found | {
        name: part
        for name, part in getattr(value, "__dict__", {}).items()
        if name not in found and not isinstance(getattr(cls, name, None), functools.cached_property)
    }


def path_of(cls: type) -> str:
    """Return the name of a class in storage, `module:qualified.name`."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _unpacked_object(value: dict[str, Any], fetch: LoadLeaf) -> Any:
    # Only modules of the project and of clewline are imported for a class.
    path = value["type"]
    module, _, qualname = path.partition(":")
    cls: Any = sys.modules.get(module)
    failure = None
    if cls is None and (module.partition(".")[0] == "clewline" or origin.own_files(module)):
        try:
            cls = importlib.import_module(module)
        except ImportError as error:
            failure = error
    for part in qualname.split("."):
        cls = getattr(cls, part, None)
    if not isinstance(cls, type) or not is_object(cls):
        raise IntegrityError(
            f"A stored value is of the class {path}, which is not a data class of this project "
            "that can be imported.",
            "Restore the class under that name, or run the step again that made the value.",
        ) from failure
    if issubclass(cls, enum.Enum):
        return cls(value["v"]) if value[TAG] == "flag" else cls[value["v"]]
    fields = {name: unpacked(part, fetch) for name, part in value["v"].items()}
    if not issubclass(cls, msgspec.Struct):
        loaded = object.__new__(cls)
        for name, part in fields.items():
            object.__setattr__(loaded, name, part)
        return loaded
    # Only its constructor can make a Struct; every field that it changes is set back.
    own = cls.__struct_fields__
    struct = cls(**{name: fields[name] for name in own if name in fields})
    for name, part in fields.items():
        if name in own:
            msgspec.structs.force_setattr(struct, name, part)
        else:
            struct.__dict__[name] = part
    return struct
