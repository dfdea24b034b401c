"""
From one tensor to the values of one field.

`Column.quick` takes what is plainly right, and gives None for everything else;
`Column.exact` then decides value by value, by the same rules as native JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clewline.errors import FieldProblem
from clewline.protocols.oip import tensor_data
from clewline.protocols.oip.infer_request import Input, Whole
from clewline.protocols.oip.tensor_data import BYTES, FLOATS, Misfit
from clewline.signature.field import Field
from clewline.signature.field_rules import (
    EXACT,
    FieldRule,
    Refusal,
    UnrepresentableNumber,
    element_bounds,
)
from clewline.signature.json_rows import printable_json

UNSURE: Any = object()
CONTENT_TYPES = ("np", "pd", "str", "base64", "datetime")
"""What `parameters.content_type` may say, as clients of MLServer send it."""
NULL = "null"
"""The parameter of an input of BYTES: elements equal to it are null."""

_SAFE = math.nextafter(EXACT, 0.0)


class Column:
    """
    Reads one tensor as one field.

    Args:
        rule: The field, and what was accepted for it.
        datatype: Of the tensor, one that `fits` the field.
        content: Its content type, or None.
        null: The text that stands for null, or None.
    """

    def __init__(
        self, rule: FieldRule, datatype: str, content: str | None, null: str | None
    ) -> None:
        self.field = rule.field
        self.shape = rule.field.shape or ()
        self.datatype = datatype
        self.plain_text = datatype == BYTES and content != "base64" and null is None
        self._rule = rule
        self._base64 = content == "base64"
        self._null = null
        self._member = tensor_data.member(datatype)
        self.limits = _limits(rule, datatype)
        self.levels = rule.levels
        self.one = self._quick_one()
        self.raw_one = self._quick_raw_one()

    def fits(self, shape: list[int], rows: int) -> bool:
        """Tell whether a tensor of this shape has one value a row for so many rows."""
        if self.field.kind == "tensor":
            return shape == [rows, *self.shape]
        return shape == [rows] or shape == [rows, 1]

    def quick(self, whole: Whole, place: int, rows: int) -> list[Any] | None:
        """Give a value a row where all are plainly right, else None."""
        tensor, raw = whole.request.inputs[place], whole.places[place]
        if not self.fits(tensor.shape, rows):
            return None
        try:
            if self.field.kind == "tensor":
                return self._quick_tensor(whole, tensor, raw)
            if raw is not None and self.datatype != BYTES and rows > 1:
                return self._quick_raw(whole.body, raw, rows)
            values = self._elements(whole, tensor, raw, rows)
        except Misfit:
            return None
        return self.settle(values)

    def settle(self, values: list[Any]) -> list[Any] | None:
        """Give values as a row holds them where all are plainly right, else None."""
        if len(values) > 1 and (found := self._quick_many(values)) is not None:
            return found
        one = self.one
        found = [one(value) for value in values]
        return None if UNSURE in found else found

    def exact(self, whole: Whole, place: int, rows: int, problems: list[FieldProblem]) -> list[Any]:
        """
        Give a value a row; adds every one that is refused to `problems`.

        Raises:
            Misfit: The data does not fill its shape.
        """
        tensor, raw = whole.request.inputs[place], whole.places[place]
        if self.field.kind == "tensor":
            return self._exact_tensor(whole, tensor, raw, rows, problems)
        values = self._elements(whole, tensor, raw, rows)
        return self.judged(values, problems)

    def judged(self, values: Sequence[Any], problems: list[FieldProblem]) -> list[Any]:
        """Decide on values one by one; otherwise as `exact`."""
        found = [self._judge(value) for value in values]
        for row, (value, outcome) in enumerate(zip(values, found, strict=True)):
            if isinstance(outcome, Refusal):
                said = printable_json(value)
                problems.append(FieldProblem(row, self.field.name, said, outcome.expected))
        return found

    def _elements(
        self, whole: Whole, tensor: Input, raw: tuple[int, int] | None, rows: int
    ) -> list[Any]:
        if raw is None:
            data = tensor.data
            if len(tensor.shape) == 1 and type(data) is list and len(data) == rows:
                return data
            return tensor_data.flat(data, tensor.shape)
        if self.datatype == BYTES:
            found = tensor_data.raw_elements(whole.body, *raw, rows)
            return self._texts(found) if self.plain_text else list(found)
        return tensor_data.raw_values(whole.body, *raw, self.datatype, rows)

    def _texts(self, elements: list[bytes]) -> list[Any]:
        """Decode what is UTF-8; the rest stays bytes, which no rule accepts."""
        try:
            return [element.decode() for element in elements]
        except UnicodeDecodeError:
            return list(elements)

    # ---- what is plainly right

    def _quick_one(self) -> Callable[[Any], Any]:
        """Make the reader of one value; it gives UNSURE for what needs the exact pass."""
        kind, nullable = self.field.kind, self.field.nullable
        if self.datatype == BYTES:
            if self.plain_text and kind != "datetime":
                return _quick_text(nullable, self._rule.levels)
            return self._quick_judged
        if self.datatype == "FP64" and kind == "number":
            return _quick_float(nullable, *self.limits)
        if self.datatype not in (*FLOATS, "BOOL") and kind in ("number", "integer"):
            return _quick_whole(nullable, *self.limits)
        return self._quick_judged

    def _quick_raw_one(self) -> Callable[[bytes, int, int], Any]:
        """Make the reader of the one raw value between two places of a body."""
        one = self.one
        if self.datatype != BYTES:
            return tensor_data.raw_reader(self.datatype, one, UNSURE)

        return tensor_data.raw_text_reader(one, UNSURE)

    def _quick_judged(self, value: Any) -> Any:
        if type(value) is float and abs(value) >= EXACT:
            return UNSURE  # may be an integer that was rounded while it was read
        outcome = self._judge(value)
        return UNSURE if isinstance(outcome, Refusal) else outcome

    def _quick_many(self, values: list[Any]) -> list[Any] | None:
        types = set(map(type, values))
        if self.plain_text and types == {str} and self.field.kind != "datetime":
            levels = self._rule.levels
            return values if levels is None or set(values).issubset(levels) else None
        if self.field.kind == "boolean" and types == {bool}:
            return values
        if self.field.kind not in ("number", "integer") or len(types) > 1:
            return None
        low, high = self.limits
        if types == {float} and (self.datatype, self.field.kind) == ("FP64", "number"):
            # The sum is NaN where one of them is, which neither least nor greatest need show.
            good = low <= min(values) and max(values) <= high and not math.isnan(sum(values))
            return values if good else None
        if types == {int} and self.datatype not in FLOATS:
            return list(map(float, values)) if low <= min(values) and max(values) <= high else None
        return None

    def _quick_raw(self, body: bytes, raw: tuple[int, int], rows: int) -> list[Any] | None:
        if self.field.kind == "boolean":
            return self.settle(tensor_data.raw_values(body, *raw, self.datatype, rows))
        array = tensor_data.raw_array(body, *raw, self.datatype, rows)
        low, high = self.limits
        wide = array.astype(np.float64)
        good = (wide >= low) & (wide <= high)
        if self.field.kind == "integer" and self.datatype in FLOATS:
            good &= wide == np.floor(wide)
        if good.all():
            return wide.tolist()  # type: ignore[no-any-return]
        return self.settle(array.tolist())

    def _quick_tensor(
        self, whole: Whole, tensor: Input, raw: tuple[int, int] | None
    ) -> list[Any] | None:
        array = self._array(whole, tensor, raw)
        if array is None:
            return None
        if self.datatype == "BOOL":
            good = bool((array <= 1).all()) if raw is not None else True
            return array.astype(bool).tolist() if good else None
        wide = array.astype(np.float64)
        low, high = self.limits
        good = (wide >= low) & (wide <= high) & (np.abs(wide) < EXACT)
        if np.dtype(self.field.dtype or "float64").kind in "iu":
            good &= wide == np.floor(wide)
        return wide.tolist() if good.all() else None

    def _array(
        self, whole: Whole, tensor: Input, raw: tuple[int, int] | None
    ) -> np.ndarray[Any, Any] | None:
        """Give the elements in their shape; None where they are not plainly of the datatype."""
        size = tensor_data.size_of(tensor.shape)
        if raw is not None:
            return tensor_data.raw_array(whole.body, *raw, self.datatype, size).reshape(
                tensor.shape
            )
        elements = tensor_data.flat(tensor.data, tensor.shape)
        types = set(map(type, elements))
        usual = {bool} if self.datatype == "BOOL" else {int, float}
        if not types <= usual or self.datatype in ("FP16", "FP32"):
            members = [self._member(element) for element in elements]
            if any(isinstance(member, Misfit) for member in members):
                return None
            elements = members
        elif self.datatype not in (*FLOATS, "BOOL") and types != {int}:
            return None
        try:
            return np.array(elements, np.float64).reshape(tensor.shape)
        except OverflowError:
            return None

    # ---- value by value

    def _judge(self, value: Any) -> Any:
        if value is None:
            return self._rule.judge(None)
        if self.datatype == BYTES:
            return self._judge_text(value)
        if self.datatype in FLOATS and _is_nan(value):
            return self._rule.judge(None)
        if isinstance(value, UnrepresentableNumber):
            return Refusal(f"finite {self._rule.expected}")
        member = self._member(value)
        if isinstance(member, Misfit):
            return Refusal(f"{self._rule.expected}, as {self.datatype}: {member.expected}")
        if self.field.kind == "boolean" and self.datatype != "BOOL" and member in (0, 1):
            member = bool(member)
        return self._rule.judge(member)

    def _judge_text(self, value: Any) -> Any:
        if isinstance(value, UnrepresentableNumber) or not isinstance(value, str | bytes):
            return Refusal(self._rule.expected)
        if self._base64:
            decoded = tensor_data.from_base64(value)
            if decoded is None:
                return Refusal(f"{self._rule.expected}, in base64")
            value = decoded
        text = value if isinstance(value, str) else tensor_data.as_text(value)
        if text is None:
            return Refusal(f"{self._rule.expected}, in UTF-8")
        return self._rule.judge(None if text == self._null else text)

    def _exact_tensor(
        self,
        whole: Whole,
        tensor: Input,
        raw: tuple[int, int] | None,
        rows: int,
        problems: list[FieldProblem],
    ) -> list[Any]:
        """Decide row by row, since a row's elements are one value."""
        size = tensor_data.size_of(self.shape)
        if raw is None:
            elements = tensor_data.flat(tensor.data, tensor.shape)
        else:
            elements = tensor_data.raw_values(whole.body, *raw, self.datatype, rows * size)
        found = []
        for row in range(rows):
            part = elements[row * size : (row + 1) * size]
            outcome = self._judge_tensor(part)
            found.append(outcome)
            if isinstance(outcome, Refusal):
                said = f"array of {size}"
                problems.append(FieldProblem(row, self.field.name, said, outcome.expected))
        return found

    def _judge_tensor(self, elements: list[Any]) -> Any:
        members = [self._member(element) for element in elements]
        for element in members:
            if isinstance(element, Misfit):
                return Refusal(f"{self._rule.expected}, as {self.datatype}: {element.expected}")
        return self._rule.judge(_folded(members, self.shape))


