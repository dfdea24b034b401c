"""Arguments of a Python model's constructor, as plain values that a package can hold."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from clewline.errors import NotSupported, UsageError

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def arguments_of(model: Any, files: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """
    Find the arguments that make a model again.

    Args:
        model: An object or its class. An object keeps each argument as an attribute of
            the same name, as scikit-learn's estimators and dataclasses do.
        files: Parameters that are given files.
        stated: Arguments that were named at registration; they come before attributes.

    Returns:
        Parameter → value of JSON; those of a class that has a default are left out.

    Raises:
        UsageError: A file or an argument is no parameter of the constructor.
        NotSupported: An argument cannot be found, or is no plain value.
    """
    cls = model if isinstance(model, type) else type(model)
    who = cls.__name__
    has_none = cls.__init__ is object.__init__  # type: ignore[misc]
    parameters = {} if has_none else dict(inspect.signature(cls).parameters)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for name in () if takes_any else {**files, **stated}:
        if name not in parameters:
            raise UsageError(
                f"{who} has no parameter {name!r}; it takes {', '.join(parameters) or 'none'}.",
                "Name files and arguments as the parameters of the constructor.",
            )
    found = dict(stated)
    for name, parameter in parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise NotSupported(
                f"{who} takes {name!r} by position alone.", "Let it be given by name."
            )
        if name in files or name in stated or parameter.kind in _VARIABLE:
            continue
        if not isinstance(model, type):
            if not hasattr(model, name):
                raise NotSupported(
                    f"{who} does not keep its argument {name!r}, so it cannot be made again from "
                    "its package.",
                    f"Set self.{name} = {name} in the constructor, or pass arguments={{{name!r}: "
                    f"…}}; a file goes to files={{{name!r}: Path(…)}}.",
                )
            found[name] = getattr(model, name)
        elif parameter.default is parameter.empty:
            raise NotSupported(
                f"{who} cannot be made without {name!r}.",
                f"Pass files={{{name!r}: Path(…)}} or arguments={{{name!r}: …}}.",
            )
    for name, value in found.items():
        if not _is_plain(value):
            raise NotSupported(
                f"The argument {name!r} of {who} is a {type(value).__name__}, which a package "
                "does not hold.",
                "Arguments are None, booleans, finite numbers, strings, lists and dicts of such; "
                f"write anything else to a file and pass files={{{name!r}: Path(…)}}.",
            )
    return found


def _is_plain(value: Any) -> bool:
    """Whether JSON gives back just this value."""
    if value is None or type(value) in (bool, str):
        return True
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(type(key) is str and _is_plain(each) for key, each in value.items())
    return False
