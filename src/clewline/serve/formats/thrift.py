"""Thrift's compact protocol, as far as the metadata of Parquet needs it."""

from __future__ import annotations

import struct
from typing import Any

DEEPEST = 32
MOST_VALUES = 2_000_000


class BadThrift(Exception):
    """The bytes are not that."""


class Reader:
    """
    Reads structs as dictionaries: number of a field → value, structs and lists within.

    Args:
        data: Where they are.
        place: Where the first begins; afterwards, where the next would.
    """

    def __init__(self, data: bytes, place: int = 0) -> None:
        self.data = data
        self.place = place
        self._left = MOST_VALUES

    def read(self, depth: int = 0) -> dict[int, Any]:
        """
        Read one struct.

        Raises:
            BadThrift: There is none.
        """
        if depth > DEEPEST:
            raise BadThrift("it is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            step, kind = head >> 4, head & 15
            number = number + step if step else self._zigzag()
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise BadThrift("it has too many values")
        if kind in (1, 2):  # in a list each has a byte of its own
            return self._byte() == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 12:
            return self.read(depth + 1)
        raise BadThrift(f"it has a value of the unknown type {kind}")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size, kind = head >> 4, head & 15
        size = self._varint() if size == 15 else size
        if size > len(self.data) or depth > DEEPEST:
            raise BadThrift("a list is longer than it")
        return [self._value(kind, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        if self.place >= len(self.data):
            raise BadThrift("it is cut off")
        self.place += 1
        return self.data[self.place - 1]

    def _bytes(self, size: int) -> bytes:
        if self.place + size > len(self.data):
            raise BadThrift("it is cut off")
        self.place += size
        return self.data[self.place - size : self.place]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise BadThrift("a number is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