def fits(field: Field, datatype: str) -> bool:
    """Tell whether a field's values may come as a datatype."""
    if field.kind in ("category", "text", "datetime"):
        return datatype == BYTES
    if field.kind == "tensor" and field.dtype == "bool":
        return datatype == "BOOL"
    if field.kind == "boolean":
        return datatype != BYTES
    return datatype in tensor_data.NUMBERS


def datatype_of(field: Field) -> str:
    """Name the datatype that a field's values have in metadata."""
    if field.kind == "tensor":
        return tensor_data.datatype_of(field.dtype or "float64")
    return {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}.get(field.kind, BYTES)


def _limits(rule: FieldRule, datatype: str) -> tuple[float, float]:
    """Between which numbers nothing is left to decide."""
    if rule.field.kind == "tensor":
        dtype = rule.field.dtype or "float64"
        low, high = (0.0, 1.0) if dtype == "bool" else element_bounds(dtype)
    else:
        low, high = rule.bounds or (-_SAFE, _SAFE)
    low, high = max(low, -_SAFE), min(high, _SAFE)
    if datatype in tensor_data.DTYPES and datatype not in (*FLOATS, "BOOL"):
        whole = np.iinfo(tensor_data.DTYPES[datatype])
        low, high = max(low, float(whole.min)), min(high, float(whole.max))
    return low, high


def _quick_float(nullable: bool, low: float, high: float) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is float and low <= value <= high:
            return value
        if type(value) is int and low <= value <= high:
            return float(value)
        if nullable and (value is None or value != value):
            return None
        return UNSURE

    return read


def _quick_whole(nullable: bool, low: float, high: float) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is int and low <= value <= high:
            return float(value)
        return None if value is None and nullable else UNSURE

    return read


def _quick_text(nullable: bool, levels: tuple[str, ...] | None) -> Callable[[Any], Any]:
    known = None if levels is None else frozenset(levels)

    def read(value: Any) -> Any:
        if type(value) is str and (known is None or value in known):
            return value
        return None if value is None and nullable else UNSURE

    return read


def _is_nan(value: Any) -> bool:
    return (isinstance(value, UnrepresentableNumber) and value == "NaN") or (
        isinstance(value, float) and math.isnan(value)
    )


def _folded(elements: list[Any], shape: tuple[int, ...]) -> Any:
    """Nest the elements of one row as its shape says."""
    if not shape:
        return elements[0]
    if len(shape) == 1:
        return elements
    step = tensor_data.size_of(shape[1:])
    return [_folded(elements[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]
