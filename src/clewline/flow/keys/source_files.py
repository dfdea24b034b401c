"""Source files as syntax trees, held against the code that really runs."""

from __future__ import annotations

import ast
import importlib.machinery
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from clewline.flow.keys.references import Imported, has_effect, module_imports, without_docstrings

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef

COMPILED = (*importlib.machinery.EXTENSION_SUFFIXES, ".so", ".pyc")


@dataclass(slots=True)
class SourceFile:
    """One source file, parsed and compiled once."""

    path: str
    tree: ast.Module  # without docstrings
    stamp: tuple[int, int]  # size and mtime when it was read
    codes: dict[str, list[CodeType]] = field(default_factory=dict)  # qualified name → compiled
    functions: dict[tuple[str, int], list[Definition]] = field(default_factory=dict)
    classes: dict[str, list[Definition]] = field(default_factory=dict)  # by qualified name
    effects: list[ast.stmt] = field(default_factory=list)  # that do more than bind names
    imports: list[Imported] = field(default_factory=list)  # at module level

    def definition(self, code: CodeType) -> list[Definition] | None:
        """
        Where running code is defined: usually one place, all lambdas of a line at most.

        None when the file does not say what runs, because it was edited since.
        """
        same = [known for known in self.codes.get(code.co_qualname, ()) if alike(known, code)]
        if not same:
            return None
        best = min(same, key=lambda known: abs(known.co_firstlineno - code.co_firstlineno))
        return self.functions[best.co_name, best.co_firstlineno]

    def at_line(self, code: CodeType) -> list[Definition]:
        """Where code is defined by name and line alone."""
        return self.functions.get((code.co_name, code.co_firstlineno), [])


_read: dict[str, SourceFile] = {}


def stamp_of(path: str) -> tuple[int, int] | None:
    """Size and mtime of a file; None when it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def source(path: str) -> SourceFile | None:
    """The source at a path, read again when the file changed; None when it cannot be read."""
    stamp = None if path.endswith(COMPILED) else stamp_of(path)
    if stamp is None:
        return None
    known = _read.get(path)
    if known is None or known.stamp != stamp:
        made = parsed(path, stamp)
        if made is None:
            return None
        known = _read[path] = made
    return known


def parsed(path: str, stamp: tuple[int, int]) -> SourceFile | None:
    """Read, compile and index a file."""
    try:
        with open(path, "rb") as file:
            text = file.read()
        compiled = compile(text, path, "exec", dont_inherit=True)
        tree = ast.parse(text, path)
    except (OSError, SyntaxError, ValueError):
        return None
    made = SourceFile(path, tree, stamp)
    for code in inner_codes(compiled):
        made.codes.setdefault(code.co_qualname, []).append(code)
    index(made, tree, "")
    without_docstrings(tree)
    made.effects = [part for part in tree.body if has_effect(part)]
    made.imports = module_imports(tree)
    return made


def inner_codes(code: CodeType) -> Iterator[CodeType]:
    """All code objects inside of one."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from inner_codes(constant)


def index(made: SourceFile, node: ast.AST, prefix: str) -> None:
    """Enter the definitions under a node, functions by name and line, classes by qualified name."""
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            line = min((part.lineno for part in child.decorator_list), default=child.lineno)
            made.functions.setdefault((child.name, line), []).append(child)
            inner = f"{prefix}{child.name}.<locals>."
        elif isinstance(child, ast.Lambda):
            made.functions.setdefault(("<lambda>", child.lineno), []).append(child)
            inner = f"{prefix}<lambda>.<locals>."
        elif isinstance(child, ast.ClassDef):
            made.classes.setdefault(prefix + child.name, []).append(child)
            inner = f"{prefix}{child.name}."
        index(made, child, inner)


def alike(a: CodeType, b: CodeType) -> bool:
    """Whether two code objects do the same; where they stand in the file does not count."""
    return code_content(a) == code_content(b)


def code_content(code: CodeType) -> tuple[Any, ...]:
    """What a code object does, as a value that is the same in every process."""
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
        tuple(map(constant_content, code.co_consts)),
    )


def constant_content(constant: Any) -> Any:
    """A constant of a code object, told apart by type: 1, 1.0 and True are not one."""
    if isinstance(constant, CodeType):
        return code_content(constant)
    if isinstance(constant, tuple):
        return ("tuple", tuple(map(constant_content, constant)))
    if isinstance(constant, frozenset):
        return ("frozenset", tuple(sorted(repr(constant_content(part)) for part in constant)))
    return (type(constant).__name__, repr(constant))


def is_transformed(namespace: dict[str, Any]) -> bool:
    """Whether a module's code may differ from its file: an import hook rewrites it as it loads."""
    loader = namespace.get("__loader__")
    plain = importlib.machinery.SourceFileLoader
    return loader is not None and type(loader) is not plain
