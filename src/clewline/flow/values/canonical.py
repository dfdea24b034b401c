"""
Canonical bytes of a value, by its type and logical content.

Every piece is framed as tag, length, content, so that no two different values
share a preimage: `1`, `1.0`, `True` and `"1"` differ, `[]` and `()` differ, 0.0
and -0.0 differ. All NaN are one. The order of a dict counts, since Python code
can see it; that of a set does not. Nothing depends on addresses, hash seeds,
memory layout, chunking or the version of a writer.
"""

from __future__ import annotations

import copyreg
import datetime
import decimal
import fractions
import math
import struct
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterable
from typing import Any

from blake3 import blake3

from clewline.flow.values.pieces import Undigestible, framed, joined, text_bytes, type_name
from clewline.store.digest import Digest


class Canonical:
    """
    Walks a value and gives its canonical piece.

    Made for one walk: it remembers what it has seen by address. A subclass says
    in `other` what to do with objects that are not plain values.
    """

    def __init__(self) -> None:
        self.done: dict[int, tuple[Any, bytes]] = {}  # the value is held: its id must not be reused
        self.open: dict[int, int] = {}  # containers that we stand in → depth

    def digest(self, value: Any) -> Digest:
        """The digest of a value."""
        return Digest(blake3(self.piece(value)).hexdigest())

    def piece(self, value: Any) -> bytes:
        """
        The canonical piece of a value.

        Raises:
            Undigestible: Something in it has no content that can be told.
        """
        leaf = LEAVES.get(type(value))
        if leaf is not None:
            return framed(leaf[0], leaf[1](value))
        known = self.done.get(id(value))
        if known is not None:
            return known[1]
        if id(value) in self.open:
            return framed("cycle", b"%d" % (len(self.open) - self.open[id(value)]))
        return self.entered(value)

    def entered(self, value: Any) -> bytes:
        """The piece of a value that has parts."""
        self.open[id(value)] = len(self.open)
        try:
            container = CONTAINERS.get(type(value))
            piece = container(self, value) if container else self.library(value)
        except RecursionError:
            raise self.refusal(value, "is nested too deeply") from None
        finally:
            del self.open[id(value)]
        self.done[id(value)] = (value, piece)
        return piece

    def library(self, value: Any) -> bytes:
        """The piece of an array or a table; libraries that were not imported cannot be met."""
        module = str(type(value).__module__).partition(".")[0]  # Cython's types have no text there
        if module == "numpy":
            from clewline.flow.values.arrays import array_piece

            piece = array_piece(value, self)
        elif module in ("polars", "pandas", "pyarrow"):
            from clewline.flow.values.tables import table_piece

            piece = table_piece(value, self)
        else:
            piece = None
        return self.other(value) if piece is None else piece

    def other(self, value: Any) -> bytes:
        """The piece of what is neither plain, nor an array, nor a table."""
        raise self.refusal(value, "is not a plain value")

    def refusal(self, value: Any, reason: str) -> Undigestible:
        """Why a value has no piece."""
        return Undigestible(type_name(type(value)), reason)

    def items(self, mapping: Iterable[tuple[Any, Any]]) -> Iterable[bytes]:
        """Pieces of keys and values, in their order."""
        for key, value in mapping:
            yield self.piece(key)
            yield self.piece(value)

    def named(self, tag: str, parts: dict[str, Any]) -> bytes:
        """The piece of named parts, whose order does not count."""
        return joined(tag, self.items(sorted(parts.items())))

    def reduced(self, value: Any) -> bytes:
        """
        The piece of any object, by what pickle would store of it; nothing is pickled.

        Callables in it are given by `other`, so a class of the project can count
        with its code. The order of attributes does not count.
        """
        try:
            reducer = copyreg.dispatch_table.get(type(value))
            parts = reducer(value) if reducer else value.__reduce_ex__(2)
        except Exception as error:  # a foreign type may raise anything here
            raise Undigestible(
                type_name(type(value)), f"does not tell its content ({error})"
            ) from error
        if isinstance(parts, str):
            return joined("name", (self.piece(type(value)), self.piece(parts)))
        make, args, state, listed, keyed = (*parts, None, None, None)[:5]
        return joined(
            "object",
            (
                self.piece(type(value)),
                self.piece(make),
                self.piece(args),
                self.state(state),
                joined("listed", map(self.piece, listed or ())),
                joined("keyed", self.items(keyed or ())),
            ),
        )

    def state(self, state: Any) -> bytes:
        """The piece of an object's attributes; the version that a library notes is no content."""
        if type(state) is dict and all(type(name) is str for name in state):
            kept = {name: part for name, part in state.items() if name != "_sklearn_version"}
            return self.named("attributes", kept)
        if type(state) is tuple and len(state) == 2:  # attributes and slots
            return joined("slots", (self.state(state[0]), self.state(state[1])))
        return self.piece(state)


