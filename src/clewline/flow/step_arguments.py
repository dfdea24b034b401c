"""The arguments of a step call, split into inputs (by digest) and parameters (by value)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any, Protocol

import msgspec

from clewline.errors import NotFound, NotStorable, UsageError
from clewline.flow import values
from clewline.flow.code import origin
from clewline.flow.handle import Handle, source_of
from clewline.flow.step import Step
from clewline.store.digest import Digest
from clewline.store.records import Artifact

# What a key can hold by value; everything else is an input, by its digest.
_BY_VALUE = (
    *(type(None), bool, int, float, complex, str, bytes, Enum, date, datetime, time, timedelta),
    *(type, FunctionType, BuiltinFunctionType),
)
_LONGEST_SHOWN = 2000


class InputStorage(Protocol):
    """Stores the values and paths that are passed to a step, so that each has a digest."""

    def keep(self, value: Any) -> Artifact: ...

    def keep_path(self, path: Path) -> tuple[InputPath, Artifact]: ...

    def output_ref(self, digest: Digest) -> str | None:
        """Return the step output of this run with a content, `RUN/NN-name#0`; None if none has."""
        ...

    def output_of(self, value: Any) -> str | None:
        """Return the step output of this run that equals a list or dict, or None."""
        ...


class StepArguments:
    """
    The arguments of one call. Describing them loads nothing; `values` does.

    Inputs are handles, paths, and values such as tables, also inside lists, tuples
    and dicts. Describing waits for the steps that compute them.

    Raises:
        UsageError: The arguments do not fit the function.
        NotFound: A path does not exist.
    """

    def __init__(
        self, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any], storage: InputStorage
    ) -> None:
        try:
            self._bound = step.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise UsageError(
                f"The arguments do not fit the step {step.name!r}: {error}.",
                f"It is defined as {step.name}{step.signature}.",
            ) from error
        self._bound.apply_defaults()
        self._storage = storage
        self._loaders: dict[str, Callable[[], Any]] = {}
        self.params: dict[str, Any] = {}  # for the key, inputs left out
        self.inputs: dict[str, Artifact] = {}  # for the key: `train`, `tables[0]`
        self.record: dict[str, Any] = {}  # for the catalog
        self.edges: list[tuple[str, str]] = []  # source ref, parameter
        self.unstored: list[str] = []  # inputs without a digest
        for name, value in self._bound.arguments.items():
            value = Path(value) if name in step.paths and isinstance(value, str) else value
            self._bound.arguments[name] = value
            self.params[name] = self._describe(name, value)
            if name not in self.record:
                self.record[name] = {"value": _shown(self.params[name])}

    def values(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments, each handle replaced by its value."""
        for name, value in self._bound.arguments.items():
            self._bound.arguments[name] = self._load(name, value)
        return self._bound.args, self._bound.kwargs

    def _load(self, where: str, value: Any) -> Any:
        if where in self._loaders:
            return self._loaders[where]()
        return _rebuilt(value, [self._load(name, each) for name, each in _children(where, value)])

    def _describe(self, where: str, value: Any) -> Any:
        """Note the inputs in a value, and return the rest of it as the key holds it."""
        if isinstance(value, _BY_VALUE):
            return value
        if isinstance(value, Handle):
            call, slot = source_of(value)
            self._loaders[where] = value.value
            is_whole = slot is None and call.count is not None
            outputs = call.outputs.result()
            for index in range(call.count or 0) if is_whole else [slot or 0]:
                self._note(
                    f"{where}[{index}]" if is_whole else where,
                    outputs[index].artifact,
                    {"from": f"{call.label}#{index}"},
                    f"step:{call.label}",
                )
            return {"input": True}
        if isinstance(value, Path):
            found, stored = self._storage.keep_path(value)
            entry: dict[str, Any] = {"from": None, "path": found.recorded}
            if not value.is_absolute():
                entry["directory"] = str(Path.cwd())
            self._note(where, stored, entry, f"input:{stored.digest}")
            self._loaders[where] = lambda: found.actual
            # A step may use the name of its input (its suffix, say), so the key holds the name.
            return {"input": True, "name": value.name}
        if type(value) in (list, tuple, dict, set, frozenset):
            children = [self._describe(name, each) for name, each in _children(where, value)]
            if value and (output := self._storage.output_of(value)):  # of `.value()` on a handle
                self.record.setdefault(where, {"value": _shown(value), "from": output})
                self.edges.append((f"step:{output.partition('#')[0]}", where))
            return _rebuilt(value, children)
        self._loaders[where] = lambda: values.in_canonical_layout(value)
        try:
            artifact = self._storage.keep(value)
            output = self._storage.output_ref(artifact.digest)  # of `.value()` on a handle
            source = f"step:{output.partition('#')[0]}" if output else f"input:{artifact.digest}"
            self._note(where, artifact, {"from": output}, source)
        except NotStorable:
            if origin.of_type(type(value)) != "own":
                raise
            # No format holds this object of the project: its step is not cached.
            shown = f"a {type(value).__qualname__}"
            self.record[where] = {"artifact": None, "from": None, "value": shown}
            self.unstored.append(where)
        return {"input": True}

    def _note(
        self, where: str, artifact: Artifact | None, entry: dict[str, Any], source: str
    ) -> None:
        self.record[where] = {"artifact": artifact.digest if artifact else None, **entry}
        self.edges.append((source, where))
        if artifact is None:
            self.unstored.append(where)
        else:
            self.inputs[where] = artifact


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


