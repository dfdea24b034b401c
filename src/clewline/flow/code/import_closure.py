"""The files of a project that some files import, directly or not; nothing is executed."""

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
from clewline.flow.code.source_code import Imported

BY_NAME = frozenset({"import_module", "__import__"})
"""Calls that import a module which the source need not name."""


def import_closure(root: Path, paths: Iterable[str]) -> dict[str, bytes]:
    """
    Read some files and all modules of the project that they import, directly or not.

    Every `import` counts wherever it stands, and with a module the packages around it.

    Args:
        root: The project.
        paths: Python files, relative to it.

    Returns:
        Path relative to the project → content, sorted.

    Raises:
        NotFound: There is no such file; the error names the nearest.
        InvalidConfig: A file is not valid Python, or imports code that a snapshot cannot hold.
    """
    files: dict[str, bytes] = {}
    waiting = list(paths)
    for path in waiting:
        if path.startswith("/") or ".." in path.split("/") or not is_own(path):
            raise InvalidConfig(
                f"{path} is not a path inside the project.",
                "Name a Python file relative to clewline.toml, such as nodes.py.",
            )
        if not (root / path).is_file():
            known = [each for each in walk(root) if each.endswith(".py")]
            near = difflib.get_close_matches(path, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It should be in {root}."
            raise NotFound(f"There is no file {path}.", hint)
    while waiting:
        path = waiting.pop()
        if path not in files:
            files[path] = (root / path).read_bytes()
            waiting += _imported_files(root, path, files[path])
    return dict(sorted(files.items()))


def parse(source: bytes, path: str) -> ast.Module:
    """
    Parse a file of the project.

    Raises:
        InvalidConfig: The file is not valid Python; the error names the line.
    """
    try:
        return ast.parse(source, filename=path)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise InvalidConfig(
            f"{path}:{line} is not valid Python: {error.args[0]}.", "Fix the line."
        ) from error


def _imported_files(root: Path, path: str, source: bytes) -> Iterator[str]:
    """Yield the paths of the project's modules that a file imports."""
    own = path
    for folder in ROOTS[1:]:
        own = own.removeprefix(folder)
    package = ".".join(own.split("/")[:-1])
    for node in ast.walk(parse(source, path)):
        imports: list[Imported] = []
        if isinstance(node, ast.Import):
            imports = [Imported(0, alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports = [Imported(node.level, node.module or "", each.name) for each in node.names]
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in BY_NAME:
                raise InvalidConfig(
                    f"{path}:{node.lineno} imports through {name}(…), which a code snapshot "
                    "cannot follow.",
                    "Write an import statement.",
                )
        names = (name.strip(".").split(".") for each in imports for name in each.modules(package))
        for parts in names:
            for end in range(1, len(parts) + 1):
                yield from _module_file(root, path, ".".join(parts[:end]))


def _module_file(root: Path, path: str, module: str) -> Iterator[str]:
    """Yield the file of a module if it is the project's; refuse the user's code from elsewhere."""
    if not module or module.partition(".")[0] in sys.stdlib_module_names:
        return
    for candidate, _ in candidates(module):
        if is_own(candidate) and (root / candidate).is_file():
            yield candidate
            return
    # The outermost package decides; a name with dots may be a name inside of a module.
    if "." in module or any((root / each / module).is_dir() for each in ROOTS):
        return
    for file in own_files(module):
        raise InvalidConfig(
            f"{path} imports {module}, which is {os.path.relpath(file, root)}: "
            f"neither below {root} nor its src/, nor an installed package.",
            "Move it into the project, or install it.",
        )
