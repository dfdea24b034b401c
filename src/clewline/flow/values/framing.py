"""The pieces of canonical bytes, framed as tag, length, content; and the form of stored values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from blake3 import blake3

from clewline.errors import ClewlineError

PieceOf = Callable[[Any], bytes]
"""Returns the canonical piece of a part of a value."""


class Undigestible(ClewlineError):
    """A value has no content that can be digested. The caller puts it into a message."""

    def __init__(self, value_type: str, reason: str) -> None:
        super().__init__(f"{value_type} {reason}")
        self.args = (value_type, reason)
        self.value_type, self.reason = value_type, reason


def framed(tag: str, content: bytes) -> bytes:
    """Return one piece: tag, length, content. No piece is a prefix of another."""
    return b"%s:%d:%s" % (tag.encode(), len(content), content)


def joined(tag: str, pieces: Iterable[bytes]) -> bytes:
    """Return a container's piece: the digest of its parts, each framed already."""
    return framed(tag, blake3(b"".join(pieces)).digest())


def text_bytes(value: str) -> bytes:
    """Return UTF-8, also for half a surrogate pair."""
    return value.encode("utf-8", "surrogatepass")


def type_name(cls: type) -> str:
    """
    Return a type's import path.

    >>> type_name(Undigestible)
    'clewline.flow.values.framing.Undigestible'
    """
    is_builtin = cls.__module__ == "builtins"
    return cls.__qualname__ if is_builtin else f"{cls.__module__}.{cls.__qualname__}"


class StoredForm(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes and the description that a value is stored as."""

    kind: str
    format: str
    data: bytes
    rows: int | None = None
    columns: int | None = None
    meta: dict[str, Any] = {}
