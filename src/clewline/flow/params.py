"""Parameters of a pipeline: read from `key=value`, and written to the record and back."""

from __future__ import annotations

import difflib
import enum
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import msgspec

from clewline.errors import NotStorable, UsageError
from clewline.flow.step import path_parameters, resolved_hints
from clewline.store.records import is_utf8

NOT_FINITE = ("nan", "inf", "-inf")
"""Numbers that JSON cannot hold; the record holds them as strings."""

_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_NONE = ("none", "null", "")


class PipelineDefinition:
    """A function made of steps, with its name; `pipeline.Pipeline` can also run it."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self.fn = fn
        self.name = name

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The parameters of the function."""
        return inspect.signature(self.fn)

    @functools.cached_property
    def parameters(self) -> dict[str, tuple[inspect.Parameter, Any]]:
        """The parameters that can be given by name, each with its type."""
        hints, found = resolved_hints(self.fn), {}
        for name, each in self.signature.parameters.items():
            hint = hints.get(name, Any)
            if hint is Any and each.default is not each.empty and each.default is not None:
                hint = Path if isinstance(each.default, Path) else type(each.default)
            if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
                found[name] = (each, hint)
        return found

    def error(self, what: str) -> UsageError:
        """Return the error for a call that does not fit the parameters."""
        return UsageError(
            f"Pipeline {self.name!r}: {what}.",
            f"Its signature is {describe_signature(self)}. Write parameters as key=value.",
        )


def describe_signature(pipeline: PipelineDefinition) -> str:
    """Return the signature as a string: `income(data: Path, trees: int = 100)`."""
    texts = []
    for each in pipeline.signature.parameters.values():
        hint, text = each.annotation, each.name
        if hint is not each.empty:
            text += f": {hint if isinstance(hint, str) else _type_name(hint)}"
        texts.append(text if each.default is each.empty else f"{text} = {each.default!r}")
    return f"{pipeline.name}({', '.join(texts)})"


def parse_params(pipeline: PipelineDefinition, words: Sequence[str]) -> dict[str, Any]:
    """
    Read `key=value` words by the annotations of a pipeline.

    Supported types are int, float, bool, str, Path, Literal, Enum, Optional and other
    unions, and lists, tuples, sets and dicts of these (as JSON, or a list as
    `a,b,c`). A parameter without annotation takes the type of its default.

    Raises:
        UsageError: A word is not `key=value`, a parameter is unknown, missing or
            given twice, or a value does not fit.
    """
    given: dict[str, Any] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise pipeline.error(f"{word!r} is not key=value")
        name, hint = _find(pipeline, key.strip())
        if name in given:
            raise pipeline.error(f"the parameter {name!r} is given twice")
        try:
            given[name] = _from_text(text, hint)
        except (ValueError, msgspec.DecodeError) as error:
            raise pipeline.error(f"{name}={text!r} is not of type {_type_name(hint)}") from error
    missing = [
        repr(name)
        for name, (each, _) in pipeline.parameters.items()
        if each.default is each.empty and name not in given
    ]
    if missing:
        raise pipeline.error(f"no value is given for {', '.join(missing)}")
    return given


def complete_params(
    pipeline: PipelineDefinition, params: Mapping[str, Any], seed: int | None
) -> dict[str, Any]:
    """
    Return all parameters: defaults and the run's seed filled in, `Path` where annotated.

    Raises:
        UsageError: The parameters do not fit, or the seed has more than 64 bits.
    """
    if seed is not None and not -(2**63) <= seed < 2**63:
        raise UsageError(f"The seed {seed} is too large.", "Use a seed of at most 18 digits.")
    given = dict(params)
    if seed is not None and "seed" in pipeline.signature.parameters:
        given.setdefault("seed", seed)
    try:
        bound = pipeline.signature.bind(**given)
    except TypeError as error:
        raise UsageError(
            f"The parameters do not fit the pipeline {pipeline.name!r}: {error}.",
            f"Its signature is {describe_signature(pipeline)}.",
        ) from error
    bound.apply_defaults()
    paths = path_parameters(pipeline.fn)
    return {
        name: Path(value) if name in paths and isinstance(value, str) else value
        for name, value in bound.arguments.items()
    }


