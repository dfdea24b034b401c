"""The content of objects for keys, and the check that the objects of an earlier walk still hold."""

from __future__ import annotations

import enum
import functools
import logging
import os
import pathlib
import re
import sys
import threading
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Protocol

from clewline.flow.code.source_code import stamp_of
from clewline.flow.values.canonical import CanonicalWalk
from clewline.flow.values.framing import Undigestible, framed, joined, text_bytes, type_name

MISSING = object()
"""Stands for an unbound name or an empty cell."""

INERT: tuple[type, ...] = (
    logging.Logger,
    logging.LoggerAdapter,
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Event,
    threading.Semaphore,
    threading.Condition,
    threading.local,
)
"""Objects whose content does not affect a result."""

INERT_NAMES = frozenset({"rich.console.Console", "structlog._config.BoundLoggerLazyProxy"})

CYTHON = frozenset({"cython_function_or_method", "fused_cython_function"})


class CodeWalk(Protocol):
    """Follows the code that an object holds, and returns the pieces that stand for it."""

    def function(self, fn: types.FunctionType) -> bytes: ...

    def cls(self, cls: type) -> bytes: ...

    def module(self, module: types.ModuleType) -> bytes: ...

    def package(self, module: str) -> None: ...


class KeyWalk(CanonicalWalk):
    """Canonical pieces for keys: functions, classes and modules count by their code."""

    def __init__(self, code: CodeWalk, root: str) -> None:
        super().__init__()
        self.code, self.root = code, root

    def other(self, value: Any) -> bytes:
        if isinstance(value, types.FunctionType):
            return self.code.function(value)
        if isinstance(value, type):
            return self.code.cls(value)
        if isinstance(value, types.ModuleType):
            return self.code.module(value)
        return _object_piece(value, self)


class GuardWalk(CanonicalWalk):
    """Canonical pieces within one process: functions, classes and modules count by address."""

    root = ""

    def other(self, value: Any) -> bytes:
        if isinstance(value, types.FunctionType | type | types.ModuleType):
            return framed("address", b"%d" % id(value))
        return _object_piece(value, self)


def _object_piece(value: Any, walk: KeyWalk | GuardWalk) -> bytes:
    """Return the piece of an object that is neither a plain value nor code."""
    if isinstance(value, INERT) or type_name(type(value)) in INERT_NAMES:
        return framed("inert", type_name(type(value)).encode())
    if isinstance(value, pathlib.PurePath):
        return framed("path", text_bytes(_portable_path(value, walk.root)))
    if isinstance(value, re.Pattern):
        return joined("pattern", (walk.piece(value.pattern), walk.piece(value.flags)))
    if isinstance(value, enum.Enum):
        return joined("enum", (walk.piece(type(value)), text_bytes(str(value.name))))
    return _callable_piece(value, walk) or _typing_piece(value, walk) or walk.reduced(value)


def _callable_piece(value: Any, walk: KeyWalk | GuardWalk) -> bytes | None:
    """Return the piece of something that can be called, or None for anything else."""
    package: Any = walk.code.package if isinstance(walk, KeyWalk) else lambda module: None
    if isinstance(value, types.MethodType):
        return joined("method", (walk.piece(value.__func__), walk.piece(value.__self__)))
    if isinstance(value, types.BuiltinFunctionType) or type(value).__name__ in CYTHON:
        owner = getattr(value, "__self__", None)
        bound = owner is not None and not isinstance(owner, types.ModuleType)
        path = text_bytes(f"{value.__module__}:{value.__qualname__}")
        if isinstance(value.__module__, str):
            package(value.__module__)
        return joined("builtin", (path, walk.piece(owner) if bound else b""))
    if type(value).__qualname__ == "ufunc":
        name = str(value.__name__)
        for home in ("numpy", "scipy.special"):  # a ufunc does not name its module
            if getattr(sys.modules.get(home), name, None) is value:
                package(home)
                return framed("ufunc", text_bytes(f"{home}:{name}"))
    if isinstance(value, staticmethod | classmethod):
        return joined(type(value).__name__, (walk.piece(value.__func__),))
    if isinstance(value, property):
        return joined("property", map(walk.piece, (value.fget, value.fset, value.fdel)))
    if isinstance(value, functools.partial):
        return joined("partial", map(walk.piece, (value.func, value.args, value.keywords)))
    inner = getattr(value, "__wrapped__", None)
    if isinstance(inner, types.FunctionType):  # functools.lru_cache and similar
        return joined("wrapper", (walk.piece(type(value)), walk.piece(inner)))
    return None


def _typing_piece(value: Any, walk: KeyWalk | GuardWalk) -> bytes | None:
    """Return the piece of a type expression such as `list[Config]`, or None for anything else."""
    arguments = typing.get_args(value)
    if arguments:
        return joined("generic", (walk.piece(typing.get_origin(value)), walk.piece(arguments)))
    if isinstance(value, typing.TypeVar | typing.ParamSpec):
        return framed("type variable", text_bytes(value.__name__))
    if type(value).__module__ == "typing":
        return framed("typing", text_bytes(repr(value)))
    return None


def _portable_path(path: pathlib.PurePath, root: str) -> str:
    """Return a path's text; inside the project relative to it, so that a clone has equal keys."""
    text = os.fspath(path)
    inside = root and (text == root or text.startswith(root + os.sep))
    return f"{type(path).__name__}:{'<project>' + text[len(root) :] if inside else text}"


def imported_type(module: str, name: str) -> type | None:
    """Return a class by its import path, if its module has been imported."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None


# The objects of an earlier walk


@dataclass(slots=True)
class Guards:
    """Every object that a walk met, in its state then; checked before the walk is reused."""

    bindings: list[tuple[dict[str, Any], str, Any]] = field(default_factory=list)
    cells: list[tuple[types.CellType, Any]] = field(default_factory=list)
    functions: list[tuple[types.FunctionType, tuple[Any, ...]]] = field(default_factory=list)
    classes: list[tuple[type, dict[str, Any]]] = field(default_factory=list)
    values: list[tuple[Any, bytes]] = field(default_factory=list)
    files: list[tuple[str, tuple[int, int] | None]] = field(default_factory=list)

    def hold(self) -> bool:
        """Return whether every object is still in the state in which the walk met it."""
        return (
            all(space.get(name, MISSING) is value for space, name, value in self.bindings)
            and all(cell_content(cell) is value for cell, value in self.cells)
            and all(_same_state(function_state(fn), state) for fn, state in self.functions)
            and all(_same_members(cls, members) for cls, members in self.classes)
            and all(stamp_of(path) == stamp for path, stamp in self.files)
            and all(fingerprint(value) == piece for value, piece in self.values)
        )


def function_state(fn: types.FunctionType) -> tuple[Any, ...]:
    """Return the parts of a function that can be replaced."""
    keywords = fn.__kwdefaults__ or {}
    return (fn.__code__, fn.__defaults__, *keywords, *keywords.values())


def cell_content(cell: types.CellType) -> Any:
    """Return the content of a closure's cell, or MISSING if it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def fingerprint(value: Any) -> bytes:
    """Return the content of a value within this process; code in it counts by its address."""
    try:
        return GuardWalk().piece(value)
    except Undigestible:
        return framed("unknown", b"")


def _same_state(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Return whether two tuples hold the same objects; keyword names are compared by value."""
    return len(a) == len(b) and all(
        x is y or (isinstance(x, str) and x == y) for x, y in zip(a, b, strict=True)
    )


def _same_members(cls: type, members: dict[str, Any]) -> bool:
    now = vars(cls)
    return all(now.get(name, MISSING) is value for name, value in members.items()) and all(
        name in members or name.startswith("__") for name in now
    )
