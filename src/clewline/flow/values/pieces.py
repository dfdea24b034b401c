"""
The pieces that canonical bytes are made of.

Every piece is framed as tag, length, content, so that no two different values
share a preimage.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from blake3 import blake3

from clewline.errors import ClewlineError


class Walk(Protocol):
    """What gives the piece of a part; `canonical.Canonical` is one."""

    def piece(self, value: Any) -> bytes: ...


class Undigestible(ClewlineError):
    """A value whose content cannot be told; caught and put into words by who asked."""

    def __init__(self, value_type: str, reason: str) -> None:
        super().__init__(f"{value_type} {reason}")
        self.args = (value_type, reason)
        self.value_type, self.reason = value_type, reason


def framed(tag: str, content: bytes) -> bytes:
    """One piece: tag, length, content. No piece is a prefix of another."""
    return b"%s:%d:%s" % (tag.encode(), len(content), content)


def joined(tag: str, pieces: Iterable[bytes]) -> bytes:
    """A container's piece: the digest of its parts, each framed already."""
    return framed(tag, blake3(b"".join(pieces)).digest())


def text_bytes(value: str) -> bytes:
    """UTF-8, which can hold even half a surrogate pair."""
    return value.encode("utf-8", "surrogatepass")


def type_name(cls: type) -> str:
    """
    A type's import path.

    >>> type_name(Undigestible)
    'clewline.flow.values.pieces.Undigestible'
    """
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )
