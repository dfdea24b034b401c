"""Finds a pipeline of a project by its name, importing only the file that defines it."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clewline.errors import InvalidConfig, NotFound
from clewline.flow.code.firstparty import FOREIGN_FOLDERS
from clewline.flow.pipeline import Pipeline
from clewline.project import Project


def find_pipeline(project: Project, name: str) -> Pipeline[..., Any]:
    """
    Import a pipeline of `pipelines.py` or `pipelines/*.py`.

    The project's root stands first on `sys.path` from then on.

    Raises:
        NotFound: No file defines it; the nearest name is given.
        InvalidConfig: Two files define it, or the file is no Python.
    """
    defined = pipelines_of(project)
    homes = [path for path, names in defined.items() if name in names]
    if not homes:
        raise _missing(project, name, defined)
    if len(homes) > 1:
        files = " and ".join(_shown(project, path) for path in homes)
        raise InvalidConfig(
            f"Two files define a pipeline {name!r}: {files}.",
            "Rename one, or give it another name with @cl.pipeline(name=…).",
        )
    return _taken_from(_import(project, homes[0]), name, homes[0])


def pipelines_of(project: Project) -> dict[Path, list[str]]:
    """The names of the pipelines that each file defines, read without importing it."""
    return {path: list(_defined(project, path)) for path in _files(project)}


def _files(project: Project) -> list[Path]:
    single = project.root / "pipelines.py"
    return [*([single] if single.is_file() else []), *sorted(project.root.glob("pipelines/*.py"))]


def _defined(project: Project, path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise InvalidConfig(
            f"{_shown(project, path)}:{line} is no Python: {error.args[0]}.", "Mend the line."
        ) from error
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if (found := _pipeline_name(decorator, node.name)) is not None:
                    yield found


def _pipeline_name(decorator: ast.expr, default: str) -> str | None:
    call = decorator if isinstance(decorator, ast.Call) else None
    target = call.func if call else decorator
    last = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", None)
    if last != "pipeline":
        return None
    for keyword in call.keywords if call else ():
        if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    return default


def _missing(project: Project, name: str, defined: dict[Path, list[str]]) -> NotFound:
    names = sorted({each for found in defined.values() for each in found})
    if not names:
        return NotFound(
            f"There is no pipeline {name!r}: {project.root} has no pipeline at all.",
            "Decorate a function of pipelines.py or pipelines/NAME.py with @cl.pipeline.",
        )
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return NotFound(
        f"There is no pipeline {name!r} in {project.root}.",
        f"{hint}This project has: {', '.join(names)}.",
    )


def _shown(project: Project, path: Path) -> str:
    return str(path.relative_to(project.root))


def _import(project: Project, path: Path) -> Any:
    root = str(project.root)
    _forget_changed(project.root)
    if root in sys.path:
        sys.path.remove(root)
    sys.path.insert(0, root)
    importlib.invalidate_caches()
    module = "pipelines" if path.parent == project.root else f"pipelines.{path.stem}"
    known = getattr(sys.modules.get(module), "__file__", None)
    if known is not None and Path(known) != path:
        for name in (module, "pipelines"):  # another project's, imported by somebody else
            sys.modules.pop(name, None)
    loaded = importlib.import_module(module)
    _note_sources(project.root)
    return loaded


def _taken_from(module: Any, name: str, path: Path) -> Pipeline[..., Any]:
    for value in vars(module).values():
        if isinstance(value, Pipeline) and value.name == name:
            return value
    raise InvalidConfig(
        f"{path} defines {name!r}, but importing it leaves no pipeline of that name.",
        "Decorate it with @cl.pipeline and do not rebind the name.",
    )


# A long-lived process (a notebook, a test session) may edit files between two
# runs, or go from one project to another whose modules bear the same names.
_sources: dict[str, tuple[Path, str, tuple[int, int]]] = {}  # module → root, file, stamp


def _note_sources(root: Path) -> None:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and _is_first_party(Path(file), root) and name not in _sources:
            _sources[name] = (root, file, _stamp(file))


def _forget_changed(root: Path) -> None:
    stale = any(home != root or _stamp(file) != stamp for home, file, stamp in _sources.values())
    if not stale:
        return
    for home in {home for home, _, _ in _sources.values()} - {root}:
        if str(home) in sys.path:
            sys.path.remove(str(home))
    for name in (*_sources, "pipelines"):
        sys.modules.pop(name, None)
    _sources.clear()


def _stamp(file: str) -> tuple[int, int]:
    try:
        stat = Path(file).stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)


def _is_first_party(file: Path, root: Path) -> bool:
    if not file.is_relative_to(root):
        return False
    return FOREIGN_FOLDERS.isdisjoint(file.relative_to(root).parts)
