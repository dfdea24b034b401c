"""Parameters of a pipeline: from `key=value` words to typed values, and to the record and back."""

from __future__ import annotations

import difflib
import enum
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import msgspec

from clewline.errors import NotStorable, UsageError
from clewline.flow.definition import PipelineDefinition, resolved_hints
from clewline.flow.utf8 import is_utf8

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def parse_params(pipeline: PipelineDefinition, words: Sequence[str]) -> dict[str, Any]:
    """
    Read `key=value` words by the annotations of a pipeline.

    Understood are int, float, bool, str, Path, Literal, Enum, Optional and other
    unions, and lists, tuples, sets and dicts of these (as JSON, or a list as
    `a,b,c`). A parameter without annotation takes the type of its default.

    Raises:
        UsageError: A word is no `key=value`, a parameter is unknown, missing or
            given twice, or a value does not fit.
    """
    given: dict[str, Any] = {}
    hints = resolved_hints(pipeline.fn)
    for word in words:
        name, value = _split(pipeline, word)
        if name in given:
            raise _wrong(pipeline, f"the parameter {name!r} is given twice")
        parameter = _parameter(pipeline, name)
        given[parameter.name] = _parse(pipeline, parameter.name, value, _hint(parameter, hints))
    _refuse_missing(pipeline, given)
    return given


def describe_signature(pipeline: PipelineDefinition) -> str:
    """The call as text: `income(data: Path, trees: int = 100)`."""
    parameters = pipeline.signature.parameters.values()
    return f"{pipeline.name}({', '.join(_text(each) for each in parameters)})"


NOT_FINITE = ("nan", "inf", "-inf")
"""Numbers that JSON has not, as texts."""


def to_record(params: Mapping[str, Any]) -> dict[str, Any]:
    """
    Parameters as the catalog keeps them: plain JSON values.

    Raises:
        NotStorable: A value has no such form.
    """
    return {name: _plain(name, value) for name, value in params.items()}


