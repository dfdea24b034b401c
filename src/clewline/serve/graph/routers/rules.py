"""A route by conditions on fields: the first rule that holds names the arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidConfig
from clewline.serve.graph.batch import Batch
from clewline.serve.graph.routers.router import RouteContext
from clewline.signature import timestamps
from clewline.signature.columns import Columns
from clewline.signature.field import NUMERIC, Field
from clewline.signature.field_rules import AwareDatetime
from clewline.signature.json_rows import NameSuggestions
from clewline.store.records import RouterState

Holds = Callable[[Columns], NDArray[np.bool_]]

_ORDERED: dict[str, Callable[[Any, float], NDArray[np.bool_]]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_OPERATORS = ("==", "!=", *_ORDERED, "in", "missing")


class RulesRouter:
    """
    Gives each row the arm of the first rule that holds for it; always the same, propensity 1.

    Config: `{"rules": [{"if": CONDITIONS, "arm": arm}, …], "otherwise": arm}`.
    CONDITIONS is a list that must hold as a whole. A condition is
    `{"field", "is", "value"}` with `is` one of ==, !=, <, <=, >, >=, in, missing;
    or `{"any": CONDITIONS}`, of which one is enough, or `{"all": CONDITIONS}`.
    A null fulfils no condition but `missing`, and no `!=`.
    """

    learns = False

    def __init__(self, rules: list[tuple[Holds, int]], otherwise: int) -> None:
        self._rules = rules
        self._otherwise = otherwise

    @classmethod
    def build(cls, config: dict[str, Any], setting: RouteContext) -> RulesRouter:
        """Make it; every field, operator, value and arm is checked here."""
        unknown = config.keys() - {"rules", "otherwise"}
        if unknown or not isinstance(config.get("rules"), list):
            raise InvalidConfig(f"The route {setting.node!r} says {config!r}.", _EXAMPLE)
        reading = _Reading(setting)
        rules = [
            (reading.every(rule.get("if", [])), reading.arm(rule.get("arm")))
            for rule in config["rules"]
        ]
        return cls(rules, reading.arm(config.get("otherwise")))

    def choose(
        self, batch: Batch, state: RouterState | None
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Go through the rules in order."""
        rows = len(batch.ids)
        arms = np.full(rows, self._otherwise, dtype=np.intp)
        free = np.ones(rows, dtype=np.bool_)
        for holds, arm in self._rules:
            found = holds(batch.columns) & free
            arms[found] = arm
            free &= ~found
        return arms, np.ones(rows)