def _shown(value: Any) -> Any:
    """Return a value as the record shows it: as JSON, or as a string if it is not JSON or long."""
    try:
        plain = msgspec.to_builtins(value)
        msgspec.msgpack.encode(plain)  # fails on strings that are not UTF-8
    except (TypeError, ValueError, OverflowError):
        plain = repr(value)
    return plain if len(repr(plain)) <= _LONGEST_SHOWN else repr(plain)[:_LONGEST_SHOWN] + "…"


@dataclass(frozen=True, slots=True)
class InputPath:
    """A content input: its path as the record names it, and the path to read it from."""

    recorded: str  # absolute
    actual: Path  # absolute


@dataclass(frozen=True)
class InputPaths:
    """
    Resolves paths of inputs from a current directory.

    A replay passes `moved`: the recorded path of each input, and of the project,
    to the restored copy. Then nothing else is found, so that a replay never
    reads a file that the record does not hold.
    """

    directory: Path = field(default_factory=Path.cwd)
    moved: Mapping[str, str] | None = None

    def find(self, path: Path) -> InputPath:
        """
        Resolve a path.

        Raises:
            NotFound: Nothing is there, or a replay has not restored it.
        """
        recorded = os.path.normpath(self.directory / path.expanduser())
        if self.moved is None:
            if os.path.exists(recorded):
                return InputPath(recorded, Path(recorded))
            raise NotFound(
                f"The input {str(path)!r} does not exist: there is no {recorded}.",
                "A parameter that is a Path is an input, resolved from the current directory. "
                "Annotate a path to write to as str.",
            )
        for old, new in sorted(self.moved.items(), key=lambda pair: -len(pair[0])):
            for start in (old, new):  # code may name an input from where it runs now
                if recorded == start or recorded.startswith(start + os.sep):
                    rest = recorded[len(start) :]
                    if os.path.exists(new + rest):
                        return InputPath(old + rest, Path(new + rest))
        raise NotFound(
            f"The input {recorded} is not among the inputs of the recorded run.",
            "The code asks for another file than it did then: its path may depend on the "
            "machine, the time or the environment.",
        )


def locate(value: Any, find: Callable[[Path], InputPath]) -> tuple[Any, Any]:
    """Return a parameter as the pipeline gets it, and as it is recorded: its paths resolved."""
    if isinstance(value, Path):
        found = find(value)
        return found.actual, found.recorded
    if type(value) in (list, tuple) and any(isinstance(each, Path) for each in value):
        actual, recorded = zip(*(locate(each, find) for each in value), strict=True)
        return type(value)(actual), list(recorded)
    return value, value
