"""
Canonical bytes of a value, by its type and logical content.

Every piece is framed (`framing.py`), so that no two different values
share a preimage: `1`, `1.0`, `True` and `"1"` differ, `[]` and `()` differ, 0.0
and -0.0 differ. All NaN are equal. The order of a dict counts, since Python code
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

from clewline.flow.values.framing import Undigestible, framed, joined, text_bytes, type_name
from clewline.model_families import version_attributes
from clewline.store.digest import Digest


class CanonicalWalk:
    """
    Walks a value and returns its canonical piece.

    An instance is for one walk: it caches pieces by address. A subclass defines
    in `other` the pieces of objects that are not plain values.
    """

    def __init__(self) -> None:
        # The values are held, so that no id is reused.
        self._done: dict[int, tuple[Any, bytes]] = {}
        self._open: dict[int, int] = {}  # enclosing containers → depth

    def digest(self, value: Any) -> Digest:
        """Return the digest of a value."""
        return Digest(blake3(self.piece(value)).hexdigest())

    def piece(self, value: Any) -> bytes:
        """
        Return the canonical piece of a value.

        Raises:
            Undigestible: Something in it has no content that can be digested.
        """
        leaf = LEAVES.get(type(value))
        if leaf is not None:
            return framed(leaf[0], leaf[1](value))
        known = self._done.get(id(value))
        if known is not None:
            return known[1]
        if id(value) in self._open:
            return framed("cycle", b"%d" % (len(self._open) - self._open[id(value)]))
        self._open[id(value)] = len(self._open)
        try:
            container = _CONTAINER_PIECES.get(type(value))
            piece = container(self, value) if container else self._library(value)
        except RecursionError:
            raise self.refusal(value, "is nested too deeply") from None
        finally:
            del self._open[id(value)]
        self._done[id(value)] = (value, piece)
        return piece

    def _library(self, value: Any) -> bytes:
        """Return the piece of an array or a table; their libraries are imported already."""
        module = str(type(value).__module__).partition(".")[0]  # of a Cython type not a string
        piece = None
        if module == "numpy":
            from clewline.flow.values.arrays import array_piece

            piece = array_piece(value, self.piece)
        elif module in ("polars", "pandas", "pyarrow"):
            from clewline.flow.values.tables import table_piece

            piece = table_piece(value, self.piece)
        return self.other(value) if piece is None else piece

    def other(self, value: Any) -> bytes:
        """Return the piece of a value that is neither plain, nor an array, nor a table."""
        raise self.refusal(value, "is not a plain value")

    def refusal(self, value: Any, reason: str) -> Undigestible:
        """Return the error for a value without a piece."""
        return Undigestible(type_name(type(value)), reason)

    def items(self, mapping: Iterable[tuple[Any, Any]]) -> Iterable[bytes]:
        """Yield the pieces of keys and values, in their order."""
        for key, value in mapping:
            yield self.piece(key)
            yield self.piece(value)

    def named(self, tag: str, parts: dict[str, Any]) -> bytes:
        """Return the piece of named parts in any order."""
        return joined(tag, self.items(sorted(parts.items())))

    def reduced(self, value: Any) -> bytes:
        """
        Return the piece of any object, by what pickle would store of it. Nothing is pickled.

        Callables in it go through `other`, so that a class of the project can count
        with its code. The order of attributes does not count.
        """
        try:
            reducer = copyreg.dispatch_table.get(type(value))
            parts = reducer(value) if reducer else value.__reduce_ex__(2)
        except Exception as error:  # a foreign type may raise anything here
            raise Undigestible(
                type_name(type(value)), f"does not reveal its content ({error})"
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
                self._state(state),
                joined("listed", map(self.piece, listed or ())),
                joined("keyed", self.items(keyed or ())),
            ),
        )

    def _state(self, state: Any) -> bytes:
        """Return the piece of an object's attributes, without the version of its library."""
        if type(state) is dict and all(type(name) is str for name in state):
            noted = version_attributes()
            kept = {name: part for name, part in state.items() if name not in noted}
            return self.named("attributes", kept)
        if type(state) is tuple and len(state) == 2:  # attributes and slots
            return joined("slots", (self._state(state[0]), self._state(state[1])))
        return self.piece(state)


def _float_bytes(value: float) -> bytes:
    return struct.pack(">d", math.nan if math.isnan(value) else value)


def _time_bytes(value: datetime.datetime | datetime.time) -> bytes:
    """Return ISO text, fold, and the zone by its name, or its offset if it has no name."""
    zone = value.tzinfo
    if zone is None:
        name = ""
    elif type(zone) is datetime.timezone:
        name = "offset"
    elif type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        name = "zone " + zone.key
    else:
        raise Undigestible(type_name(type(zone)), "is an unknown kind of time zone")
    return f"{value.isoformat()} {value.fold} {name}".encode()


def _text(value: Any) -> bytes:
    return str(value).encode()


LEAVES: dict[type, tuple[str, Callable[[Any], bytes]]] = {
    type(None): ("none", lambda value: b""),
    bool: ("bool", lambda value: b"1" if value else b"0"),
    int: ("int", lambda value: b"%x" % value),  # the interpreter limits decimal digits
    float: ("float", _float_bytes),
    complex: ("complex", lambda value: _float_bytes(value.real) + _float_bytes(value.imag)),
    str: ("text", text_bytes),
    bytes: ("bytes", bytes),
    bytearray: ("bytearray", bytes),
    datetime.date: ("date", _text),
    datetime.time: ("time", _time_bytes),
    datetime.datetime: ("datetime", _time_bytes),
    datetime.timedelta: (
        "timedelta",
        lambda value: b"%d %d %d" % (value.days, value.seconds, value.microseconds),
    ),
    decimal.Decimal: ("decimal", _text),
    fractions.Fraction: ("fraction", _text),
    uuid.UUID: ("uuid", _text),
    type(...): ("ellipsis", lambda value: b""),
    type(NotImplemented): ("notimplemented", lambda value: b""),
}


def _steps(tag: str) -> Callable[[CanonicalWalk, Any], bytes]:
    return lambda walk, value: joined(tag, map(walk.piece, (value.start, value.stop, value.step)))


_CONTAINER_PIECES: dict[type, Callable[[CanonicalWalk, Any], bytes]] = {
    list: lambda walk, value: joined("list", map(walk.piece, value)),
    tuple: lambda walk, value: joined("tuple", map(walk.piece, value)),
    dict: lambda walk, value: joined("dict", walk.items(value.items())),
    types.MappingProxyType: lambda walk, value: joined("mapping", walk.items(value.items())),
    set: lambda walk, value: joined("set", sorted(map(walk.piece, value))),
    frozenset: lambda walk, value: joined("frozenset", sorted(map(walk.piece, value))),
    range: _steps("range"),
    slice: _steps("slice"),
}

PLAIN_TYPES = frozenset({*LEAVES, *_CONTAINER_PIECES})
"""The types of plain values and of containers of them."""
