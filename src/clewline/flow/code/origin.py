"""Where code comes from: the project itself, a package, Python, or clewline."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

Origin = Literal["own", "package", "python", "clewline"]

CLEWLINE = str(Path(__file__).resolve().parents[2]) + os.sep
INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

FOREIGN_FOLDERS = frozenset(
    {
        ".git", ".hg", ".svn", ".clewline", ".venv", "venv", "site-packages", "node_modules",
        "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".tox",
        ".nox", ".ipynb_checkpoints",
    }
)  # fmt: skip
"""Folders of tools, caches and other people's code, which are never part of a project."""


@functools.lru_cache(maxsize=4096)
def of_file(path: str) -> Origin:
    """
    Return the origin of a source file.

    A file is "own" if it is not installed, nor Python's, nor clewline's: if a project
    imports a sibling folder from its path, that folder's code is part of its keys too.
    """
    full = os.path.abspath(path)
    if full.startswith(CLEWLINE):
        return "clewline"
    if any(part in full for part in INSTALLED):
        return "package"
    return "python" if full.startswith(_standard_library()) else "own"


@functools.lru_cache(maxsize=1)
def _standard_library() -> tuple[str, ...]:
    paths = {os.path.realpath(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib")}
    return tuple(path + os.sep for path in paths)


def of_globals(namespace: dict[str, Any]) -> Origin:
    """Return the origin of a module, by its namespace."""
    file = namespace.get("__file__")
    if isinstance(file, str):
        return of_file(file)
    return _of_name(str(namespace.get("__name__", "")), namespace)


def _of_name(name: str, namespace: dict[str, Any]) -> Origin:
    """Return the origin of a module without a file: built in, a namespace package, a session."""
    if name.partition(".")[0] in sys.stdlib_module_names and name != "__main__":
        return "python"
    folders = list(namespace.get("__path__") or ())
    return of_file(os.path.join(folders[0], "__init__.py")) if folders else "own"


def of_module(module: ModuleType) -> Origin:
    """Return the origin of a module."""
    return of_globals(vars(module))


def of_type(cls: type) -> Origin:
    """Return the origin of a class."""
    if cls.__module__ in ("builtins", "typing"):
        return "python"
    module = sys.modules.get(cls.__module__)
    return _of_name(cls.__module__, {}) if module is None else of_module(module)


def own_files(module: str) -> list[str]:
    """
    Return the files of a module of the project and of its packages, without loading them.

    The list is empty for a module of a library.
    """
    folders: list[str] = list(sys.path)
    found: list[str] = []
    for part in module.split("."):
        bases = (os.path.join(os.path.abspath(folder or "."), part) for folder in folders)
        path = next(filter(None, map(_module_path, bases)), None)
        if path is None or of_file(os.path.join(path, "")) != "own":
            break
        if not os.path.isdir(path):
            return [*found, path]
        init = os.path.join(path, "__init__.py")
        found += [init] if os.path.isfile(init) else []
        folders = [path]
    return found


def _module_path(base: str) -> str | None:
    """Return the file or folder of a module."""
    if os.path.isfile(os.path.join(base, "__init__.py")):
        return base
    if os.path.isfile(base + ".py"):
        return base + ".py"
    return base if os.path.isdir(base) else None


# Files of a project


def is_own(path: str) -> bool:
    """Return whether no part of a relative path is a folder of tools or caches."""
    return FOREIGN_FOLDERS.isdisjoint(path.split("/"))


def is_in_project(file: Path, root: Path) -> bool:
    """Return whether a file is below a project, and not in a folder of tools or caches."""
    return file.is_relative_to(root) and FOREIGN_FOLDERS.isdisjoint(file.relative_to(root).parts)


def is_environment(folder: str) -> bool:
    """Return whether a folder is a virtual environment, whatever its name."""
    return os.path.exists(os.path.join(folder, "pyvenv.cfg"))


def walk(root: Path) -> Iterator[str]:
    """Yield the paths of all of a project's own files, relative to it."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [
            name
            for name in subfolders
            if name not in FOREIGN_FOLDERS and not is_environment(os.path.join(folder, name))
        ]
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        relative = os.path.relpath(folder, root).replace(os.sep, "/")
        start = "" if relative == "." else relative + "/"
        yield from (start + name for name in [*files, *links])
