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
from typing import Any

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


class ObjectWalk(CanonicalWalk):
    """
    Canonical pieces of any objects within one process: code in them counts by its address.

    A subclass may follow the code instead, and learn which packages the objects are from.
    """

    root = ""  # of the project: paths inside it are relative to it, so that a clone has equal keys

    def code_piece(self, value: types.FunctionType | type | types.ModuleType) -> bytes:
        """Return the piece of a function, class or module."""
        return framed("address", b"%d" % id(value))

    def package(self, module: str) -> None:
        """Note that an object is from a module of a package."""

    def other(self, value: Any) -> bytes:
        """Return the piece of a value that is neither plain, nor an array, nor a table."""
        if isinstance(value, types.FunctionType | type | types.ModuleType):
            return self.code_piece(value)
        if isinstance(value, INERT) or type_name(type(value)) in INERT_NAMES:
            return framed("inert", type_name(type(value)).encode())
        if isinstance(value, pathlib.PurePath):
            text = os.fspath(value)
            if self.root and (text == self.root or text.startswith(self.root + os.sep)):
                text = "<project>" + text[len(self.root) :]
            return framed("path", text_bytes(f"{type(value).__name__}:{text}"))
        if isinstance(value, re.Pattern):
            return joined("pattern", (self.piece(value.pattern), self.piece(value.flags)))
        if isinstance(value, enum.Enum):
            return joined("enum", (self.piece(type(value)), text_bytes(str(value.name))))
        # What can be called
        if isinstance(value, types.MethodType):
            return joined("method", (self.piece(value.__func__), self.piece(value.__self__)))
        if isinstance(value, types.BuiltinFunctionType) or type(value).__name__ in CYTHON:
            owner = getattr(value, "__self__", None)
            bound = owner is not None and not isinstance(owner, types.ModuleType)
            path = text_bytes(f"{value.__module__}:{value.__qualname__}")
            if isinstance(value.__module__, str):
                self.package(value.__module__)
            return joined("builtin", (path, self.piece(owner) if bound else b""))
        if type(value).__qualname__ == "ufunc":
            name = str(value.__name__)
            for home in ("numpy", "scipy.special"):  # a ufunc does not name its module
                if getattr(sys.modules.get(home), name, None) is value:
                    self.package(home)
                    return framed("ufunc", text_bytes(f"{home}:{name}"))
        if isinstance(value, staticmethod | classmethod):
            return joined(type(value).__name__, (self.piece(value.__func__),))
        if isinstance(value, property):
            return joined("property", map(self.piece, (value.fget, value.fset, value.fdel)))
        if isinstance(value, functools.partial):
            return joined("partial", map(self.piece, (value.func, value.args, value.keywords)))
        inner = getattr(value, "__wrapped__", None)
        if isinstance(inner, types.FunctionType):  # functools.lru_cache and similar
            return joined("wrapper", (self.piece(type(value)), self.piece(inner)))
        # Type expressions such as `list[Config]`
        if arguments := typing.get_args(value):
            return joined("generic", (self.piece(typing.get_origin(value)), self.piece(arguments)))
        if isinstance(value, typing.TypeVar | typing.ParamSpec):
            return framed("type variable", text_bytes(value.__name__))
        if type(value).__module__ == "typing":
            return framed("typing", text_bytes(repr(value)))
        return self.reduced(value)


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
            and all(_is_same(function_state(fn), state) for fn, state in self.functions)
            and all(_has_members(cls, members) for cls, members in self.classes)
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
        return ObjectWalk().piece(value)
    except Undigestible:
        return framed("unknown", b"")


def _is_same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Return whether two tuples hold the same objects; keyword names are compared by value."""
    return len(a) == len(b) and all(
        x is y or (isinstance(x, str) and x == y) for x, y in zip(a, b, strict=True)
    )


def _has_members(cls: type, members: dict[str, Any]) -> bool:
    now = vars(cls)
    return all(now.get(name, MISSING) is value for name, value in members.items()) and all(
        name in members or name.startswith("__") for name in now
    )
