"""The arguments of a step call, told apart: inputs by digest, parameters by value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import Enum
from inspect import BoundArguments
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any, Protocol

import msgspec

from clewline.errors import NotStorable, UsageError
from clewline.flow.code import origin
from clewline.flow.definition import Step
from clewline.flow.handle import Handle, source_of
from clewline.flow.input_paths import InputPath
from clewline.store.records import Artifact

# What a key can hold by value; everything else is an input, by its digest.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, date, datetime, time, timedelta)
_CODE = (type, FunctionType, BuiltinFunctionType)
_LONGEST_SHOWN = 2000


class Storage(Protocol):
    """Stores what is given to a step plainly, so that it has a digest and a line."""

    def keep(self, value: Any) -> Artifact: ...

    def keep_path(self, path: Path) -> tuple[InputPath, Artifact]: ...


@dataclass
class Arguments:
    """The arguments of one call. Describing them loads nothing; `values` does."""

    bound: BoundArguments
    params: dict[str, Any] = field(default_factory=dict)  # for the key, inputs left out
    inputs: dict[str, Artifact] = field(default_factory=dict)  # for the key: `train`, `tables[0]`
    record: dict[str, Any] = field(default_factory=dict)  # for the catalog
    edges: list[tuple[str, str]] = field(default_factory=list)  # source ref, parameter
    loaded: dict[str, Callable[[], Any]] = field(default_factory=dict)
    unkept: list[str] = field(default_factory=list)  # inputs without a digest

    def values(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and keyword arguments with each handle replaced by its value."""
        for name, value in self.bound.arguments.items():
            self.bound.arguments[name] = self._filled(name, value)
        return self.bound.args, self.bound.kwargs

    def _filled(self, where: str, value: Any) -> Any:
        if where in self.loaded:
            return self.loaded[where]()
        children = dict(_children(where, value))
        return _rebuilt(value, [self._filled(name, each) for name, each in children.items()])


def describe(step: Step, args: tuple[Any, ...], kwargs: dict[str, Any], to: Storage) -> Arguments:
    """
    Bind the arguments of a call and tell inputs from parameters.

    Inputs are handles, paths, and values such as tables that were given plainly;
    also where they stand inside lists, tuples and dicts. Waits for the steps that
    make them.

    Raises:
        UsageError: The arguments do not fit the function.
        NotFound: A path does not exist.
    """
    found = Arguments(_bind(step, args, kwargs))
    for name, value in found.bound.arguments.items():
        given = Path(value) if name in step.paths and isinstance(value, str) else value
        found.bound.arguments[name] = given
        found.params[name] = _describe(found, name, given, to)
        if name not in found.record and name not in found.inputs:
            found.record[name] = {"value": shown(found.params[name])}
    return found


def shown(value: Any) -> Any:
    """A value as the record shows it: JSON as it is, other things and long ones as text."""
    plain = _json(value)
    return plain if len(repr(plain)) <= _LONGEST_SHOWN else repr(plain)[:_LONGEST_SHOWN] + "…"


def _bind(step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundArguments:
    try:
        bound = step.signature.bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(
            f"The step {step.name!r} was called with arguments that do not fit: {error}.",
            f"It is defined as {step.name}{step.signature}.",
        ) from error
    bound.apply_defaults()
    return bound


def _describe(found: Arguments, where: str, value: Any, to: Storage) -> Any:
    """Note the inputs in a value; return the rest of it, as the key holds it."""
    if isinstance(value, Handle):
        return _describe_handle(found, where, value)
    if isinstance(value, Path):
        return _describe_path(found, where, value, to)
    if isinstance(value, (*_PLAIN, *_CODE)):
        return value
    if _is_container(value):
        return _rebuilt(
            value, [_describe(found, name, each, to) for name, each in _children(where, value)]
        )
    found.loaded[where] = lambda: value
    try:
        artifact = to.keep(value)
    except NotStorable:
        if origin.of_type(type(value)) != "own":
            raise
        return _note_unkept(found, where, value)
    _note(found, where, artifact, {"from": None}, f"input:{artifact.digest}")
    return _marker()


def _note_unkept(found: Arguments, where: str, value: Any) -> Any:
    """Note an object of the project's own that no format holds: its step is not remembered."""
    kind = type(value)
    found.record[where] = {"artifact": None, "from": None, "value": f"a {kind.__qualname__}"}
    found.unkept.append(where)
    return _marker()


def _describe_handle(found: Arguments, where: str, handle: Handle) -> Any:
    source, slot = source_of(handle)
    found.loaded[where] = handle.value
    if slot is None and source.count is not None:
        for index in range(source.count):
            _note_output(found, f"{where}[{index}]", handle[index])
        return _marker()
    _note_output(found, where, handle)
    return _marker()


def _note_output(found: Arguments, where: str, handle: Handle) -> None:
    source, slot = source_of(handle)
    artifact = source.artifact(slot or 0)
    entry = {"from": f"{source.label}#{slot or 0}"}
    _note(found, where, artifact, entry, f"step:{source.label}")


def _describe_path(found: Arguments, where: str, path: Path, to: Storage) -> Any:
    place, artifact = to.keep_path(path)
    entry: dict[str, Any] = {"from": None, "path": place.recorded}
    if not path.is_absolute():
        entry["directory"] = str(Path.cwd())
    _note(found, where, artifact, entry, f"input:{artifact.digest}")
    found.loaded[where] = lambda: place.actual
    # A step may look at the name of its input (its ending, say), so that is part of the key.
    return _marker(path.name)


def _note(
    found: Arguments, where: str, artifact: Artifact | None, entry: dict[str, Any], source: str
) -> None:
    digest = artifact.digest if artifact is not None else None
    found.record[where] = {"artifact": digest, **entry}
    found.edges.append((source, where))
    if artifact is None:
        found.unkept.append(where)
    else:
        found.inputs[where] = artifact


def _marker(name: str | None = None) -> dict[str, Any]:
    """What stands in the place of an input among the parameters."""
    return {"input": True} if name is None else {"input": True, "name": name}


def _is_container(value: Any) -> bool:
    return type(value) in (list, tuple, dict, set, frozenset)


def _children(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if type(value) is dict:
        for key, each in value.items():
            yield f"{where}.{key}" if isinstance(key, str) else f"{where}[{key!r}]", each
    elif type(value) in (list, tuple):
        for index, each in enumerate(value):
            yield f"{where}[{index}]", each


def _rebuilt(value: Any, children: list[Any]) -> Any:
    if type(value) is dict:
        return dict(zip(value, children, strict=True))
    return type(value)(children) if type(value) in (list, tuple) else value


def _json(value: Any) -> Any:
    try:
        plain = msgspec.to_builtins(value)
        msgspec.msgpack.encode(plain)  # text that is no UTF-8 fails here
        return plain
    except (TypeError, ValueError, OverflowError):
        return repr(value)
