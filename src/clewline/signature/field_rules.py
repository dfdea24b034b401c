"""
What one value of one field may be: the rules in full, value by value.

The fast passes over JSON and tables follow the same rules in bulk, and ask here about whatever
they cannot decide. A JSON literal without fraction or exponent is an exact integer; one with
them means its nearest float64, as everywhere.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from clewline.signature import timestamps
from clewline.signature.field import Field

EXACT = 2.0**53
"""Below this magnitude float64 holds every integer; from it on, not all."""

AwareDatetime = Annotated[dt.datetime, msgspec.Meta(tz=True)]
_LONGEST_TEXT = 200  # characters of a refused value that an answer repeats
_MOST_LEVELS = 20  # that a message lists


class UnrepresentableNumber(str):
    """A JSON literal, as it was written, that no float64 holds: NaN, Infinity, 1e400, 10…0."""


class RefusedValue(NamedTuple):
    """Why a value was refused: what was expected in its place."""

    expected: str


class FieldRule(msgspec.Struct, frozen=True):
    """A field, and the limits that a person has accepted for it."""

    field: Field
    bounds: tuple[float, float] | None = None
    levels: tuple[str, ...] | None = None

    def judge(self, value: Any) -> Any:
        """
        Decide on one value.

        Args:
            value: None, bool, int, float, str, date, datetime, list, array or
                `UnrepresentableNumber`.

        Returns:
            The value as a row holds it (float, bool, str, datetime with offset,
            nested lists of float or bool, None), or a `RefusedValue`.
        """
        if value is None:
            return None if self.field.nullable else RefusedValue(f"{self.expected}, not null")
        return _JUDGES[self.field.kind](self, value)

    @property
    def expected(self) -> str:
        """A description of what a value must be."""
        field = self.field
        if self.levels is not None:
            listed = ", ".join(map(repr, self.levels[:_MOST_LEVELS]))
            more = f" … ({len(self.levels)} in all)" if len(self.levels) > _MOST_LEVELS else ""
            text = f"one of {listed}{more}"
        elif field.kind == "tensor":
            text = f"array of {field.dtype}, shape {list(field.shape or ())}"
        elif self.bounds is not None:
            low, high = bounds_in_kind(field, self.bounds)
            text = f"{_DESCRIPTIONS[field.kind]} in [{low}, {high}]"
        else:
            text = _DESCRIPTIONS[field.kind]
        return f"{text} or null" if field.nullable else text

    def within_bounds(self, value: float) -> bool:
        """Return whether a number lies within the accepted bounds."""
        return self.bounds is None or self.bounds[0] <= value <= self.bounds[1]


def bounds_in_kind(field: Field, bounds: tuple[float, float]) -> tuple[Any, Any]:
    """Return bounds as values of the field's kind: integers, date-times or numbers."""
    return value_in_kind(field, bounds[0]), value_in_kind(field, bounds[1])


def value_in_kind(field: Field, value: float) -> Any:
    """Return the value that the caller sent, from the float64 that reaches the model."""
    if field.kind == "datetime":
        return timestamps.format_microseconds(value)
    if field.kind == "boolean":
        return bool(value)
    if field.kind == "integer" and float(value).is_integer():
        return int(value)
    return value


MOST_BITS = 10_000
"""Of an integer that is written in digits: Python itself writes no more than 4,300 digits."""


