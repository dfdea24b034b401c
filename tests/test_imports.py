"""Imports point inward: `cli` and `protocols` to the domain, the domain along the line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "clewline"

# A part may import itself and what stands before it.
LINE = (
    "version",
    "errors",
    "formatting",
    "entry_points",
    "model_families",
    "explainer_kinds",
    "config",
    "signature",
    "store",
    "project",
    "flow",
    "evaluation",
    "data",
    "model",
    "serve",
    "explain",
    "html",
    "scaffold",
    "api",
    "hub",
    "client",
    "protocols",
    "workers",
    "console",
    "cli",
    "plugins",
    "testing",
)

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
    "http": {"console", "hub", "protocols"},
    "httpx": {"client", "console"},  # OpenID Connect
    "opentelemetry": {"protocols"},
    "starlette": {"console", "testing"},
    "uvicorn": {"console", "protocols"},
    "jinja2": {"console"},
    "authlib": {"console"},
    "joserfc": {"console"},  # which comes with authlib
    "mcp": {"protocols"},
    "argparse": set(),
}


def dotted(path: Path) -> str:
    """Return the dotted name of a module."""
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    dotted(path): path
    for path in sorted(SOURCE.rglob("*.py"))
    if "templates" not in path.relative_to(SOURCE).parts
}


def imported(path: Path) -> Iterator[str]:
    """List the modules that a file imports, also by strings such as "clewline.cli.run:app"."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield module if module in MODULES else str(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module = node.value.partition(":")[0]
            if module in MODULES and MODULES[module].name != "__init__.py":
                yield module


IMPORTS = {name: sorted(set(imported(path)) - {name}) for name, path in MODULES.items()}


def part(module: str) -> str:
    """Return the part of clewline that a module lies in; empty for the package and for others."""
    return module.split(".")[1] if module.startswith("clewline.") else ""


def folder(module: str) -> str:
    """Return the package that a module stands in."""
    path = MODULES[module]
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def test_a_module_imports_only_parts_that_stand_before_its_own() -> None:
    outward = [
        f"{name} imports {module}"
        for name, modules in IMPORTS.items()
        if part(name)
        for module in modules
        if part(module) and LINE.index(part(module)) > LINE.index(part(name))
    ]
    assert not outward


def test_a_library_with_a_home_is_imported_nowhere_else() -> None:
    away = [
        f"{name} imports {module}"
        for name, modules in IMPORTS.items()
        for module in modules
        if part(name) not in HOMES.get(module.split(".")[0], {part(name)})
    ]
    assert not away


def test_no_modules_import_each_other_in_a_cycle() -> None:
    graph = {
        name: [each for each in modules if each in MODULES] for name, modules in IMPORTS.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_no_packages_import_each_other_in_a_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for name, modules in IMPORTS.items():
        needed = {folder(module) for module in modules if module in MODULES}
        graph.setdefault(folder(name), set()).update(needed - {folder(name), "clewline"})
    TopologicalSorter(graph).prepare()
