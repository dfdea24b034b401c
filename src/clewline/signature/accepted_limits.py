"""
What a person has accepted for the fields of a model, in `signatures/NAME.yaml`.

    fields:
      age: {bounds: [17, 90], mutable: up}
      workclass: {levels: [Private, Self-emp-inc]}
      sex: {mutable: false}
      relationship: {depends_on: [marital-status, sex]}

A value outside the bounds and levels is refused. `mutable` and `depends_on` say what a
counterfactual may change. The endpoint's revision pins all of it, so a package never changes when
a person accepts a bound.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from clewline import config
from clewline.errors import InvalidConfig
from clewline.signature.field import NUMERIC, Field, Signature
from clewline.signature.field_rules import AwareDatetime, FieldRule
from clewline.signature.json_rows import NameSuggestions
from clewline.signature.timestamps import to_microseconds

_Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
_EXAMPLE = "It looks like `fields: {age: {bounds: [17, 90]}, job: {levels: [nurse, smith]}}`."


class AcceptedFieldLimits(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The limits that a person has accepted for one field."""

    bounds: tuple[Any, Any] | None = None  # numbers; for a date-time RFC 3339 or a YAML date
    levels: tuple[str, ...] | None = None
    mutable: bool | Literal["up", "down"] = True  # what a counterfactual may do with it
    depends_on: tuple[str, ...] = ()  # fields that it must occur together with, once it changes


class AcceptedLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The limits that a person has accepted for a model's fields; none by default."""

    fields: dict[str, AcceptedFieldLimits] = {}


def read_accepted(path: Path) -> AcceptedLimits:
    """
    Read `signatures/NAME.yaml`; if there is no file, nothing was accepted.

    Raises:
        InvalidConfig: The file is not YAML, or has other keys or values.
    """
    try:
        document = config.read(path, _EXAMPLE)
    except FileNotFoundError:
        return AcceptedLimits()
    return accepted_from_builtins({} if document is None else document, source=str(path))


def accepted_from_builtins(document: Any, *, source: str = "the revision") -> AcceptedLimits:
    """
    Convert plain values, as YAML or a revision hold them.

    Raises:
        InvalidConfig: They have other keys or values.
    """
    try:
        return msgspec.convert(document, AcceptedLimits)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"{source}: {error}.", _EXAMPLE) from error


def field_rules(signature: Signature, accepted: AcceptedLimits) -> tuple[FieldRule, ...]:
    """
    Join each field with its accepted limits, in the order of a row: numeric, textual, tensors.

    Raises:
        InvalidConfig: A field does not exist, a text field has bounds, a number has levels, …
    """
    names = {field.name for field in signature.fields}
    for name in accepted.fields.keys() - names:
        hint = NameSuggestions(names).hint(name)
        raise InvalidConfig(f"The signature has no field {name!r} to accept limits for{hint}.")
    rules = []
    for field in (*signature.numeric, *signature.textual, *signature.tensors):
        limits = accepted.fields.get(field.name, AcceptedFieldLimits())
        bounds, levels = limits.bounds, limits.levels
        if bounds is not None:
            if field.kind not in NUMERIC - {"boolean"}:
                raise InvalidConfig(
                    f"{field.name!r} is a {field.kind} and has no bounds.", "Use levels."
                )
            bounds = (_bound(field, bounds[0]), _bound(field, bounds[1]))
            if not bounds[0] <= bounds[1]:
                raise InvalidConfig(
                    f"The bounds of {field.name!r} are in the wrong order: {limits.bounds}."
                )
        if levels is not None:
            if field.kind not in ("category", "text"):
                raise InvalidConfig(
                    f"{field.name!r} is a {field.kind} and has no levels.", "Use bounds."
                )
            if not levels:
                raise InvalidConfig(f"The levels of {field.name!r} are empty; no value would pass.")
            levels = tuple(dict.fromkeys(levels))
        if isinstance(limits.mutable, str) and field.kind not in NUMERIC - {"boolean"}:
            raise InvalidConfig(
                f"{field.name!r} is a {field.kind}, so it cannot go {limits.mutable}.",
                "Write mutable: false, or leave it out.",
            )
        for name in limits.depends_on:
            if name not in names or name == field.name:
                hint = NameSuggestions(names - {field.name}).hint(name)
                raise InvalidConfig(f"{field.name!r} cannot depend on {name!r}{hint}.")
        rules.append(FieldRule(field, bounds, levels))
    return tuple(rules)


def _bound(field: Field, bound: Any) -> float:
    try:
        if field.kind == "datetime":
            return float(to_microseconds(msgspec.convert(bound, AwareDatetime)))
        return msgspec.convert(bound, _Finite)
    except msgspec.ValidationError as error:
        raise InvalidConfig(
            f"{bound!r} is not a bound of {field.name!r}, a {field.kind}: {error}.", _EXAMPLE
        ) from error