def printable_value(value: Any) -> Any:
    """Make any value fit to be repeated in an answer: JSON can express it, and it is short."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return f"an integer of {value.bit_length()} bits"
    return printable_text(value if isinstance(value, str) else repr(value))


def printable_text(text: str) -> str:
    """Shorten a string, and spell out its lone surrogates."""
    short = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    return short.encode("utf-8", "backslashreplace").decode("utf-8")


def _number(rule: FieldRule, value: Any) -> Any:
    if type(value) is float and -EXACT < value < EXACT:  # most values, without the tests below
        return value if rule.within_bounds(value) else RefusedValue(rule.expected)
    if isinstance(value, UnrepresentableNumber):
        return RefusedValue(f"finite {rule.expected}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return RefusedValue(rule.expected)
    if isinstance(value, int) and not float64_holds(value):
        return RefusedValue(f"{rule.expected} that a float64 holds without rounding it")
    if not math.isfinite(value):
        return RefusedValue(f"finite {rule.expected}")
    return float(value) if rule.within_bounds(value) else RefusedValue(rule.expected)


def _integer(rule: FieldRule, value: Any) -> Any:
    number = _number(rule, value)
    if isinstance(number, float) and not number.is_integer():
        return RefusedValue(rule.expected)
    return number


def _boolean(rule: FieldRule, value: Any) -> Any:
    return value if isinstance(value, bool) else RefusedValue(rule.expected)


def _text(rule: FieldRule, value: Any) -> Any:
    if not isinstance(value, str) or isinstance(value, UnrepresentableNumber):
        return RefusedValue(rule.expected)
    if not is_encodable(value):
        return RefusedValue("text without a lone surrogate")
    if rule.levels is not None and value not in rule.levels:
        return RefusedValue(rule.expected)
    return value


def _datetime(rule: FieldRule, value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = msgspec.convert(value, AwareDatetime)
        except (msgspec.ValidationError, UnicodeEncodeError):
            return RefusedValue(rule.expected)
    if not isinstance(value, dt.date):
        return RefusedValue(rule.expected)
    moment = timestamps.to_utc(value)
    count = timestamps.to_microseconds(moment)
    if not timestamps.FIRST_MOMENT <= count <= timestamps.LAST_MOMENT:
        return RefusedValue("date-time in the years 1 to 9999 of UTC")
    if not float64_holds(count):
        return RefusedValue(f"{rule.expected}; float64 rounds its fraction of a second")
    return moment if rule.within_bounds(count) else RefusedValue(rule.expected)


def _tensor(rule: FieldRule, value: Any) -> Any:
    values, dtype = value.tolist() if isinstance(value, np.ndarray) else value, rule.field.dtype
    elements = _flatten(values, rule.field.shape or ())
    if dtype == "bool":
        fits = all(isinstance(element, bool) for element in elements)
    else:
        low, high = element_bounds(dtype or "float64")
        whole = np.dtype(dtype or "float64").kind in "iu"
        fits = all(
            isinstance(element, int | float)
            and not isinstance(element, bool)
            and (isinstance(element, float) or float64_holds(element))
            and low <= element <= high
            and (not whole or float(element).is_integer())
            for element in elements
        )
    return values if fits else RefusedValue(rule.expected)


_MISSHAPEN: Any = object()
"""Stands for an element where the shape is wrong; no element test accepts it."""


def _flatten(value: Any, shape: tuple[int, ...]) -> Iterator[Any]:
    if not shape:
        yield value
    elif not isinstance(value, list) or len(value) != shape[0]:
        yield _MISSHAPEN
    else:
        for item in value:
            yield from _flatten(item, shape[1:])


def element_bounds(dtype: str) -> tuple[float, float]:
    """Return the smallest and largest float64 that `dtype` holds."""
    if np.dtype(dtype).kind in "iu":
        whole = np.iinfo(dtype)
        # float(2**63 - 1) is 2**63, which int64 does not hold.
        return float(whole.min), min(float(whole.max), math.nextafter(float(whole.max) + 1, 0))
    floating = np.finfo(dtype)
    return float(floating.min), float(floating.max)


def float64_holds(number: int) -> bool:
    """Return whether float64 holds this integer without rounding it."""
    try:
        return int(float(number)) == number
    except OverflowError:
        return False


def is_encodable(text: str) -> bool:
    """Return whether UTF-8 can hold this string: it has no lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_DESCRIPTIONS = {
    "number": "number",
    "integer": "integer",
    "boolean": "true or false",
    "category": "text",
    "text": "text",
    "datetime": "RFC 3339 date-time with an offset, such as 2024-05-01T12:00:00Z",
}
_JUDGES: dict[str, Callable[[FieldRule, Any], Any]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "category": _text,
    "text": _text,
    "datetime": _datetime,
    "tensor": _tensor,
}