class _Reading:
    """Makes conditions of their declarations, for one signature."""

    def __init__(self, setting: RouteContext) -> None:
        self._node, self._arms = setting.node, setting.arms
        self._signature = setting.signature
        self._fields = {field.name: field for field in setting.signature.fields}

    def arm(self, name: Any) -> int:
        if name not in self._arms:
            known = ", ".join(self._arms)
            raise InvalidConfig(
                f"The route {self._node!r} names {name!r}, no arm.", f"Its arms are {known}."
            )
        return self._arms.index(name)

    def every(self, conditions: list[Any]) -> Holds:
        held = [self._condition(condition) for condition in conditions]
        return lambda columns: _all([holds(columns) for holds in held], len(columns))

    def _some(self, conditions: list[Any]) -> Holds:
        held = [self._condition(condition) for condition in conditions]
        return lambda columns: ~_all([~holds(columns) for holds in held], len(columns))

    def _condition(self, said: Any) -> Holds:
        if isinstance(said, Mapping) and isinstance(said.get("any"), list):
            return self._some(said["any"])
        if isinstance(said, Mapping) and isinstance(said.get("all"), list):
            return self.every(said["all"])
        if not isinstance(said, Mapping) or said.keys() != {"field", "is", "value"}:
            raise InvalidConfig(f"A condition of {self._node!r} is {said!r}.", _EXAMPLE)
        field = self._field(said["field"])
        operator, value = said["is"], said["value"]
        if operator not in _OPERATORS:
            known = ", ".join(_OPERATORS)
            raise InvalidConfig(
                f"A condition of {self._node!r} has {operator!r}.", f"There are: {known}."
            )
        if field.kind in NUMERIC:
            return self._numeric(field, operator, value)
        return self._textual(field, operator, value)

    def _field(self, name: Any) -> Field:
        field = self._fields.get(name)
        if field is None:
            hint = NameSuggestions(self._fields).hint(str(name))
            raise InvalidConfig(
                f"A condition of {self._node!r} names the field {name!r}, "
                f"which does not go through it{hint}."
            )
        if field.kind == "tensor":
            raise InvalidConfig(f"{name!r} is a tensor, which no condition of a route reads.")
        return field

    def _numeric(self, field: Field, operator: str, value: Any) -> Holds:
        place = _place(field, self._signature.numeric)
        if operator == "missing":
            missing = self._truth(field, value)
            return lambda columns: np.isnan(columns.numbers[:, place]) == missing
        if operator == "in":
            wanted = [self._number(field, one) for one in self._list(field, value)]
            return lambda columns: np.isin(columns.numbers[:, place], wanted)
        number = self._number(field, value)
        if operator == "==":
            return lambda columns: columns.numbers[:, place] == number
        if operator == "!=":
            return lambda columns: (
                (columns.numbers[:, place] != number) & ~np.isnan(columns.numbers[:, place])
            )
        if field.kind == "boolean":
            raise self._wrong(field, operator, value)
        ordered = _ORDERED[operator]
        return lambda columns: ordered(columns.numbers[:, place], number)

    def _textual(self, field: Field, operator: str, value: Any) -> Holds:
        place = _place(field, self._signature.textual)
        if operator == "missing":
            missing = self._truth(field, value)
            return lambda columns: _each(columns, place, lambda text: (text is None) == missing)
        if operator == "in":
            wanted = frozenset(self._list(field, value))
            if not all(isinstance(one, str) for one in wanted):
                raise self._wrong(field, operator, value)
            return lambda columns: _each(columns, place, wanted.__contains__)
        if operator in _ORDERED or not isinstance(value, str):
            raise self._wrong(field, operator, value)
        if operator == "==":
            return lambda columns: _each(columns, place, value.__eq__)
        return lambda columns: _each(columns, place, lambda text: text not in (None, value))

    def _number(self, field: Field, value: Any) -> float:
        try:
            if field.kind == "datetime":
                return float(timestamps.to_microseconds(msgspec.convert(value, AwareDatetime)))
            if field.kind == "boolean":
                return float(msgspec.convert(value, bool))
            return msgspec.convert(value, float)
        except msgspec.ValidationError as error:
            raise self._wrong(field, "is", value) from error

    def _truth(self, field: Field, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._wrong(field, "missing", value)
        return value

    def _list(self, field: Field, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise self._wrong(field, "in", value)
        return list(value)

    def _wrong(self, field: Field, operator: str, value: Any) -> InvalidConfig:
        return InvalidConfig(
            f"A condition of {self._node!r} says {field.name!r} {operator} {value!r}, "
            f"and it is of the kind {field.kind}.",
            "Compare it with a value of its kind; texts have no order.",
        )


def _all(held: list[NDArray[np.bool_]], rows: int) -> NDArray[np.bool_]:
    found = np.ones(rows, dtype=np.bool_)
    for one in held:
        found &= one
    return found


def _each(columns: Columns, place: int, holds: Callable[[Any], Any]) -> NDArray[np.bool_]:
    return np.array([holds(text) is True for text in columns.texts[:, place].tolist()], np.bool_)


def _place(field: Field, fields: tuple[Field, ...]) -> int:
    return [one.name for one in fields].index(field.name)


_EXAMPLE = (
    'It looks like {rules: [{if: [{field: age, is: "<", value: 25}], arm: young}], '
    "otherwise: champion}."
)