def to_record(params: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return parameters as the catalog keeps them: plain JSON values.

    Raises:
        NotStorable: A value has no such form.
    """
    return {name: _to_plain(name, value) for name, value in params.items()}


def from_record(pipeline: PipelineDefinition, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return typed parameters from the catalog's form."""
    return {name: _from_plain(value, _find(pipeline, name)[1]) for name, value in recorded.items()}


def _find(pipeline: PipelineDefinition, key: str) -> tuple[str, Any]:
    """Return the name and type of the parameter that a key names; `-` may stand for `_`."""
    for name in (key, key.replace("-", "_")):
        if name in pipeline.parameters:
            return name, pipeline.parameters[name][1]
    near = difflib.get_close_matches(key, pipeline.parameters, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise pipeline.error(f"there is no parameter {key!r}{hint}")


# Types


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def _type_name(hint: Any) -> str:
    if hint is type(None):
        return "None"
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if _is_enum(hint):
        return " or ".join(repr(each.name) for each in hint)
    if _is_union(hint):
        return " or ".join(map(_type_name, typing.get_args(hint)))
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "")


def _container(hint: Any) -> type | None:
    origin = typing.get_origin(hint) or hint
    if origin in (dict, list, tuple, set, frozenset) or not isinstance(origin, type):
        return origin if isinstance(origin, type) else None
    if issubclass(origin, Mapping):
        return dict
    return list if issubclass(origin, Sequence) else None


# From a word of the command line


def _from_text(text: str, hint: Any) -> Any:
    """Read one word as the type that an annotation names; ValueError if it does not fit."""
    if _is_union(hint):
        arms = typing.get_args(hint)
        if type(None) in arms and text.lower() in _NONE:
            return None
        # Any word is a str, so str is tried last: `int | str` reads 5 as a number.
        ordered = sorted((arm for arm in arms if arm is not type(None)), key=lambda arm: arm is str)
        return _first_fit(lambda arm: _from_text(text, arm), ordered)
    if typing.get_origin(hint) is Literal:
        return _choice(text, {str(each): each for each in typing.get_args(hint)})
    if _is_enum(hint):
        by_value = {str(each.value): each for each in hint}
        return _choice(text, by_value | {each.name: each for each in hint})
    if reader := _READERS.get(hint):
        return reader(text)
    kind = _container(hint)
    if kind is None:
        raise ValueError(f"one word cannot hold a value of type {_type_name(hint)}")
    if text[:1] in ("[", "{"):
        return _from_plain(msgspec.json.decode(text), hint)
    if kind is dict:
        raise ValueError(text)
    arms = tuple(arm for arm in typing.get_args(hint) if arm is not Ellipsis) or (Any,)
    words = [word.strip() for word in text.split(",")] if text else []
    items = [_from_text(word, arms[min(i, len(arms) - 1)]) for i, word in enumerate(words)]
    return _from_plain(items, hint)


def _first_fit(read: Callable[[Any], Any], arms: Sequence[Any]) -> Any:
    for arm in arms:
        try:
            return read(arm)
        except (ValueError, KeyError, TypeError, msgspec.DecodeError):
            continue
    raise ValueError("the value fits no type of the union")


def _choice(text: str, choices: Mapping[str, Any]) -> Any:
    if text not in choices:
        raise ValueError(text)
    return choices[text]


def _anything(text: str) -> Any:
    """Read a word without a type: as JSON if it is JSON, otherwise as a string."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


_READERS: dict[Any, Callable[[str], Any]] = {
    bool: lambda text: _choice(text.lower(), _WORDS),
    int: int,
    float: float,
    str: str,
    Path: lambda text: Path(text).expanduser(),
    Any: _anything,
    object: _anything,
    type(None): lambda text: _choice(text.lower(), dict.fromkeys(_NONE)),
}


# From and to the record


def _from_plain(value: Any, hint: Any) -> Any:
    """Read a JSON value as the type that an annotation names."""
    if value is None or hint is Any:
        return value
    if _is_union(hint):

        def fit(arm: Any) -> Any:
            typed = _from_plain(value, arm)
            if isinstance(arm, type) and not isinstance(typed, arm):
                raise ValueError(value)
            return typed

        return _first_fit(fit, sorted(typing.get_args(hint), key=lambda arm: arm is Path))
    if _is_enum(hint):
        return value if isinstance(value, hint) else hint[value]
    if hint is Path:
        return Path(value)
    if hint is float and (type(value) is int or value in NOT_FINITE):
        return float(value)
    if hint in (int, float, bool, str) and type(value) is not hint:
        raise ValueError(value)
    kind = _container(hint)
    if kind is None or isinstance(value, str):
        return value
    arms = typing.get_args(hint)
    if kind is dict:
        inner = arms[1] if len(arms) == 2 else Any
        return {key: _from_plain(each, inner) for key, each in value.items()}
    if kind is tuple and arms and arms[-1] is not Ellipsis:
        return tuple(_from_plain(each, arm) for each, arm in zip(value, arms, strict=True))
    return kind(_from_plain(each, arms[0] if arms else Any) for each in value)


def _to_plain(name: str, value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Path):
        return _to_plain(name, str(value))
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {_to_plain(name, key): _to_plain(name, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(name, each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(_to_plain(name, each) for each in value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # one of NOT_FINITE
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise NotStorable(
            f"The pipeline parameter {name!r} is {value}, which does not fit into 64 bits.",
            "Pass it as a string, or as a float.",
        )
    if isinstance(value, str) and not is_utf8(value):
        raise NotStorable(
            f"The pipeline parameter {name!r} is {value!a}, which is not valid UTF-8.",
            "Rename the file, or spell the value in UTF-8.",
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise NotStorable(
        f"The pipeline parameter {name!r} is a {type(value).__name__}, which the record of a run "
        "cannot hold.",
        "Pass a number, string, Path, Literal, Enum or a list of these, and create the value in "
        "a step.",
    )
