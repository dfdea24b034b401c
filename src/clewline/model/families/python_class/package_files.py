"""The files of the package of a Python model: its code, its declared files, `python.json`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from clewline.errors import NotFound, NotSupported, UsageError
from clewline.flow.code.import_closure import import_closure
from clewline.flow.context import current_step
from clewline.model.families.python_class.arguments import arguments_of
from clewline.model.families.python_class.requirements import requirements_of
from clewline.model.families.python_class.spec import (
    SPEC,
    DeclaredFiles,
    PackagedFile,
    PythonSpec,
)
from clewline.model.runtime.frames import TableLayout
from clewline.project import find
from clewline.signature.frame_annotation import Frame
from clewline.store.digest import digest_bytes


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
    flat = _FlatFolder()
    spec = PythonSpec(
        module=module,
        name=cls.__qualname__,
        arguments=arguments_of(model, files, arguments),
        frame=frame,
        layout=layout,
        code={path: flat.part(f"code.{path}", data) for path, data in code.items()},
        files={name: _declared(name, Path(path), flat) for name, path in files.items()},
        requirements=requirements_of(code, frame),
    )
    return spec, flat.files


def with_spec(spec: PythonSpec, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return all files of the model, including `python.json`."""
    data = msgspec.json.format(msgspec.json.encode(spec), indent=1) + b"\n"
    return {SPEC: data, **files}


class _FlatFolder:
    """Names for files in a folder without folders."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def part(self, path: str, data: bytes) -> PackagedFile:
        """Take a file under a name like its path."""
        wanted = path.replace("/", ".")
        if len(wanted.encode()) > 200:
            wanted = wanted[:20] + PurePosixPath(path).suffix[:20]
        name, number = wanted, 1
        while name in self.files:
            number += 1
            name = f"{number}.{wanted}"
        self.files[name] = data
        return PackagedFile(name, digest_bytes(data))


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


def _declared(name: str, path: Path, flat: _FlatFolder) -> DeclaredFiles:
    if not name.isidentifier():
        raise UsageError(f"{name!r} cannot be the name of a file.", "Use a Python name.")
    if not path.exists():
        raise NotFound(f"The file {name!r} is not there: {path}.", "Pass the path of a file.")
    if not path.is_dir():
        part = flat.part(f"file.{name}{path.suffix}", path.read_bytes())
        return DeclaredFiles(False, {path.name: part})
    parts = {
        inner: flat.part(f"file.{name}.{inner}", (path / inner).read_bytes())
        for inner in sorted(_inside(path))
    }
    return DeclaredFiles(True, parts)


def _inside(folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield (Path(place) / name).relative_to(folder).as_posix()
