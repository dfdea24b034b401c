"""A mark on an answered row: a value that the training data had not shown."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Flag(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A value that was answered although it lies outside a proposed bound or set of levels."""

    field: str
    value: Any
    flag: Literal["outside bounds", "unseen level"]
    bounds: tuple[Any, Any] | None = None  # of the field's kind: integers, numbers, date-times
    levels: tuple[str, ...] | None = None
