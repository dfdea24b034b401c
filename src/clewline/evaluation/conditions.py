"""
Conditions on the columns of a table, as text: `sex == 'Female' and 20 <= age < 30`.

They are written as in Python: `==`, `!=`, `<`, `<=`, `>`, `>=`, `in [...]`, `not in [...]`,
`is None`, `is not None`, `and`, `or`, `not`, parentheses. A name that Python would not take stands
in backticks. A null meets `is None` alone. Nothing is executed.
"""

from __future__ import annotations

import ast
import datetime as dt
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.evaluation.columns import EvaluatedColumn, EvaluatedColumns, require_column
from clewline.signature import timestamps

Mask = NDArray[np.bool_]
_EXAMPLE = "Write it like `sex == 'Female' and age >= 30`; put names with a hyphen in backticks."
_ORDERED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}


def rows_that_meet(condition: str, columns: EvaluatedColumns, rows: int) -> Mask:
    """
    Return which rows meet a condition, shape (n,).

    Args:
        condition: The text.
        columns: The table.
        rows: Its number of rows, n.

    Raises:
        InvalidInput: The text is not a condition, names no column, or compares a column with a
            value of another kind.
    """
    quoted: list[str] = []

    def keep(found: re.Match[str]) -> str:
        quoted.append(found.group(1))
        return f"_quoted_{len(quoted) - 1}_"

    try:
        tree = ast.parse(re.sub(r"`([^`]*)`", keep, condition).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidInput(f"The condition {condition!r} cannot be read.", _EXAMPLE) from error
    return _Reader(condition, columns, rows, quoted).mask(tree.body)


class _Reader:
    def __init__(
        self, condition: str, columns: EvaluatedColumns, rows: int, quoted: list[str]
    ) -> None:
        self.condition, self.columns, self.rows, self.quoted = condition, columns, rows, quoted

    def mask(self, node: ast.expr) -> Mask:
        if isinstance(node, ast.BoolOp):
            masks = np.stack([self.mask(each) for each in node.values])
            is_and = isinstance(node.op, ast.And)
            return np.asarray(masks.all(axis=0) if is_and else masks.any(axis=0))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.mask(node.operand)
        if isinstance(node, ast.Name):
            return self._equal(self._column(node), [True])
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = zip(sides, node.ops, sides[1:], strict=False)
            return np.asarray(np.all([self._compare(*part) for part in parts], axis=0))
        raise self._refusal()

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Mask:
        kind = type(op)
        if not isinstance(left, ast.Name):
            left, right, kind = right, left, _FLIPPED.get(kind, kind)
            if isinstance(op, ast.In | ast.NotIn | ast.Is | ast.IsNot):
                raise self._refusal()
        if not isinstance(left, ast.Name):
            raise self._refusal()
        column, value = self._column(left), self._constant(right)
        if issubclass(kind, ast.Is | ast.IsNot):
            if value is not None:
                raise self._refusal()
            return column.is_null if issubclass(kind, ast.Is) else ~column.is_null
        if issubclass(kind, ast.In | ast.NotIn):
            if not isinstance(value, list | tuple | set):
                raise self._refusal()
            inside = self._equal(column, list(value))
            return inside if issubclass(kind, ast.In) else ~inside & ~column.is_null
        if issubclass(kind, ast.Eq | ast.NotEq):
            same = self._equal(column, [value])
            return same if issubclass(kind, ast.Eq) else ~same & ~column.is_null
        if not column.is_numeric:
            raise InvalidInput(
                f"{column.name!r} in {self.condition!r} holds texts, which have no order.",
                "Use ==, !=, in or not in.",
            )
        return np.asarray(_ORDERED[kind](column.values, self._number(column, value)))

    def _equal(self, column: EvaluatedColumn, values: list[Any]) -> Mask:
        if not column.is_numeric:
            for value in values:
                if not isinstance(value, str | bool):
                    raise self._kind_refusal(column, value)
            return np.isin(column.values, column.codes_of(values))
        return np.isin(column.values, [self._number(column, value) for value in values])

    def _number(self, column: EvaluatedColumn, value: Any) -> float:
        if column.is_datetime and isinstance(value, str):
            try:
                moment = dt.datetime.fromisoformat(value)
            except ValueError as error:
                raise self._kind_refusal(column, value) from error
            return float(timestamps.to_microseconds(moment))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._kind_refusal(column, value)
        return float(value)

    def _column(self, node: ast.Name) -> EvaluatedColumn:
        found = re.fullmatch(r"_quoted_(\d+)_", node.id)
        return require_column(self.columns, self.quoted[int(found[1])] if found else node.id)

    def _constant(self, node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except ValueError as error:
            raise self._refusal() from error

    def _refusal(self) -> InvalidInput:
        return InvalidInput(
            f"The condition {self.condition!r} does not compare columns with values.", _EXAMPLE
        )

    def _kind_refusal(self, column: EvaluatedColumn, value: Any) -> InvalidInput:
        kind = "numbers"
        if not column.is_numeric:
            kind = "texts or booleans"
        elif column.is_datetime:
            kind = "date-times (ISO 8601)"
        return InvalidInput(
            f"{self.condition!r} compares {column.name!r} with {value!r}, and the column holds "
            f"{kind}."
        )
