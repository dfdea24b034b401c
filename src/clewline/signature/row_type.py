"""The type of one JSON row, so that msgspec decodes and checks it in one pass."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from clewline.signature.field import Signature
from clewline.signature.field_rules import EXACT, AwareDatetime, FieldRule, element_bounds

# One float64 short of 2**53: what lies beyond may be an integer that was rounded
# while it was read, so msgspec refuses it and the second pass reads it exactly.
_SAFE = math.nextafter(EXACT, 0.0)


def row_order(signature: Signature) -> tuple[int, ...]:
    """Positions of the fields in the order of a row: numeric, textual, tensors."""
    fields = signature.fields
    parts = (signature.numeric, signature.textual, signature.tensors)
    place = {field.name: position for position, field in enumerate(fields)}
    return tuple(place[field.name] for part in parts for field in part)


def row_type(rules: tuple[FieldRule, ...]) -> type[msgspec.Struct] | None:
    """
    Make the struct of a row: every field required, no other allowed.

    Args:
        rules: One a field, in the order of the row.

    Returns:
        The type, or None where a field's name has a quote, a backslash or a
        control character, which msgspec does not match.
    """
    names = {f"f{i}": rule.field.name for i, rule in enumerate(rules)}
    if not all(is_matchable(name) for name in names.values()):
        return None
    return _struct(rules, names)


def plain_row_type(rules: tuple[FieldRule, ...]) -> type[msgspec.Struct]:
    """Make the struct without the fields' own names: a holder of values, not to be decoded."""
    return _struct(rules, None)


def is_matchable(name: str) -> bool:
    """Tell whether msgspec can match this field name."""
    return not any(character < " " or character in '"\\' for character in name)


def _struct(rules: tuple[FieldRule, ...], names: dict[str, str] | None) -> type[msgspec.Struct]:
    fields = [(f"f{i}", _field_type(rule)) for i, rule in enumerate(rules)]
    # Rows hold no reference cycles; without the collector's header they are made faster.
    return msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True, gc=False)


def _field_type(rule: FieldRule) -> Any:
    base = _TYPES[rule.field.kind](rule)
    return base | None if rule.field.nullable else base


def _number(rule: FieldRule) -> Any:
    return _float(rule.bounds)


def _integer(rule: FieldRule) -> Any:
    return _float(rule.bounds, whole=True)


def _float(bounds: tuple[float, float] | None, *, whole: bool = False) -> Any:
    low, high = bounds or (-_SAFE, _SAFE)
    meta = Meta(ge=max(low, -_SAFE), le=min(high, _SAFE), multiple_of=1.0 if whole else None)
    return Annotated[float, meta]


def _textual(rule: FieldRule) -> Any:
    return Literal[rule.levels] if rule.levels else str


def _tensor(rule: FieldRule) -> Any:
    dtype = rule.field.dtype or "float64"
    element: Any = bool
    if dtype != "bool":
        element = _float(element_bounds(dtype), whole=np.dtype(dtype).kind in "iu")
    for size in reversed(rule.field.shape or ()):
        element = Annotated[list[element], Meta(min_length=size, max_length=size)]
    return element


_TYPES = {
    "number": _number,
    "integer": _integer,
    "boolean": lambda _: bool,
    "datetime": lambda _: AwareDatetime,
    "category": _textual,
    "text": _textual,
    "tensor": _tensor,
}
