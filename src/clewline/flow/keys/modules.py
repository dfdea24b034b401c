"""Modules that code belongs to and imports: their namespaces and full names."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

from clewline.flow.keys.references import Imported
from clewline.flow.keys.source_files import source


def namespace_of(value: Any) -> dict[str, Any] | None:
    """The namespace of the module that a function, class or module belongs to."""
    if isinstance(value, types.FunctionType):
        return value.__globals__
    module = sys.modules.get(value.__module__) if isinstance(value, type) else value
    return vars(module) if isinstance(module, types.ModuleType) else None


def imported_namespaces(space: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """Namespaces of the modules that a module imports as it loads, as far as they are loaded."""
    read = source(path)
    if read is None:
        return []
    package, names = str(space.get("__package__") or ""), []
    for imported in read.imports:
        name = absolute(imported, package)
        names += [name] if imported.name is None else [name, f"{name}.{imported.name}"]
    every = [
        ".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)
    ]
    return [vars(sys.modules[name]) for name in dict.fromkeys(every) if name in sys.modules]


def absolute(imported: Imported, package: str) -> str:
    """The full name of the module that an import names."""
    if imported.level == 0:
        return imported.module
    parts = package.split(".") if package else []
    base = parts[: len(parts) - imported.level + 1]
    return ".".join([*base, *([imported.module] if imported.module else [])])


def package_of(path: str) -> str:
    """The package that a file lies in, by the folders around it that have an `__init__.py`."""
    parts: list[str] = []
    folder = os.path.dirname(path)
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        parts.insert(0, os.path.basename(folder))
        folder = os.path.dirname(folder)
    return ".".join(parts)
