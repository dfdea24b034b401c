"""
Conditions over an answered row, such as `probability < 0.7 and work in ["own", "state"]`.

    condition   comparisons joined by `and`, `or`, `not` and parentheses
    comparison  operands between <, <=, >, >=, ==, !=, as in 0.4 < probability <= 0.6; or
                `operand in [constant, …]`, `operand not in [constant, …]`
    operand     a constant: a number, a text in quotes, true, false, null
                label, probability (of the label) or value: of the answer
                any other name: the field of the row; row["hours per week"] for a field whose
                name is no word, or is one of those three

Null equals only null, and is neither smaller nor larger than anything. So is a text beside a
number. A condition is parsed once; no text of it is ever run as code.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from clewline.errors import InvalidConfig
from clewline.signature.field import label_name

Constant = float | str | bool | None
AnswerName = Literal["label", "probability", "value"]

ANSWER_NAMES: tuple[AnswerName, ...] = ("label", "probability", "value")
MOST_CHARACTERS = 1000

_CONSTANTS: dict[str, Constant] = {"true": True, "false": False, "null": None}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
}


class Operand(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value: of a field, of the answer, or a constant; or the constants after `in`."""

    field: str | None = None
    answer: AnswerName | None = None
    constant: Constant | tuple[Constant, ...] = None

    def value(self, answer: dict[str, Any], row: dict[str, Any]) -> Any:
        """Return the value for an answered row; null if there is none."""
        if self.field is not None:
            return row.get(self.field)
        if self.answer == "probability":
            shares = answer.get("probabilities") or {}
            return shares.get(label_name(answer.get("label")))
        return self.constant if self.answer is None else answer.get(self.answer)


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    A condition: `and`, `or` or `not` over `parts`, or comparisons of neighbouring `operands`.

    `operators` has one entry less than `operands`. A single operand holds if it is true.
    """

    join: Literal["and", "or", "not", ""] = ""
    parts: tuple[Condition, ...] = ()
    operands: tuple[Operand, ...] = ()
    operators: tuple[str, ...] = ()

    def holds(self, answer: dict[str, Any], row: dict[str, Any]) -> bool:
        """
        Say whether it holds for a prediction.

        Args:
            answer: As it was sent, decoded.
            row: As it came, decoded.
        """
        match self.join:
            case "and":
                return all(part.holds(answer, row) for part in self.parts)
            case "or":
                return any(part.holds(answer, row) for part in self.parts)
            case "not":
                return not self.parts[0].holds(answer, row)
        values = [operand.value(answer, row) for operand in self.operands]
        if not self.operators:
            return values[0] is True
        return all(map(_compare, self.operators, values, values[1:]))

    def names(self) -> Iterator[Operand]:
        """Yield the operands that are no constants, from left to right."""
        for part in self.parts:
            yield from part.names()
        yield from (each for each in self.operands if each.field or each.answer)


def parse_condition(text: str) -> Condition:
    """
    Parse a condition.

    Raises:
        InvalidConfig: It is none; says where it goes wrong.

    >>> parse_condition("probability < 0.7").holds(
    ...     {"label": "no", "probabilities": {"no": 0.6, "yes": 0.4}}, {}
    ... )
    True
    """
    if len(text) > MOST_CHARACTERS:
        raise _refusal(text[:40] + "…", f"it has more than {MOST_CHARACTERS} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _condition(tree.body)
    except SyntaxError as error:
        raise _refusal(text, f"{error.msg} at character {error.offset or 1}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise _refusal(text, str(error) or "it is nested too deeply") from error


def _refusal(text: str, reason: str) -> InvalidConfig:
    return InvalidConfig(
        f"{text!r} is not a condition: {reason}.",
        'Write comparisons, such as probability < 0.7 and work == "own".',
    )


def _condition(node: ast.expr) -> Condition:
    match node:
        case ast.BoolOp():
            join: Literal["and", "or"] = "and" if isinstance(node.op, ast.And) else "or"
            return Condition(join, tuple(map(_condition, node.values)))
        case ast.UnaryOp(op=ast.Not()):
            return Condition("not", (_condition(node.operand),))
        case ast.Compare():
            operators = tuple(_operator(each) for each in node.ops)
            sides = [node.left, *node.comparators]
            operands = [_operand(sides[0])]
            for name, side in zip(operators, sides[1:], strict=True):
                operands.append(_constants(side) if name.endswith("in") else _operand(side))
            if len(operators) > 1 and any(name.endswith("in") for name in operators):
                raise ValueError("`in` stands in a comparison of its own")
            return Condition(operands=tuple(operands), operators=operators)
    return Condition(operands=(_operand(node),))


def _operator(node: ast.cmpop) -> str:
    if type(node) not in _OPERATORS:
        raise ValueError(f"there is no operator `is`; write == or {'!='}")
    return _OPERATORS[type(node)]


def _operand(node: ast.expr) -> Operand:
    match node:
        case ast.Name(id=name) if name in _CONSTANTS:
            return Operand(constant=_CONSTANTS[name])
        case ast.Name(id=name) if name in ANSWER_NAMES:
            return Operand(answer=name)
        case ast.Name(id=name):
            return Operand(field=name)
        case ast.Subscript(value=ast.Name(id="row"), slice=ast.Constant(value=str(name))):
            return Operand(field=name)
    return Operand(constant=_constant(node))


def _constant(node: ast.expr) -> Constant:
    match node:
        case ast.Constant(value=None | bool() | str() | int() | float()):
            value: Constant = node.value  # type: ignore[assignment]
            return value
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
    raise ValueError(f"`{ast.unparse(node)}` is neither a name nor a constant")


def _constants(node: ast.expr) -> Operand:
    if not isinstance(node, ast.List | ast.Tuple):
        raise ValueError("after `in` stands a list, such as [1, 2]")
    return Operand(constant=tuple(map(_constant, node.elts)))


def _compare(name: str, left: Any, right: Any) -> bool:
    match name:
        case "==":
            return _equal(left, right)
        case "!=":
            return not _equal(left, right)
        case "in":
            return any(_equal(left, each) for each in right)
        case "not in":
            return not any(_equal(left, each) for each in right)
    comparable = (_is_number(left) and _is_number(right)) or (
        isinstance(left, str) and isinstance(right, str)
    )
    return comparable and _ORDER[name](left, right)


def _equal(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal; true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