def float_bytes(value: float) -> bytes:
    """Eight bytes; every NaN is the same one."""
    return struct.pack(">d", math.nan if math.isnan(value) else value)


def complex_bytes(value: complex) -> bytes:
    """Real and imaginary part."""
    return float_bytes(value.real) + float_bytes(value.imag)


def int_bytes(value: int) -> bytes:
    """Hexadecimal: decimal digits are limited by the interpreter."""
    return b"%x" % value


def time_bytes(value: datetime.datetime | datetime.time) -> bytes:
    """ISO text, fold, and the zone by its name, or its offset when it has none."""
    zone = value.tzinfo
    if zone is None:
        name = ""
    elif type(zone) is datetime.timezone:
        name = "offset"
    elif type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        name = "zone " + zone.key
    else:
        raise Undigestible(type_name(type(zone)), "is a time zone that we do not know")
    return f"{value.isoformat()} {value.fold} {name}".encode()


def plain_text(value: Any) -> bytes:
    """The text of a value that is wholly told by it."""
    return str(value).encode()


Leaf = tuple[str, Callable[[Any], bytes]]

LEAVES: dict[type, Leaf] = {
    type(None): ("none", lambda value: b""),
    bool: ("bool", lambda value: b"1" if value else b"0"),
    int: ("int", int_bytes),
    float: ("float", float_bytes),
    complex: ("complex", complex_bytes),
    str: ("text", text_bytes),
    bytes: ("bytes", bytes),
    bytearray: ("bytearray", bytes),
    datetime.date: ("date", plain_text),
    datetime.time: ("time", time_bytes),
    datetime.datetime: ("datetime", time_bytes),
    datetime.timedelta: (
        "timedelta",
        lambda value: b"%d %d %d" % (value.days, value.seconds, value.microseconds),
    ),
    decimal.Decimal: ("decimal", plain_text),
    fractions.Fraction: ("fraction", plain_text),
    uuid.UUID: ("uuid", plain_text),
    type(...): ("ellipsis", lambda value: b""),
    type(NotImplemented): ("notimplemented", lambda value: b""),
}

Container = Callable[[Canonical, Any], bytes]

CONTAINERS: dict[type, Container] = {
    list: lambda walk, value: joined("list", map(walk.piece, value)),
    tuple: lambda walk, value: joined("tuple", map(walk.piece, value)),
    dict: lambda walk, value: joined("dict", walk.items(value.items())),
    types.MappingProxyType: lambda walk, value: joined("mapping", walk.items(value.items())),
    set: lambda walk, value: joined("set", sorted(map(walk.piece, value))),
    frozenset: lambda walk, value: joined("frozenset", sorted(map(walk.piece, value))),
    range: lambda walk, value: joined(
        "range", map(walk.piece, (value.start, value.stop, value.step))
    ),
    slice: lambda walk, value: joined(
        "slice", map(walk.piece, (value.start, value.stop, value.step))
    ),
}
