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
    parameters = _parameters(cls)
    _check_known(cls, parameters, {**files, **stated})
    found = dict(stated)
    for name, parameter in parameters.items():
        if name in files or name in stated or parameter.kind in _VARIABLE:
            continue
        if not isinstance(model, type):
            found[name] = _attribute(model, name)
        elif parameter.default is parameter.empty:
            raise NotSupported(
                f"{cls.__name__} cannot be made without {name!r}.",
                f"Pass files={{{name!r}: Path(…)}} or arguments={{{name!r}: …}}.",
            )
    return {name: _checked(cls, name, value) for name, value in found.items()}


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    parameters = inspect.signature(cls).parameters
    for name, parameter in parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise NotSupported(
                f"{cls.__name__} takes {name!r} by position alone.", "Let it be given by name."
            )
    return parameters


def _check_known(cls: type, parameters: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in given:
        if name not in parameters:
            raise UsageError(
                f"{cls.__name__} has no parameter {name!r}; it takes "
                f"{', '.join(parameters) or 'none'}.",
                "Name files and arguments as the parameters of the constructor.",
            )


def _attribute(model: Any, name: str) -> Any:
    try:
        return getattr(model, name)
    except AttributeError:
        raise NotSupported(
            f"{type(model).__name__} does not keep its argument {name!r}, so it cannot be made "
            "again from its package.",
            f"Set self.{name} = {name} in the constructor, or pass arguments={{{name!r}: …}}; "
            f"a file goes to files={{{name!r}: Path(…)}}.",
        ) from None


def _checked(cls: type, name: str, value: Any) -> Any:
    if not _is_plain(value):
        raise NotSupported(
            f"The argument {name!r} of {cls.__name__} is a {type(value).__name__}, which a package "
            "does not hold.",
            "Arguments are None, booleans, finite numbers, strings, lists and dicts of such; write "
            f"anything else to a file and pass files={{{name!r}: Path(…)}}.",
        )
    return value


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
