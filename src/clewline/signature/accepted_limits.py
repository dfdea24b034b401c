"""
The bounds and levels that a person has accepted, in `signatures/NAME.yaml`.

    fields:
      age: {bounds: [17, 90]}
      workclass: {levels: [Private, Self-emp-inc]}

Outside them a value is refused. The endpoint's revision pins them, so a package
never changes when a person accepts a bound.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec

from clewline import config
from clewline.errors import InvalidConfig
from clewline.signature import timestamps
from clewline.signature.field import NUMERIC, Field, Signature
from clewline.signature.field_rules import AwareDatetime, FieldRule
from clewline.signature.json_rows import NameSuggestions

Bound = Any  # a number, or for a date-time an RFC 3339 text or what YAML makes of it


_Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]


class AcceptedFieldLimits(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What was accepted for one field; a date-time's bounds are RFC 3339 texts."""

    bounds: tuple[Bound, Bound] | None = None
    levels: tuple[str, ...] | None = None


class AcceptedLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What was accepted for a model's fields; nothing, unless a person said so."""

    fields: dict[str, AcceptedFieldLimits] = {}

    def builtins(self) -> dict[str, Any]:
        """As plain values, to be pinned in a revision."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def read_accepted(path: Path) -> AcceptedLimits:
    """
    Read `signatures/NAME.yaml`; a file that is not there has accepted nothing.

    Raises:
        InvalidConfig: The file is not what we expect.
    """
    try:
        document = config.read(path, _EXAMPLE)
    except FileNotFoundError:
        return AcceptedLimits()
    return accepted_from_builtins({} if document is None else document, source=str(path))


def accepted_from_builtins(document: Any, *, source: str = "the revision") -> AcceptedLimits:
    """Make it from plain values, as YAML or a revision hold them."""
    try:
        return msgspec.convert(document, AcceptedLimits)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"{source}: {error}.", _EXAMPLE) from error


def field_rules(signature: Signature, accepted: AcceptedLimits) -> tuple[FieldRule, ...]:
    """
    Join the fields with what was accepted for them, in the order of the signature.

    Raises:
        InvalidConfig: A field that is not there, bounds of a text, levels of a number …
    """
    names = {field.name for field in signature.fields}
    for name in accepted.fields.keys() - names:
        hint = NameSuggestions(names).hint(name)
        raise InvalidConfig(
            f"An accepted bound names the field {name!r}, which is not in the signature{hint}."
        )
    return tuple(
        _rule(field, accepted.fields.get(field.name, AcceptedFieldLimits()))
        for field in signature.fields
    )


def _rule(field: Field, accepted: AcceptedFieldLimits) -> FieldRule:
    return FieldRule(field, _bounds(field, accepted.bounds), _levels(field, accepted.levels))


def _bounds(field: Field, bounds: tuple[Bound, Bound] | None) -> tuple[float, float] | None:
    if bounds is None:
        return None
    if field.kind not in NUMERIC - {"boolean"}:
        raise InvalidConfig(f"{field.name!r} is a {field.kind} and has no bounds.", "Use levels.")
    low, high = (_bound(field, bound) for bound in bounds)
    if not low <= high:
        raise InvalidConfig(f"The bounds of {field.name!r} are the wrong way round: {bounds}.")
    return low, high


def _bound(field: Field, bound: Bound) -> float:
    try:
        if field.kind == "datetime":
            return float(timestamps.to_microseconds(msgspec.convert(bound, AwareDatetime)))
        return msgspec.convert(bound, _Finite)
    except msgspec.ValidationError as error:
        raise InvalidConfig(
            f"A bound of {field.name!r}, a {field.kind}, is {bound!r}: {error}.", _EXAMPLE
        ) from error


def _levels(field: Field, levels: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if levels is None:
        return None
    if field.kind not in ("category", "text"):
        raise InvalidConfig(f"{field.name!r} is a {field.kind} and has no levels.", "Use bounds.")
    if not levels:
        raise InvalidConfig(f"The levels of {field.name!r} are empty, so nothing would pass.")
    return tuple(dict.fromkeys(levels))


_EXAMPLE = "It looks like `fields: {age: {bounds: [17, 90]}, job: {levels: [nurse, smith]}}`."
