"""
From one tensor to the values of one field.

`TensorReader.quick` accepts what is plainly right and returns None for everything else;
`exact_values` then decides value by value, by the same rules as native JSON.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import FieldProblem
from clewline.protocols.oip import tensor_data
from clewline.protocols.oip.infer_request import ParsedInferRequest
from clewline.protocols.oip.tensor_data import BYTES, FLOATS, INTEGERS, TensorMismatch
from clewline.signature.field import Field
from clewline.signature.field_rules import (
    EXACT,
    FieldRule,
    RefusedValue,
    UnrepresentableNumber,
    element_bounds,
)
from clewline.signature.json_rows import printable_json

UNSURE: Any = object()
"""What a quick reader returns for a value that the exact pass must decide."""
CONTENT_TYPES = ("np", "pd", "str", "base64", "datetime")
"""Values of `parameters.content_type`, as clients of MLServer send them."""
NULL = "null"
"""The parameter of an input of BYTES: elements equal to it are null."""
Elements = list[Any] | NDArray[Any]

_SAFE = math.nextafter(EXACT, 0.0)


class TensorReader:
    """
    Reads one tensor as one field.

    Args:
        rule: The field, and what was accepted for it.
        datatype: The datatype of the tensor, one that `field_takes`.
        content_type: The content type of the tensor, or None.
        null: The string that stands for null, or None.
    """

    def __init__(
        self, rule: FieldRule, datatype: str, content_type: str | None, null: str | None
    ) -> None:
        self.field, self.datatype, self.levels = rule.field, datatype, rule.levels
        self.is_tensor = rule.field.kind == "tensor"
        self.shape = list(rule.field.shape or ())
        self.limits = _limits(rule, datatype)
        is_whole_tensor = self.is_tensor and np.dtype(rule.field.dtype or "float64").kind in "iu"
        self._is_whole = rule.field.kind == "integer" or is_whole_tensor
        self._rule, self._null = rule, null
        self._is_base64 = content_type == "base64"
        self._is_plain_bytes = datatype == BYTES and not self._is_base64 and null is None
        self._cast = tensor_data.element_caster(datatype) if datatype != BYTES else None
        # How the elements are read if a check of type, limits and levels is the rule.
        self.plain, raw_plain = "", ""
        match rule.field.kind, datatype:
            case "category" | "text", "BYTES" if self._is_plain_bytes:
                self.plain = raw_plain = "text"
            case "number", "FP64" | "FP32" | "FP16":
                self.plain, raw_plain = "float" if datatype == "FP64" else "rounded", "float"
            case "number" | "integer", _ if datatype in INTEGERS:
                self.plain = raw_plain = "whole"
            case "boolean", "BOOL":
                self.plain = raw_plain = "truth"
        self.one = self._value_reader(self.plain)
        raw_value = self._value_reader(raw_plain)
        self.raw_one = tensor_data.one_element_reader(datatype, raw_value, UNSURE)

    def fits(self, shape: list[int], rows: int) -> bool:
        """Return whether a tensor of this shape has one value per row for so many rows."""
        if self.is_tensor:
            return shape == [rows, *self.shape]
        return shape == [rows] or shape == [rows, 1]

    def elements(self, parsed: ParsedInferRequest, place: int, rows: int) -> Elements:
        """
        Take the elements of the tensor out of its request: raw numbers as an array.

        Raises:
            TensorMismatch: The data does not fill its shape.
        """
        tensor, span = parsed.request.inputs[place], parsed.spans[place]
        if span is None:
            data = tensor.data
            if len(tensor.shape) == 1 and type(data) is list and len(data) == rows:
                return data
            return tensor_data.flat_elements(data, tensor.shape)
        if self.datatype != BYTES:
            return tensor_data.raw_array(parsed.body, span, self.datatype, prod(tensor.shape))
        strings = tensor_data.raw_strings(parsed.body, span, rows)
        try:
            return [each.decode() for each in strings] if self._is_plain_bytes else list(strings)
        except UnicodeDecodeError:
            return list(strings)  # no rule accepts bytes

    def quick_values(self, elements: Elements, rows: int) -> list[Any] | None:
        """Return one value per row if all of them are plainly right, else None."""
        if isinstance(elements, np.ndarray):
            return self._quick_array(elements, rows)
        if self.is_tensor:
            array = self._cast_array(elements)
            return None if array is None else self._quick_array(array, rows)
        if rows > 1 and (many := self._quick_many(elements)) is not None:
            return many
        one = self.one
        found = [one(value) for value in elements]
        return None if UNSURE in found else found

    def exact_values(
        self, elements: Elements, rows: int, problems: list[FieldProblem]
    ) -> list[Any]:
        """Return one value per row; add each one that is refused to `problems`."""
        values, size = tensor_data.values_of(elements, self.datatype), prod(self.shape)
        if self.is_tensor:  # the elements of a row are one value
            values = [values[row * size : (row + 1) * size] for row in range(rows)]
        found = list(map(self._judge_tensor if self.is_tensor else self._judge, values))
        for row, outcome in enumerate(found):
            if isinstance(outcome, RefusedValue):
                shown = f"array of {size}" if self.is_tensor else printable_json(values[row])
                problems.append(FieldProblem(row, self.field.name, shown, outcome.expected))
        return found

    # ---- what is plainly right

    def _value_reader(self, plain: str) -> Callable[[Any], Any]:
        """Make the quick reader of one value; closures, since attributes cost a third more."""
        nullable, (low, high), cast = self.field.nullable, self.limits, self._cast
        if plain == "text":
            levels = None if self.levels is None else frozenset(self.levels)

            def read(value: Any) -> Any:
                if type(value) is str and (levels is None or value in levels):
                    return value
                return None if value is None and nullable else UNSURE

        elif plain == "float":

            def read(value: Any) -> Any:
                if type(value) is float and low <= value <= high:
                    return value
                if type(value) is int and low <= value <= high:
                    return float(value)
                return None if nullable and (value is None or value != value) else UNSURE

        elif plain == "whole":

            def read(value: Any) -> Any:
                if type(value) is int and low <= value <= high:
                    return float(value)
                return None if value is None and nullable else UNSURE

        else:

            def read(value: Any) -> Any:
                if cast is not None and plain == "rounded" and type(value) is float:
                    rounded = cast(value)
                    if type(rounded) is float and low <= rounded <= high:
                        return rounded
                if type(value) is float and abs(value) >= EXACT:
                    return UNSURE  # may be an integer that was rounded while it was read
                outcome = self._judge(value)
                return UNSURE if isinstance(outcome, RefusedValue) else outcome

        return read

    def _quick_many(self, values: list[Any]) -> list[Any] | None:
        """Return many values if all of them are plainly right, by their types and extremes."""
        types, (low, high) = set(map(type, values)), self.limits
        match self.plain:
            case "text" if types == {str}:
                is_good = self.levels is None or set(values).issubset(self.levels)
                return values if is_good else None
            case "truth" if types == {bool}:
                return values
            case "float" if types == {float} and low <= min(values) and max(values) <= high:
                # The sum is NaN where one of them is, which neither least nor greatest need show.
                return None if math.isnan(sum(values)) else values
            case "whole" if types == {int} and low <= min(values) and max(values) <= high:
                return list(map(float, values))
        return None

    def _quick_array(self, array: NDArray[Any], rows: int) -> list[Any] | None:
        if self.datatype == "BOOL":
            if not (array <= 1).all():
                return None
            found = array.astype(bool)
        elif self.field.kind == "boolean":
            return self.quick_values(array.tolist(), rows)
        else:
            found = array.astype(np.float64)
            low, high = self.limits
            good = (found >= low) & (found <= high)
            if self._is_whole:
                good &= found == np.floor(found)
            if not good.all():
                return None if self.is_tensor else self.quick_values(array.tolist(), rows)
        shape = [rows, *self.shape] if self.is_tensor else [rows]
        return found.reshape(shape).tolist()  # type: ignore[no-any-return]

    def _cast_array(self, elements: list[Any]) -> NDArray[Any] | None:
        """Return JSON elements as an array; None if they are not plainly of the datatype."""
        assert self._cast is not None  # no field of tensors takes BYTES
        types = set(map(type, elements))
        usual: set[type] = {int} if self.datatype in INTEGERS else {int, float}
        usual = {bool} if self.datatype == "BOOL" else usual
        if not types <= usual or self.datatype in ("FP16", "FP32"):
            elements = list(map(self._cast, elements))
            if any(isinstance(member, TensorMismatch) for member in elements):
                return None
        try:
            return np.array(elements, np.float64)
        except OverflowError:
            return None

    # ---- value by value

    def _judge(self, value: Any) -> Any:
        rule = self._rule
        if value is None:
            return rule.judge(None)
        if self._cast is None:
            return self._judge_text(value)
        is_unrepresentable = isinstance(value, UnrepresentableNumber)
        is_nan = value == "NaN" if is_unrepresentable else value != value
        if is_nan and self.datatype in FLOATS:
            return rule.judge(None)
        if is_unrepresentable:
            return RefusedValue(f"finite {rule.expected}")
        member = self._cast(value)
        if isinstance(member, TensorMismatch):
            return RefusedValue(f"{rule.expected}, as {self.datatype}: {member.expected}")
        if self.field.kind == "boolean" and self.datatype != "BOOL" and member in (0, 1):
            member = bool(member)
        return rule.judge(member)

    def _judge_text(self, value: Any) -> Any:
        rule = self._rule
        if isinstance(value, UnrepresentableNumber) or not isinstance(value, str | bytes):
            return RefusedValue(rule.expected)
        if self._is_base64:
            try:
                value = binascii.a2b_base64(value, strict_mode=True)
            except ValueError:
                return RefusedValue(f"{rule.expected}, in base64")
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                return RefusedValue(f"{rule.expected}, in UTF-8")
        return rule.judge(None if value == self._null else value)

    def _judge_tensor(self, elements: list[Any]) -> Any:
        assert self._cast is not None  # no field of tensors takes BYTES
        members = list(map(self._cast, elements))
        for element in members:
            if isinstance(element, TensorMismatch):
                expected = f"{self._rule.expected}, as {self.datatype}: {element.expected}"
                return RefusedValue(expected)
        return self._rule.judge(np.array(members, object).reshape(self.shape).tolist())


def field_takes(field: Field, datatype: str) -> bool:
    """Return whether the values of a field may come as a datatype."""
    if field.kind in ("category", "text", "datetime"):
        return datatype == BYTES
    if field.kind == "tensor" and field.dtype == "bool":
        return datatype == "BOOL"
    return datatype != BYTES and (field.kind == "boolean" or datatype != "BOOL")


def datatype_of(field: Field) -> str:
    """Return the datatype that metadata states for a field."""
    if field.kind == "tensor":
        return tensor_data.datatype_of_dtype(field.dtype or "float64")
    return {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}.get(field.kind, BYTES)


def _limits(rule: FieldRule, datatype: str) -> tuple[float, float]:
    """Return the numbers between which nothing is left to decide."""
    if rule.field.kind != "tensor":
        low, high = rule.bounds or (-_SAFE, _SAFE)
    elif rule.field.dtype == "bool":
        low, high = 0.0, 1.0
    else:
        low, high = element_bounds(rule.field.dtype or "float64")
    low, high = max(low, -_SAFE), min(high, _SAFE)
    if datatype in INTEGERS:
        whole = np.iinfo(tensor_data.DTYPES[datatype])
        low, high = max(low, float(whole.min)), min(high, float(whole.max))
    return low, high
