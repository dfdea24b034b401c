"""Canonical pieces of objects that are more than plain values, for keys."""

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
from typing import Any, Protocol

from clewline.flow.values.canonical import Canonical
from clewline.flow.values.pieces import framed, joined, text_bytes, type_name

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
"""Objects that carry no content into a result."""

INERT_NAMES = frozenset({"rich.console.Console", "structlog._config.BoundLoggerLazyProxy"})

CYTHON = frozenset({"cython_function_or_method", "fused_cython_function"})


class CodeWalk(Protocol):
    """What follows the code that is met: the pieces that stand for it, and packages by name."""

    def function(self, fn: types.FunctionType) -> bytes: ...

    def cls(self, cls: type) -> bytes: ...

    def module(self, module: types.ModuleType) -> bytes: ...

    def package(self, module: str) -> None: ...


class KeyWalk(Canonical):
    """Canonical pieces where functions, classes and modules count by their code."""

    def __init__(self, code: CodeWalk, root: str) -> None:
        super().__init__()
        self.code, self.root = code, root

    def other(self, value: Any) -> bytes:
        """The piece of an object: code through the walk, the rest by its content."""
        if isinstance(value, types.FunctionType):
            return self.code.function(value)
        if isinstance(value, type):
            return self.code.cls(value)
        if isinstance(value, types.ModuleType):
            return self.code.module(value)
        return known_object(value, self)


class GuardWalk(Canonical):
    """Canonical pieces within one process, where code counts by its address."""

    root = ""

    def other(self, value: Any) -> bytes:
        """The piece of an object."""
        if isinstance(value, types.FunctionType | type | types.ModuleType):
            return framed("address", b"%d" % id(value))
        return known_object(value, self)


def known_object(value: Any, walk: KeyWalk | GuardWalk) -> bytes:
    """The piece of an object that is neither plain nor code."""
    if isinstance(value, INERT) or type_name(type(value)) in INERT_NAMES:
        return framed("inert", type_name(type(value)).encode())
    if isinstance(value, pathlib.PurePath):
        return framed("path", text_bytes(portable_path(value, walk.root)))
    if isinstance(value, re.Pattern):
        return joined("pattern", (walk.piece(value.pattern), walk.piece(value.flags)))
    if isinstance(value, enum.Enum):
        return joined("enum", (walk.piece(type(value)), text_bytes(str(value.name))))
    return callable_object(value, walk) or typing_object(value, walk) or walk.reduced(value)


def callable_object(value: Any, walk: KeyWalk | GuardWalk) -> bytes | None:
    """The piece of something that can be called; None for anything else."""
    if isinstance(value, types.MethodType):
        return joined("method", (walk.piece(value.__func__), walk.piece(value.__self__)))
    if isinstance(value, types.BuiltinFunctionType) or type(value).__name__ in CYTHON:
        owner = getattr(value, "__self__", None)
        bound = owner is not None and not isinstance(owner, types.ModuleType)
        name = text_bytes(f"{value.__module__}:{value.__qualname__}")
        if isinstance(value.__module__, str) and isinstance(walk, KeyWalk):
            walk.code.package(value.__module__)
        return joined("builtin", (name, walk.piece(owner) if bound else b""))
    if type(value).__qualname__ == "ufunc" and (home := ufunc_home(value)) is not None:
        if isinstance(walk, KeyWalk):
            walk.code.package(home)
        return framed("ufunc", text_bytes(f"{home}:{value.__name__}"))
    if isinstance(value, staticmethod | classmethod):
        return joined(type(value).__name__, (walk.piece(value.__func__),))
    if isinstance(value, property):
        return joined("property", map(walk.piece, (value.fget, value.fset, value.fdel)))
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return joined("partial", map(walk.piece, parts))
    inner = getattr(value, "__wrapped__", None)
    if isinstance(inner, types.FunctionType):  # functools.lru_cache and its like
        return joined("wrapper", (walk.piece(type(value)), walk.piece(inner)))
    return None


def typing_object(value: Any, walk: KeyWalk | GuardWalk) -> bytes | None:
    """The piece of a type expression such as `list[Config]`; None for anything else."""
    arguments = typing.get_args(value)
    if arguments:
        return joined("generic", (walk.piece(typing.get_origin(value)), walk.piece(arguments)))
    if isinstance(value, typing.TypeVar | typing.ParamSpec):
        return framed("type variable", text_bytes(value.__name__))
    if type(value).__module__ == "typing":
        return framed("typing", text_bytes(repr(value)))
    return None


def ufunc_home(value: Any) -> str | None:
    """The module that publishes a ufunc, which does not say so itself."""
    homes = ("numpy", "scipy.special")
    found = (home for home in homes if getattr(sys.modules.get(home), value.__name__, 0) is value)
    return next(found, None)


def portable_path(path: pathlib.PurePath, root: str) -> str:
    """A path's text; inside of the project relative to it, so that a clone has the same key."""
    text = os.fspath(path)
    inside = root and (text == root or text.startswith(root + os.sep))
    return f"{type(path).__name__}:{'<project>' + text[len(root) :] if inside else text}"


def imported_type(module: str, name: str) -> type | None:
    """A class by its import path, when its module has been imported."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None
