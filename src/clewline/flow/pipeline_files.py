"""Find a pipeline of a project by its name, importing only the file that defines it."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clewline.entry_points import install_line
from clewline.errors import ClewlineError, InvalidConfig, NotFound
from clewline.flow.code.import_closure import parse
from clewline.flow.code.origin import is_in_project
from clewline.flow.code.source_code import stamp_of
from clewline.flow.error_report import describe
from clewline.flow.keys.file_access import install_hooks
from clewline.flow.pipeline import Pipeline
from clewline.project import Project


def find_pipeline(project: Project, name: str) -> Pipeline[..., Any]:
    """
    Import a pipeline of `pipelines.py` or `pipelines/*.py`.

    The project's root is first on `sys.path` from then on.

    Raises:
        NotFound: No file defines it; the error names the nearest.
        InvalidConfig: Two files define it, or its file is not valid Python or raises when
            it is imported.
    """
    defined = pipelines_of(project)
    homes = [path for path, names in defined.items() if name in names]
    if not homes:
        known = sorted({each for names in defined.values() for each in names})
        if not known:
            raise NotFound(
                f"There is no pipeline {name!r}: {project.root} defines no pipeline.",
                "Decorate a function of pipelines.py or pipelines/NAME.py with @cl.pipeline.",
            )
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise NotFound(
            f"There is no pipeline {name!r} in {project.root}.",
            f"{hint}This project has: {', '.join(known)}.",
        )
    if len(homes) > 1:
        files = " and ".join(str(path.relative_to(project.root)) for path in homes)
        raise InvalidConfig(
            f"Two files define a pipeline {name!r}: {files}.",
            "Rename one, or give it another name with @cl.pipeline(name=…).",
        )
    for value in vars(_import(project.root, homes[0])).values():
        if isinstance(value, Pipeline) and value.name == name:
            return value
    raise InvalidConfig(
        f"{homes[0]} defines {name!r}, but after its import no pipeline has that name.",
        "Decorate it with @cl.pipeline and do not rebind the name.",
    )


def pipelines_of(project: Project) -> dict[Path, list[str]]:
    """
    Return the names of the pipelines that each file defines, without importing any file.

    Raises:
        InvalidConfig: A file is not valid Python.
    """
    single = project.root / "pipelines.py"
    files = [*([single] if single.is_file() else []), *sorted(project.root.glob("pipelines/*.py"))]
    return {path: list(_defined(project.root, path)) for path in files}


def _defined(root: Path, path: Path) -> Iterator[str]:
    tree = parse(path.read_bytes(), str(path.relative_to(root)))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for node in functions:
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(func=target, keywords=keywords):
                    pass
                case target:
                    keywords = []
            if getattr(target, "attr", getattr(target, "id", None)) == "pipeline":
                names = [
                    str(each.value.value)
                    for each in keywords
                    if each.arg == "name" and isinstance(each.value, ast.Constant)
                ]
                yield names[0] if names else node.name


def _import_problem(root: Path, path: Path, error: Exception) -> InvalidConfig:
    """Say where the project's code failed, and what to do about a library that is missing."""
    described = describe(error, root)
    frame = described["frames"][-1] if described["frames"] else {"file": path.name, "line": 1}
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    fix = f"Correct {frame['file']}. `clewline --debug run …` shows the whole traceback."
    if missing is not None:
        package = missing.partition(".")[0]
        fix = (
            f"Install the library that has it, often `{install_line([package])}`; "
            "or correct the name of the module."
        )
    return InvalidConfig(
        f"{frame['file']}:{frame['line']}: {type(error).__name__} while the file was imported: "
        f"{described['message']}.",
        fix,
    )


# A long-lived process (a notebook, a test session) may edit files between two
# runs, or move from one project to another with modules of the same names.
_sources: dict[str, tuple[Path, str, tuple[int, int] | None]] = {}  # module → root, file, stamp


def _import(root: Path, path: Path) -> Any:
    is_current = all(
        home == root and stamp_of(file) == old for home, file, old in _sources.values()
    )
    if not is_current:  # unload everything, so that no module keeps a changed one
        for home in {home for home, _, _ in _sources.values()} - {root}:
            if str(home) in sys.path:
                sys.path.remove(str(home))
        for name in (*_sources, "pipelines"):
            sys.modules.pop(name, None)
        _sources.clear()
    if str(root) in sys.path:
        sys.path.remove(str(root))
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    install_hooks()
    module = "pipelines" if path.parent == root else f"pipelines.{path.stem}"
    known = getattr(sys.modules.get(module), "__file__", None)
    if known is not None and Path(known) != path:
        for name in (module, "pipelines"):  # of another project, imported by other code
            sys.modules.pop(name, None)
    try:
        loaded = importlib.import_module(module)
    except ClewlineError:
        raise
    except Exception as error:
        sys.modules.pop(module, None)
        raise _import_problem(root, path, error) from error
    for name, each in list(sys.modules.items()):
        file = getattr(each, "__file__", None)
        if file and name not in _sources and is_in_project(Path(file), root):
            _sources[name] = (root, file, stamp_of(file))
    return loaded
