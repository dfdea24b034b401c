"""Whose code something is: the project's own, a package's, Python's, or clewline's."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

Origin = Literal["own", "package", "python", "clewline"]

CLEWLINE = str(Path(__file__).resolve().parents[2]) + os.sep
INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@functools.lru_cache(maxsize=4096)
def of_file(path: str) -> Origin:
    """
    Whose a source file is.

    Own is whatever is neither installed, nor Python's, nor clewline's: a project
    that imports a sibling folder from its path is keyed on that folder's code too.
    """
    full = os.path.abspath(path)
    if full.startswith(CLEWLINE):
        return "clewline"
    if any(part in full for part in INSTALLED):
        return "package"
    if full.startswith(python_folders()):
        return "python"
    return "own"


@functools.lru_cache(maxsize=1)
def python_folders() -> tuple[str, ...]:
    """Folders of the standard library."""
    kinds = ("stdlib", "platstdlib")
    return tuple({os.path.realpath(sysconfig.get_path(kind)) + os.sep for kind in kinds})


def of_globals(namespace: dict[str, Any]) -> Origin:
    """Whose a module is, by its namespace."""
    file = namespace.get("__file__")
    if isinstance(file, str):
        return of_file(file)
    return of_name(str(namespace.get("__name__", "")), namespace)


def of_name(name: str, namespace: dict[str, Any]) -> Origin:
    """Whose a module without a file is: built in, a namespace package, a session."""
    if name.partition(".")[0] in sys.stdlib_module_names and name != "__main__":
        return "python"
    folders = list(namespace.get("__path__") or ())
    return of_file(os.path.join(folders[0], "__init__.py")) if folders else "own"


def of_module(module: ModuleType) -> Origin:
    """Whose a module is."""
    return of_globals(vars(module))


def of_type(cls: type) -> Origin:
    """Whose a class is."""
    if cls.__module__ in ("builtins", "typing"):
        return "python"
    module = sys.modules.get(cls.__module__)
    if module is None:
        return of_name(cls.__module__, {})
    return of_module(module)


def own_files(module: str) -> list[str]:
    """
    Files of a module of ours and of the packages around it, found without loading them.

    Empty for a library's module.
    """
    folders: list[str] = list(sys.path)
    found: list[str] = []
    for part in module.split("."):
        path = next((path for folder in folders if (path := module_path(folder, part))), None)
        if path is None or of_file(os.path.join(path, "")) != "own":
            break
        if os.path.isdir(path):
            init = os.path.join(path, "__init__.py")
            found += [init] if os.path.isfile(init) else []
            folders = [path]
        else:
            found.append(path)
            break
    return found


def module_path(folder: str, name: str) -> str | None:
    """The file or folder of a module in one folder of the path."""
    base = os.path.join(os.path.abspath(folder or "."), name)
    if os.path.isfile(os.path.join(base, "__init__.py")):
        return base
    if os.path.isfile(base + ".py"):
        return base + ".py"
    return base if os.path.isdir(base) else None
