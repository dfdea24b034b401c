"""Distributions that a Python model needs: found at registration, compared at loading."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from clewline.errors import NotSupported
from clewline.flow.code import packages
from clewline.flow.code.isolated_modules import is_own

LIBRARIES = {"polars": "polars", "pandas": "pandas", "numpy": "numpy"}
"""Frame → the distribution that makes it."""


def requirements_of(code: Mapping[str, bytes], frame: str) -> dict[str, str]:
    """
    Name the distributions that code imports directly, and the one of its frame.

    Args:
        code: Path → content of Python files.
        frame: What `predict` is given.

    Returns:
        Distribution → version that is installed, sorted; Python's own and clewline left out.
    """
    modules = {module for source in code.values() for module in imported_modules(source)}
    outside = {name for name in modules if _is_outside(name, code)}
    holders = {packages.distribution_of(module) for module in outside}
    holders |= {LIBRARIES[frame]} if frame in LIBRARIES else set()
    known = packages.installed()
    names = sorted(name for name in holders if name in known and name != "clewline")
    return {name: known[name].version for name in names}


def imported_modules(source: bytes) -> Iterator[str]:
    """Name the modules that absolute imports of a file may load."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def _is_outside(module: str, code: Mapping[str, bytes]) -> bool:
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and not is_own(module, code)


def other_versions(required: Mapping[str, str], who: str) -> list[str]:
    """
    Compare requirements with what is installed.

    Args:
        required: Distribution → version at registration.
        who: Needs them.

    Returns:
        A sentence for each that is installed in another version.

    Raises:
        NotSupported: One is not installed; names the command that installs what is missing.
    """
    found = {name: _version(name) for name in required}
    missing = [f"{name}=={required[name]}" for name, here in found.items() if here is None]
    if missing:
        raise NotSupported(
            f"{who} needs {', '.join(missing)}, which is not installed.",
            f"pip install {' '.join(missing)}",
        )
    return [
        f"{who} was registered with {name} {required[name]}, and {here} is installed."
        for name, here in found.items()
        if here != required[name]
    ]


def _version(name: str) -> str | None:
    """Return an installed version; asks for one distribution alone, so that loading is fast."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
