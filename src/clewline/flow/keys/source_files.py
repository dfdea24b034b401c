"""Source files as syntax trees, compared with the code that really runs."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from clewline.flow.keys.references import (
    Imported,
    has_effect,
    module_imports,
    remove_docstrings,
)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef

COMPILED = (*importlib.machinery.EXTENSION_SUFFIXES, ".so", ".pyc")


@dataclass(slots=True)
class SourceFile:
    """One source file, parsed and compiled once."""

    path: str
    tree: ast.Module  # without docstrings
    stamp: tuple[int, int]  # size and mtime when it was read
    codes: dict[str, list[CodeType]] = field(default_factory=dict)  # by qualified name
    functions: dict[tuple[str, int], list[Definition]] = field(default_factory=dict)
    classes: dict[str, list[Definition]] = field(default_factory=dict)  # by qualified name
    effects: list[ast.stmt] = field(default_factory=list)  # that do more than bind names
    imports: list[Imported] = field(default_factory=list)  # at module level

    def definition(self, code: CodeType) -> list[Definition] | None:
        """
        Return where running code is defined: usually one place, at most all lambdas of a line.

        None if the file does not contain the running code, because it was edited since.
        """
        content = code_content(code)
        same = [
            each for each in self.codes.get(code.co_qualname, ()) if code_content(each) == content
        ]
        if not same:
            return None
        best = min(same, key=lambda known: abs(known.co_firstlineno - code.co_firstlineno))
        return self.functions[best.co_name, best.co_firstlineno]

    def at_line(self, code: CodeType) -> list[Definition]:
        """Return where code is defined by name and line alone."""
        return self.functions.get((code.co_name, code.co_firstlineno), [])


_read: dict[str, SourceFile] = {}


def stamp_of(path: str) -> tuple[int, int] | None:
    """Return size and mtime of a file, or None if it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def read_source(path: str) -> SourceFile | None:
    """Read a source file, again if it changed; return None if it cannot be read or parsed."""
    stamp = None if path.endswith(COMPILED) else stamp_of(path)
    if stamp is None:
        return None
    known = _read.get(path)
    if known is not None and known.stamp == stamp:
        return known
    try:
        with open(path, "rb") as file:
            text = file.read()
        compiled = compile(text, path, "exec", dont_inherit=True)
        tree = ast.parse(text, path)
    except (OSError, SyntaxError, ValueError):
        return None
    found = _read[path] = SourceFile(path, tree, stamp)
    for code in inner_codes(compiled):
        found.codes.setdefault(code.co_qualname, []).append(code)
    _index(found, tree, "")
    remove_docstrings(tree)
    found.effects = [part for part in tree.body if has_effect(part)]
    found.imports = module_imports(tree)
    return found


def _index(file: SourceFile, node: ast.AST, prefix: str) -> None:
    """Index the definitions under a node: functions by name and line, classes by qualified name."""
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            line = min((part.lineno for part in child.decorator_list), default=child.lineno)
            file.functions.setdefault((child.name, line), []).append(child)
            inner = f"{prefix}{child.name}.<locals>."
        elif isinstance(child, ast.Lambda):
            file.functions.setdefault(("<lambda>", child.lineno), []).append(child)
            inner = f"{prefix}<lambda>.<locals>."
        elif isinstance(child, ast.ClassDef):
            file.classes.setdefault(prefix + child.name, []).append(child)
            inner = f"{prefix}{child.name}."
        _index(file, child, inner)


# Code objects


def inner_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield all code objects inside of one."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from inner_codes(constant)


def code_content(code: CodeType) -> tuple[Any, ...]:
    """Return what a code object does, wherever it stands; equal in every process."""
    return (
        code.co_qualname,
        code.co_code,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        code.co_exceptiontable,
        tuple(map(_constant_content, code.co_consts)),
    )


def _constant_content(constant: Any) -> Any:
    """Return a constant of a code object with its type: 1, 1.0 and True differ."""
    if isinstance(constant, CodeType):
        return code_content(constant)
    if isinstance(constant, tuple):
        return ("tuple", tuple(map(_constant_content, constant)))
    if isinstance(constant, frozenset):
        return ("frozenset", tuple(sorted(repr(_constant_content(part)) for part in constant)))
    return (type(constant).__name__, repr(constant))


# Modules


def is_transformed(namespace: dict[str, Any]) -> bool:
    """Return whether an import hook may rewrite a module's code as it loads."""
    loader = namespace.get("__loader__")
    return loader is not None and type(loader) is not importlib.machinery.SourceFileLoader


def namespace_of(value: Any) -> dict[str, Any] | None:
    """Return the namespace of the module that a function, class or module belongs to."""
    if isinstance(value, types.FunctionType):
        return value.__globals__
    module = sys.modules.get(value.__module__) if isinstance(value, type) else value
    return vars(module) if isinstance(module, types.ModuleType) else None


def imported_namespaces(space: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """Return the namespaces of the loaded modules that a module imports as it loads."""
    read = read_source(path)
    package = str(space.get("__package__") or "")
    names = (
        [name for imported in read.imports for name in imported.modules(package)] if read else []
    )
    every = [
        ".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)
    ]
    return [vars(sys.modules[name]) for name in dict.fromkeys(every) if name in sys.modules]


def package_of(path: str) -> str:
    """Return the package of a file, by the folders around it that have an `__init__.py`."""
    parts: list[str] = []
    folder = os.path.dirname(path)
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        parts.insert(0, os.path.basename(folder))
        folder = os.path.dirname(folder)
    return ".".join(parts)
