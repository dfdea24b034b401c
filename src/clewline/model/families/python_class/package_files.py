"""The files that make a Python model again: its code, its declared files, and `python.json`."""

from __future__ import annotations

import ast
import inspect
import math
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from clewline.errors import NotFound, NotSupported, UsageError
from clewline.flow.code import packages
from clewline.flow.code.import_closure import import_closure
from clewline.flow.code.isolated_modules import is_own
from clewline.flow.context import current_step
from clewline.model.families.python_class.spec import DeclaredFiles, PackagedFile, PythonSpec
from clewline.model.runtime.frames import TableLayout
from clewline.project import find
from clewline.signature.frame_annotation import Frame
from clewline.store.digest import digest_bytes

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def gather_files(
    model: Any,
    *,
    files: Mapping[str, Path],
    arguments: Mapping[str, Any],
    frame: Frame,
    layout: TableLayout,
) -> tuple[PythonSpec, dict[str, bytes]]:
    """
    Gather what makes a Python model again.

    Args:
        model: An object, or a class.
        files: Parameter of its constructor → a file or a folder.
        arguments: The others, where it does not keep them itself.
        frame: What its `predict` is given.
        layout: Column types of the training table.

    Returns:
        What `python.json` says, and the files that it names.

    Raises:
        NotSupported: The class does not stand in a file of the project, or keeps state
            that cannot be found.
        InvalidConfig: Its code cannot be recorded.
        NotFound: There is no such file.
        UsageError: The files or arguments are not those of its constructor.
    """
    cls = model if isinstance(model, type) else type(model)
    root, module = _home(cls)
    code = import_closure(root, [module])
    flat: dict[str, bytes] = {}

    def part(path: str, data: bytes) -> PackagedFile:
        """Take a file under a name like its path: the package is a folder without folders."""
        wanted = path.replace("/", ".")
        if len(wanted.encode()) > 200:
            wanted = wanted[:20] + PurePosixPath(path).suffix[:20]
        name, number = wanted, 1
        while name in flat:
            number += 1
            name = f"{number}.{wanted}"
        flat[name] = data
        return PackagedFile(name, digest_bytes(data))

    def declared(name: str, path: Path) -> DeclaredFiles:
        if not name.isidentifier():
            raise UsageError(f"{name!r} cannot be the name of a file.", "Use a Python name.")
        if not path.exists():
            raise NotFound(f"The file {name!r} is not there: {path}.", "Pass the path of a file.")
        if not path.is_dir():
            found = part(f"file.{name}{path.suffix}", path.read_bytes())
            return DeclaredFiles(False, {path.name: found})
        inside = (each for each in path.rglob("*") if not each.is_dir())
        inner = sorted(each.relative_to(path).as_posix() for each in inside)
        parts = {each: part(f"file.{name}.{each}", (path / each).read_bytes()) for each in inner}
        return DeclaredFiles(True, parts)

    spec = PythonSpec(
        module=module,
        name=cls.__qualname__,
        arguments=arguments_of(model, files, arguments),
        frame=frame,
        layout=layout,
        code={path: part(f"code.{path}", data) for path, data in code.items()},
        files={name: declared(name, Path(path)) for name, path in files.items()},
        requirements=requirements_of(code, frame),
    )
    return spec, flat


def _home(cls: type) -> tuple[Path, str]:
    """Find the project and the file of a class."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if file is None or "<locals>" in cls.__qualname__:
        raise NotSupported(
            f"The class {cls.__qualname__} stands in no file of the project, or inside of a "
            "function, so its code cannot be packaged.",
            "Write it at the top level of a .py file of the project and import it from there.",
        )
    context = current_step()
    root = context.project.root if context is not None else find(Path(file).parent).root
    try:
        path = Path(file).resolve().relative_to(root.resolve())
    except ValueError:
        raise NotSupported(
            f"The class {cls.__qualname__} stands in {file}, outside of the project {root}.",
            "Move the file into the project.",
        ) from None
    return root, path.as_posix()


def arguments_of(model: Any, files: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """
    Find the arguments that make a model again.

    Args:
        model: An object or its class. An object keeps each argument as an attribute of
            the same name, as scikit-learn's estimators and dataclasses do.
        files: Parameters that are given files.
        stated: Arguments that were named at registration; they come before attributes.

    Returns:
        Parameter → value of JSON; those of a class that has a default are left out.

    Raises:
        UsageError: A file or an argument is no parameter of the constructor.
        NotSupported: An argument cannot be found, or is no plain value.
    """
    cls = model if isinstance(model, type) else type(model)
    who = cls.__name__
    has_none = cls.__init__ is object.__init__  # type: ignore[misc]
    parameters = {} if has_none else dict(inspect.signature(cls).parameters)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for name in () if takes_any else {**files, **stated}:
        if name not in parameters:
            raise UsageError(
                f"{who} has no parameter {name!r}; it takes {', '.join(parameters) or 'none'}.",
                "Name files and arguments as the parameters of the constructor.",
            )
    found = dict(stated)
    for name, parameter in parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise NotSupported(
                f"{who} takes {name!r} by position alone.", "Let it be given by name."
            )
        if name in files or name in stated or parameter.kind in _VARIABLE:
            continue
        if not isinstance(model, type):
            if not hasattr(model, name):
                raise NotSupported(
                    f"{who} does not keep its argument {name!r}, so it cannot be made again from "
                    "its package.",
                    f"Set self.{name} = {name} in the constructor, or pass arguments={{{name!r}: "
                    f"…}}; a file goes to files={{{name!r}: Path(…)}}.",
                )
            found[name] = getattr(model, name)
        elif parameter.default is parameter.empty:
            raise NotSupported(
                f"{who} cannot be made without {name!r}.",
                f"Pass files={{{name!r}: Path(…)}} or arguments={{{name!r}: …}}.",
            )
    for name, value in found.items():
        if not _is_plain(value):
            raise NotSupported(
                f"The argument {name!r} of {who} is a {type(value).__name__}, which a package "
                "does not hold.",
                "Arguments are None, booleans, finite numbers, strings, lists and dicts of such; "
                f"write anything else to a file and pass files={{{name!r}: Path(…)}}.",
            )
    return found


def _is_plain(value: Any) -> bool:
    """Whether JSON gives back just this value."""
    if value is None or type(value) in (bool, str):
        return True
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(type(key) is str and _is_plain(each) for key, each in value.items())
    return False


def requirements_of(code: Mapping[str, bytes], frame: str) -> dict[str, str]:
    """
    Name the distributions that code imports directly, and the one of its frame.

    Args:
        code: Path → content of Python files.
        frame: What `predict` is given.

    Returns:
        Distribution → version that is installed, sorted; Python's own and clewline left out.
    """
    modules: set[str] = set()
    for node in (node for source in code.values() for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.add(node.module)
    modules -= {name for name in modules if name.partition(".")[0] in sys.stdlib_module_names}
    holders = {packages.distribution_of(name) for name in modules if not is_own(name, code)}
    holders |= {frame} & {"polars", "pandas", "numpy"}  # the distribution has the frame's name
    known = packages.installed()
    names = sorted(name for name in holders if name in known and name != "clewline")
    return {name: known[name].version for name in names}
