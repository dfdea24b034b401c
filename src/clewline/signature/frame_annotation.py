"""The annotation of a function's first parameter: a data frame, an array, or rows."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal

Frame = Literal["polars", "pandas", "numpy", "rows"]
"""The form in which a function takes a table; `rows` is a list of dicts."""

FRAMES = ("polars", "pandas", "numpy", "rows")

_ANNOTATIONS: tuple[tuple[str, Frame], ...] = (
    (r"(pl|polars)\.DataFrame", "polars"),
    (r"(pd|pandas)\.DataFrame", "pandas"),
    (r"((np|numpy)\.ndarray|(npt\.)?NDArray)\b.*", "numpy"),
    (r"list\b.*", "rows"),
)


def frame_of(function: Any) -> Frame | None:
    """
    Return the form of table that a function's first parameter, or a class's `__call__`, takes.

    A mapping of tables by name counts as its values do. None if there is no annotation,
    or an unknown one.

    >>> def tidy(rows: list[dict]): ...
    >>> frame_of(tidy)
    'rows'
    """
    called = function.__call__ if isinstance(function, type) else function
    parameters = inspect.signature(called).parameters.values()
    first = next((each for each in parameters if each.name != "self"), None)
    if first is None or first.annotation is first.empty:
        return None
    try:
        found = typing.get_type_hints(called)[first.name]
    except (NameError, AttributeError, TypeError):  # a name that only a type checker imports
        found = first.annotation
    if typing.get_origin(found) in (dict, Mapping) and typing.get_args(found):
        found = typing.get_args(found)[-1]
    real = typing.get_origin(found) or found
    text = re.sub(r"^(?:dict|Mapping)\[str, (.+)\]$", r"\1", str(found))
    if isinstance(real, type):
        module = real.__module__.partition(".")[0]
        text = real.__name__ if module == "builtins" else f"{module}.{real.__name__}"
    return next((frame for form, frame in _ANNOTATIONS if re.fullmatch(form, text)), None)
