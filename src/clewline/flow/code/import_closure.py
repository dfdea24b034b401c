"""The files of a project that a file reaches by its imports, read without running anything."""

from __future__ import annotations

import ast
import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from clewline.errors import InvalidConfig, NotFound
from clewline.flow.code.isolated_modules import ROOTS, candidates
from clewline.flow.code.origin import is_own, own_files, walk

BY_NAME = frozenset({"import_module", "__import__"})
"""Calls that import what no reader of the file can tell."""


def import_closure(root: Path, paths: Iterable[str]) -> dict[str, bytes]:
    """
    Read some files and all first-party modules that they import, directly or not.

    Every `import` counts wherever it stands, and with a module the packages around it.

    Args:
        root: The project.
        paths: Python files, relative to it.

    Returns:
        Path relative to the project → content, sorted.

    Raises:
        NotFound: There is no such file; names the nearest.
        InvalidConfig: A file is no Python, or imports what a snapshot cannot hold.
    """
    files: dict[str, bytes] = {}
    waiting = [_required(root, path) for path in paths]
    while waiting:
        path = waiting.pop()
        if path not in files:
            files[path] = (root / path).read_bytes()
            waiting += _imports(root, path, files[path])
    return dict(sorted(files.items()))


def _required(root: Path, path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or not is_own(path):
        raise InvalidConfig(
            f"{path} is no path inside the project.",
            "Name a Python file relative to clewline.toml, such as nodes.py.",
        )
    if not (root / path).is_file():
        known = [each for each in walk(root) if each.endswith(".py")]
        near = difflib.get_close_matches(path, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"It would stand in {root}."
        raise NotFound(f"There is no file {path}.", hint)
    return path


def _imports(root: Path, path: str, source: bytes) -> Iterator[str]:
    """Paths of the first-party modules that a file imports."""
    for node in ast.walk(_parsed(path, source)):
        if isinstance(node, ast.Call):
            _refuse_by_name(path, node)
        for module in _modules(path, node):
            yield from _found(root, path, module)


def _parsed(path: str, source: bytes) -> ast.Module:
    try:
        return ast.parse(source, filename=path)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise InvalidConfig(
            f"{path}:{line} is no Python: {error.args[0]}.", "Mend the line."
        ) from error


def _refuse_by_name(path: str, call: ast.Call) -> None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in BY_NAME:
        raise InvalidConfig(
            f"{path}:{call.lineno} imports through {name}(…), which a code snapshot cannot follow.",
            "Write an import statement.",
        )


def _modules(path: str, node: ast.AST) -> list[str]:
    """Names of the modules that a statement may load, with the packages around them."""
    if isinstance(node, ast.Import):
        named = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = _base(path, node)
        named = [base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)]
    else:
        return []
    parts = [name.split(".") for name in named if name]
    return [".".join(each[:end]) for each in parts for end in range(1, len(each) + 1)]


def _base(path: str, node: ast.ImportFrom) -> str:
    """The package that an import is relative to, as a full name."""
    if node.level == 0:
        return node.module or ""
    own = path
    for root in ROOTS[1:]:
        own = own.removeprefix(root)
    folders = own.split("/")[:-1]
    kept = folders[: len(folders) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _found(root: Path, path: str, module: str) -> Iterator[str]:
    if module.partition(".")[0] in sys.stdlib_module_names:
        return
    for candidate, _ in candidates(module):
        if is_own(candidate) and (root / candidate).is_file():
            yield candidate
            return
    if not any((root / each / module.replace(".", "/")).is_dir() for each in ROOTS):
        _refuse_outside(root, path, module)


def _refuse_outside(root: Path, path: str, module: str) -> None:
    """Refuse code of the user's that lies where no snapshot of the project reaches."""
    if "." in module:
        return  # its outermost package was judged, or it is a name inside of a module
    for file in own_files(module):
        raise InvalidConfig(
            f"{path} imports {module}, which is {os.path.relpath(file, root)}: "
            f"neither below {root} nor its src/, nor an installed package.",
            "Move it into the project, or install it.",
        )
