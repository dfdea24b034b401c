"""A route by conditions on fields: the first rule that holds names the arm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import did_you_mean
from clewline.serve.graph.node import Batch
from clewline.serve.graph.problems import Problems
from clewline.serve.graph.routers.router import ArmDraws, Config, RouteContext, Router
from clewline.serve.graph.tree import plain_text
from clewline.signature.columns import Columns
from clewline.signature.field import NUMERIC, Field, Signature
from clewline.signature.field_rules import AwareDatetime
from clewline.signature.timestamps import to_microseconds
from clewline.store.records import RouterState

OPERATORS = {
    "is": "==", "not": "!=", "in": "in", "below": "<", "at_most": "<=",
    "above": ">", "at_least": ">=", "missing": "missing",
}  # fmt: skip
"""How a condition is written, and how a revision keeps it."""

ORDERED = frozenset({"<", "<=", ">", ">="})

GROUPS = ("any", "all")
"""Lists of conditions within a rule: one is enough, or all must hold."""

Condition = Callable[[Columns], NDArray[np.bool_]]

_NUMBER_TESTS: dict[str, Callable[[Any, list[float]], NDArray[np.bool_]]] = {
    "==": lambda column, values: column == values[0],
    "!=": lambda column, values: (column != values[0]) & ~np.isnan(column),
    "<": lambda column, values: column < values[0],
    "<=": lambda column, values: column <= values[0],
    ">": lambda column, values: column > values[0],
    ">=": lambda column, values: column >= values[0],
    "in": np.isin,
    "missing": lambda column, values: np.isnan(column) == values[0],
}
_TEXT_TESTS: dict[str, Callable[[str | None, list[Any]], bool]] = {
    "==": lambda text, values: text == values[0],
    "!=": lambda text, values: text is not None and text != values[0],
    "in": lambda text, values: text in values,
    "missing": lambda text, values: (text is None) == values[0],
}
_WANTED = {
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "datetime": "a date-time with an offset, such as 2026-01-31T00:00:00Z",
    "tensor": "no rule on a tensor",
}


class RulesRouter(Router):
    """
    Gives each row the arm of the first rule that holds; always the same, propensity 1.

    Config: `{"rules": [{"if": CONDITIONS, "arm": arm}, …], "otherwise": arm}`.
    CONDITIONS is a list that must hold as a whole. A condition is
    `{"field", "is", "value"}` with `is` one of ==, !=, <, <=, >, >=, in, missing;
    or `{"any": CONDITIONS}`, of which one is enough, or `{"all": CONDITIONS}`.
    A null fulfils no condition but `missing`, and no `!=`.
    """

    def __init__(self, config: Config, context: RouteContext) -> None:
        """
        Compile the conditions.

        Raises:
            InvalidEndpoint: They do not fit the rows of the route.
        """
        problems = Problems()
        self._rules = []  # each a condition and the index of its arm
        for rule in config["rules"]:
            condition = _compile_group(rule["if"], context.signature, context.node, problems)
            self._rules.append((condition, context.arms.index(rule["arm"])))
        self._otherwise = context.arms.index(config["otherwise"])
        problems.require_none(f"The graph of {context.endpoint}")

    @classmethod
    def parse(cls, settings: Config, arms: list[str], at: str, problems: Problems) -> Config:
        """Read the rules and the arm for all other rows."""
        problems.add_unknown_keys(settings, ("rules", "otherwise"), at)
        rules, otherwise = settings.get("rules"), settings.get("otherwise")
        if not isinstance(rules, list) or not rules:
            fix = "Write a list of {if: {FIELD: …}, arm: ARM}."
            problems.add_wrong_value(f"{at}.rules", rules, fix)
            rules = []
        found: list[Config] = []
        for i, rule in enumerate(rules):
            place = f"{at}.rules[{i}]"
            if not isinstance(rule, dict) or not isinstance(rule.get("if"), dict) or not rule["if"]:
                fix = "Write {if: {FIELD: {below: 25}}, arm: ARM}."
                problems.add_wrong_value(place, rule, fix)
                continue
            arm = rule.get("arm")
            problems.add_unknown_keys(rule, ("if", "arm"), place)
            if arm not in arms:
                problems.add("unknown_arm", f"{place}.arm", arm=arm, known=arms)
            conditions = _parse_conditions(rule["if"], f"{place}.if", problems)
            found.append({"if": conditions, "arm": arm})
        if otherwise not in arms:
            problems.add("unknown_arm", f"{at}.otherwise", arm=otherwise, known=arms)
        return {"rules": found, "otherwise": otherwise}

    @classmethod
    def check(cls, config: Config, signature: Signature, at: str, problems: Problems) -> None:
        """Check that the conditions name fields of the rows, with values of their kinds."""
        for rule in config.get("rules", ()):
            _compile_group(rule["if"], signature, at, problems)

    @classmethod
    def config_text(cls, config: Config) -> str:
        """
        Write the rules in one line.

        >>> rule = {"if": [{"field": "age", "is": "<", "value": 25}], "arm": "young"}
        >>> RulesRouter.config_text({"rules": [rule], "otherwise": "rest"})
        ': age < 25 → young; otherwise rest'
        """
        parts = [f"{_group_text(rule['if'], 'and')} → {rule['arm']}" for rule in config["rules"]]
        rest = f"; otherwise {config['otherwise']}" if config.get("otherwise") else ""
        return f": {'; '.join(parts)}{rest}"

    def choose(self, batch: Batch, state: RouterState | None) -> ArmDraws:
        """Go through the rules in order."""
        rows = len(batch.ids)
        arms = np.full(rows, self._otherwise, dtype=np.intp)
        free = np.ones(rows, dtype=np.bool_)
        for holds, arm in self._rules:
            found = holds(batch.columns) & free
            arms[found] = arm
            free &= ~found
        return arms, np.ones(rows)


# From the file to conditions


def _parse_conditions(mapping: Config, at: str, problems: Problems) -> list[Config]:
    """Read a mapping of fields and groups; all of it must hold."""
    found: list[Config] = []
    for key, value in mapping.items():
        place = f"{at}.{key}"
        # Another value below `any` or `all` is a condition on a field of that name.
        is_group = isinstance(value, list) and (
            not value or any(isinstance(each, dict) for each in value)
        )
        if key in GROUPS and is_group:
            if not value:
                problems.add("empty_group", place)
            members = []
            for i, member in enumerate(value):
                if not isinstance(member, dict) or not member:
                    fix = "Write {FIELD: {below: 25}}."
                    problems.add_wrong_value(f"{place}[{i}]", member, fix)
                    continue
                # Several conditions in one member must hold as a whole.
                conditions = _parse_conditions(member, f"{place}[{i}]", problems)
                members.append(conditions[0] if len(conditions) == 1 else {"all": conditions})
            found.append({key: members})
            continue
        if not isinstance(value, dict):
            value = {"in": value} if isinstance(value, list) else {"is": value}
        for operator, operand in value.items():
            if operator in OPERATORS:
                found.append({"field": key, "is": OPERATORS[operator], "value": operand})
                continue
            hint = did_you_mean(operator, OPERATORS)
            if key in GROUPS:
                hint = f"Write a list of conditions below {key}:, such as [{{FIELD: 1}}]."
            problems.add("unknown_operator", place, operator=operator, nearest=hint)
    return found


def _group_text(conditions: list[Config], word: str) -> str:
    parts = []
    for each in conditions:
        if (group := next((key for key in GROUPS if key in each), None)) is not None:
            parts.append(f"({_group_text(each[group], 'or' if group == 'any' else 'and')})")
        else:
            parts.append(f"{each['field']} {each['is']} {plain_text(each['value'])}")
    return f" {word} ".join(parts)


# From conditions to functions of columns


def _compile_group(
    conditions: list[Config],
    signature: Signature,
    at: str,
    problems: Problems,
    *,
    one: bool = False,
) -> Condition:
    """Compile conditions that must all hold, or of which one is enough."""
    compiled = [
        _compile_group(each[key], signature, at, problems, one=key == "any")
        if (key := next((key for key in GROUPS if key in each), None))
        else _compile_condition(each, signature, at, problems)
        for each in conditions
    ]
    join = np.logical_or if one else np.logical_and

    def holds(columns: Columns) -> NDArray[np.bool_]:
        found = np.full(len(columns), not one, dtype=np.bool_)
        for each in compiled:
            join(found, each(columns), out=found)
        return found

    return holds


def _compile_condition(
    condition: Config, signature: Signature, at: str, problems: Problems
) -> Condition:
    """Compile a condition on a field; if it does not fit, add that, and it never holds."""
    name, operator, value = condition["field"], condition["is"], condition["value"]
    fields = {field.name: field for field in signature.fields}
    if name not in fields:
        problems.add("rule_field", at, field=name, known=fields)
        return _never
    field = fields[name]
    is_numeric = field.kind in NUMERIC
    wanted = _WANTED.get(field.kind, "a string")
    try:
        if operator == "missing":
            wanted = "true or false"
            operands: list[Any] = [msgspec.convert(value, bool)]
        elif operator == "in" and not isinstance(value, list):
            wanted = "a list of values"
            raise ValueError(wanted)
        elif operator in ORDERED and (not is_numeric or field.kind == "boolean"):
            wanted = "is, not, in or missing: these values have no order"
            raise ValueError(wanted)
        else:
            operands = [_operand(field, each) for each in (value if operator == "in" else [value])]
        if field.kind == "tensor":
            raise ValueError(wanted)
    except (msgspec.ValidationError, ValueError, OverflowError):
        facts = {"kind": field.kind, "operator": operator, "value": value, "wanted": wanted}
        problems.add("rule_value", at, field=name, **facts)
        return _never
    if is_numeric:
        place, test = signature.numeric.index(field), _NUMBER_TESTS[operator]
        return lambda columns: test(columns.numbers[:, place], operands)
    place, text_test = signature.textual.index(field), _TEXT_TESTS[operator]
    return lambda columns: np.array(
        [text_test(text, operands) for text in columns.texts[:, place].tolist()], np.bool_
    )


def _never(columns: Columns) -> NDArray[np.bool_]:
    return np.zeros(len(columns), np.bool_)


def _operand(field: Field, value: Any) -> float | str:
    """Return a value as the columns hold it: a date-time in microseconds, true as 1."""
    if field.kind == "datetime":
        return float(to_microseconds(msgspec.convert(value, AwareDatetime)))
    if field.kind not in NUMERIC:
        return msgspec.convert(value, str)
    number = float(msgspec.convert(value, bool if field.kind == "boolean" else float))
    if field.kind == "integer" and not number.is_integer():
        raise ValueError(value)
    return number
