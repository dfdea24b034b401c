"""The type of one JSON row, so that msgspec decodes and checks it in one pass."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from clewline.signature.field_rules import EXACT, AwareDatetime, FieldRule, element_bounds

# One float64 short of 2**53: a number beyond may be an integer that was rounded while it was
# read. So msgspec refuses it, and the exact pass reads it.
_SAFE = math.nextafter(EXACT, 0.0)


def row_type(rules: tuple[FieldRule, ...]) -> tuple[type[msgspec.Struct], bool]:
    """
    Create the struct of a row: every field required, no other allowed.

    Args:
        rules: One per field, in the order of the row.

    Returns:
        The type, and whether it decodes JSON. If msgspec cannot match a field's name, it only
        holds values.
    """
    fields = [(f"f{place}", _field_type(rule)) for place, rule in enumerate(rules)]
    names = {f"f{place}": rule.field.name for place, rule in enumerate(rules)}
    decodes = all(map(is_matchable, names.values()))
    # Rows hold no reference cycles; without the collector's header they are created faster.
    struct = msgspec.defstruct(
        "Row", fields, rename=names if decodes else None, forbid_unknown_fields=True, gc=False
    )
    return struct, decodes


def is_matchable(name: str) -> bool:
    """Return whether msgspec matches this field name: not one with a quote, `\\` or a control."""
    return not any(character < " " or character in '"\\' for character in name)


def _field_type(rule: FieldRule) -> Any:
    base: Any
    match rule.field.kind:
        case "number" | "integer" as kind:
            base = _float_type(rule.bounds, whole=kind == "integer")
        case "boolean":
            base = bool
        case "datetime":
            base = AwareDatetime
        case "category" | "text":
            base = Literal[rule.levels] if rule.levels else str
        case "tensor":
            dtype = rule.field.dtype or "float64"
            base = bool
            if dtype != "bool":
                base = _float_type(element_bounds(dtype), whole=np.dtype(dtype).kind in "iu")
            for size in reversed(rule.field.shape or ()):
                base = Annotated[list[base], Meta(min_length=size, max_length=size)]
    return base | None if rule.field.nullable else base


def _float_type(bounds: tuple[float, float] | None, *, whole: bool = False) -> Any:
    low, high = bounds or (-_SAFE, _SAFE)
    meta = Meta(ge=max(low, -_SAFE), le=min(high, _SAFE), multiple_of=1.0 if whole else None)
    return Annotated[float, meta]
