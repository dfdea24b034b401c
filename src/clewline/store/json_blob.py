"""Structs as the bytes of a blob."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from clewline.errors import IntegrityError

T = TypeVar("T", bound=msgspec.Struct)


def encode(value: msgspec.Struct) -> bytes:
    """As JSON; equal values give equal bytes."""
    return msgspec.json.encode(value, order="deterministic")


def decode(data: bytes, cls: type[T], what: str) -> T:
    """
    From JSON; `what` names it in the error.

    Raises:
        IntegrityError: The bytes are not of that form.
    """
    try:
        return msgspec.json.decode(data, type=cls)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"{what} cannot be read: {error}.", "Run `clewline doctor` to check the store."
        ) from error
