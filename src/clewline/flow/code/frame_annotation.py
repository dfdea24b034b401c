"""What a function says that it takes: a data frame, an array, or rows."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal

Frame = Literal["polars", "pandas", "numpy", "rows"]
"""What a function is given: a data frame, an array, or a list of dicts."""

FRAMES = ("polars", "pandas", "numpy", "rows")

_ANNOTATIONS: tuple[tuple[str, Frame], ...] = (
    (r"(pl|polars)\.DataFrame", "polars"),
    (r"(pd|pandas)\.DataFrame", "pandas"),
    (r"((np|numpy)\.ndarray|(npt\.)?NDArray)\b.*", "numpy"),
    (r"list\b.*", "rows"),
)
_BY_NAME = re.compile(r"(?:dict|Mapping)\[str, (.+)\]")


def frame_of(function: Any) -> Frame | None:
    """
    Tell what a function's first parameter is annotated as; of a class, that of its `__call__`.

    A mapping of tables by name counts as what its values are.

    >>> def tidy(rows: list[dict]): ...
    >>> frame_of(tidy)
    'rows'
    """
    called = function.__call__ if isinstance(function, type) else function
    parameters = [
        each for each in inspect.signature(called).parameters.values() if each.name != "self"
    ]
    if not parameters or parameters[0].annotation is inspect.Parameter.empty:
        return None
    return _frame_named(_annotation(called, parameters[0]))


def _annotation(function: Any, parameter: inspect.Parameter) -> str:
    """The annotation as text: of a type its module and name."""
    try:
        found = typing.get_type_hints(function)[parameter.name]
    except (NameError, AttributeError, TypeError):  # a name that only a type checker imports
        found = parameter.annotation
    if typing.get_origin(found) in (dict, Mapping) and typing.get_args(found):
        found = typing.get_args(found)[-1]
    real = typing.get_origin(found) or found
    if isinstance(real, type):
        module = real.__module__.partition(".")[0]
        return real.__name__ if module == "builtins" else f"{module}.{real.__name__}"
    by_name = _BY_NAME.fullmatch(str(found))
    return by_name[1] if by_name else str(found)


def _frame_named(text: str) -> Frame | None:
    return next((frame for form, frame in _ANNOTATIONS if re.fullmatch(form, text)), None)