def from_record(pipeline: PipelineDefinition, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Typed parameters from the catalog's form."""
    hints = resolved_hints(pipeline.fn)
    found: dict[str, Any] = {}
    for name, value in recorded.items():
        parameter = _parameter(pipeline, name)
        found[name] = _typed(value, _hint(parameter, hints))
    return found


def _split(pipeline: PipelineDefinition, word: str) -> tuple[str, str]:
    name, sign, value = word.partition("=")
    if not sign or not name:
        raise _wrong(pipeline, f"{word!r} is no key=value")
    return name.strip(), value


def _parameter(pipeline: PipelineDefinition, name: str) -> inspect.Parameter:
    known = pipeline.signature.parameters
    for candidate in (name, name.replace("-", "_")):
        if candidate in known and known[candidate].kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            return known[candidate]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f", the nearest is {near[0]!r}" if near else ""
    raise _wrong(pipeline, f"there is no parameter {name!r}{hint}")


def _refuse_missing(pipeline: PipelineDefinition, given: Mapping[str, Any]) -> None:
    missing = [
        each.name
        for each in pipeline.signature.parameters.values()
        if each.default is inspect.Parameter.empty
        and each.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        and each.name not in given
    ]
    if missing:
        names = ", ".join(repr(name) for name in missing)
        raise _wrong(pipeline, f"no value is given for {names}")


def _wrong(pipeline: PipelineDefinition, what: str) -> UsageError:
    return UsageError(
        f"Pipeline {pipeline.name!r}: {what}.",
        f"It is called as {describe_signature(pipeline)}; write parameters as key=value.",
    )


def _text(parameter: inspect.Parameter) -> str:
    hint = parameter.annotation
    text = parameter.name
    if hint is not inspect.Parameter.empty:
        text += f": {hint if isinstance(hint, str) else _name(hint)}"
    if parameter.default is not inspect.Parameter.empty:
        text += f" = {parameter.default!r}"
    return text


def _hint(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    hint = hints.get(parameter.name, Any)
    default = parameter.default
    if hint is Any and default is not inspect.Parameter.empty and default is not None:
        return Path if isinstance(default, Path) else type(default)
    return hint


def _name(hint: Any) -> str:
    if hint is type(None):
        return "None"
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(each) for each in typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " or ".join(repr(each.name) for each in hint)
    if _is_union(hint):
        return " or ".join(_name(arm) for arm in typing.get_args(hint))
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "")


def _parse(pipeline: PipelineDefinition, name: str, text: str, hint: Any) -> Any:
    try:
        return read_text(text, hint)
    except (ValueError, msgspec.DecodeError) as error:
        raise _wrong(
            pipeline, f"{name}={text!r} does not fit: {_name(hint)} is expected"
        ) from error


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def read_text(text: str, hint: Any) -> Any:
    """Read one word as the type that an annotation names; ValueError when it does not fit."""
    if _is_union(hint):
        return _first_arm(text, typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return _one_of(text, {str(each): each for each in typing.get_args(hint)})
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        named = {each.name: each for each in hint}
        return _one_of(text, {**{str(each.value): each for each in hint}, **named})
    if reader := _READERS.get(hint):
        return reader(text)
    if _container(hint) is not None:
        return _typed(_items(text, hint), hint)
    raise ValueError(f"a value of type {_name(hint)} cannot be written as one word")


def _first_arm(text: str, arms: tuple[Any, ...]) -> Any:
    if type(None) in arms and text.lower() in ("none", "null", ""):
        return None
    # Text takes anything, so it is tried last: `int | str` reads 5 as a number.
    for arm in sorted(arms, key=lambda arm: arm is str):
        if arm is type(None):
            continue
        try:
            return read_text(text, arm)
        except (ValueError, msgspec.DecodeError):
            continue
    raise ValueError(text)


def _one_of(text: str, choices: Mapping[str, Any]) -> Any:
    if text not in choices:
        raise ValueError(text)
    return choices[text]


def _bool(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _none(text: str) -> None:
    if text.lower() not in ("none", "null", ""):
        raise ValueError(text)


def _anything(text: str) -> Any:
    """Without a type: JSON where it is JSON, otherwise the text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


_READERS: dict[Any, Callable[[str], Any]] = {
    bool: _bool,
    int: int,
    float: float,
    str: str,
    Path: lambda text: Path(text).expanduser(),
    Any: _anything,
    object: _anything,
    type(None): _none,
}


def _container(hint: Any) -> type | None:
    origin = typing.get_origin(hint) or hint
    kinds: tuple[type, ...] = (dict, list, tuple, set, frozenset)
    if not isinstance(origin, type) or origin in kinds:
        return next((kind for kind in kinds if kind is origin), None)
    if issubclass(origin, Mapping):
        return dict
    return list if issubclass(origin, Sequence) else None


def _items(text: str, hint: Any) -> Any:
    if text[:1] in ("[", "{"):
        return msgspec.json.decode(text)
    if _container(hint) is dict:
        raise ValueError(text)
    arms = [arm for arm in typing.get_args(hint) if arm is not Ellipsis] or [_anything_hint]
    words = text.split(",") if text else []
    return [read_text(word.strip(), arms[min(i, len(arms) - 1)]) for i, word in enumerate(words)]


_anything_hint = Any


def _typed(value: Any, hint: Any) -> Any:
    """A JSON value as the type that an annotation names."""
    if value is None or hint is Any:
        return value
    if _is_union(hint):
        return _typed_arm(value, typing.get_args(hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value if isinstance(value, hint) else hint[value]
    if hint is Path:
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and value in NOT_FINITE:
        return float(value)
    if isinstance(hint, type) and hint in (int, float, bool, str) and type(value) is not hint:
        raise ValueError(value)
    kind = _container(hint)
    return value if kind is None or isinstance(value, str) else _typed_items(value, hint, kind)


def _typed_arm(value: Any, arms: tuple[Any, ...]) -> Any:
    for arm in sorted(arms, key=lambda arm: arm is Path):
        try:
            typed = _typed(value, arm)
        except (ValueError, KeyError, TypeError):
            continue
        if not isinstance(arm, type) or isinstance(typed, arm):
            return typed
    raise ValueError(value)


def _typed_items(value: Any, hint: Any, kind: type) -> Any:
    arms = typing.get_args(hint)
    if kind is dict:
        inner = arms[1] if len(arms) == 2 else Any
        return {key: _typed(each, inner) for key, each in value.items()}
    if kind is tuple and arms and arms[-1] is not Ellipsis:
        if len(value) != len(arms):
            raise ValueError(value)
        return tuple(_typed(each, arm) for each, arm in zip(value, arms, strict=True))
    inner = arms[0] if arms else Any
    return kind(_typed(each, inner) for each in value)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Path):
        return _plain(name, str(value))
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {_plain(name, key): _plain(name, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(name, each) for each in value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # one of NOT_FINITE
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise NotStorable(
            f"The pipeline parameter {name!r} is {value}, which 64 bits do not hold.",
            "Give it as text, or as a float.",
        )
    if isinstance(value, str) and not is_utf8(value):
        raise NotStorable(
            f"The pipeline parameter {name!r} is {value!a}, which is not valid UTF-8.",
            "Rename the file, or spell the value in UTF-8.",
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise NotStorable(
        f"The pipeline parameter {name!r} is a {type(value).__name__}, which cannot be recorded "
        "as a parameter.",
        "Give a number, text, Path, Literal, Enum or a list of these, and make the value in a "
        "step.",
    )
