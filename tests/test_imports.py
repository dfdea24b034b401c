"""Imports point inward: `cli` and `protocols` to the domain, the domain along the line."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "clewline"

# A part may import itself and what stands before it.
LINE = (
    "version",
    "errors",
    "formatting",
    "entry_points",
    "model_families",
    "config",
    "signature",
    "store",
    "project",
    "flow",
    "evaluation",
    "model",
    "serve",
    "scaffold",
    "api",
    "hub",
    "client",
    "protocols",
    "workers",
    "cli",
    "plugins",
    "testing",
)

# What `clewline/__init__.py` itself defines.
OWN_NAMES = {"__version__"}

# Libraries that only these parts may import.
HOMES = {
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "cyclopts": {"cli"},
    "rich": {"cli"},
    "uvloop": {"workers"},
    "httptools": {"protocols"},
    "prometheus_client": {"protocols"},
    "yaml": {"config", "model"},  # the gate names the line that failed
    "granian": {"protocols"},
    "grpc": {"protocols"},
    "google": {"protocols"},  # protobuf
    "catboost": {"model"},
    "lightgbm": {"model"},
    "xgboost": {"model"},
    "http": {"hub", "protocols"},
    "httpx": {"client"},
    "opentelemetry": {"protocols"},
    "starlette": set(),
    "argparse": set(),
}

MODULES = sorted(
    path
    for path in SOURCE.rglob("*.py")
    if "templates" not in path.relative_to(SOURCE).parts and path != SOURCE / "__init__.py"
)


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            module = node.module or ""
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def part(module: str) -> str:
    """The part of clewline that a dotted name lies in."""
    return module.split(".")[1]


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_imports_only_what_stands_before_it_in_the_line(path: Path) -> None:
    own = LINE.index(path.relative_to(SOURCE).parts[0].removesuffix(".py"))
    ours = {part(module) for module in imported(path) if module.startswith("clewline.")}
    outward = {module for module in ours - OWN_NAMES if LINE.index(module) > own}
    assert not outward


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_library_with_a_home_is_imported_nowhere_else(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    away = {
        module for module in imported(path) if own not in HOMES.get(module.split(".")[0], {own})
    }
    assert not away


def test_no_modules_import_each_other_in_a_circle() -> None:
    by_name = {dotted(path): path for path in MODULES}
    graph = {own: needed(path, set(by_name)) - {own} for own, path in by_name.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def dotted(path: Path) -> str:
    """The dotted name of a module."""
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def needed(path: Path, known: set[str]) -> set[str]:
    """The modules that a file takes names from; `from package import module` takes the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & known
