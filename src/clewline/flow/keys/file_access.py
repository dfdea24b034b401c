"""
Watch the files that a step reads and its key does not include.

Python reports every `open` by its audit hooks. Polars and Arrow open files in
compiled code without an audit event, so their readers are wrapped at their Python end.
If the project's own code starts a program, the program can read anything, so the
program itself is noted. Reads of DuckDB, and checks whether a file exists, are not seen.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from clewline.flow.code.origin import CLEWLINE, FOREIGN_FOLDERS, of_file

SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/share/zoneinfo/", "/usr/share/locale/")
CODE = (".py", ".pyc", ".pyi", ".so", ".pth")
"""Imported code is part of the step's key; code that is read as text is not."""

LISTINGS = ("os.listdir", "os.scandir")
PROGRAMS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec")
IMPORTS = ("<frozen importlib", "<frozen zipimport")
SOURCE_READERS = frozenset({"linecache", "tokenize"})
"""Modules that show the lines of a traceback or a warning."""

READERS = {
    "polars": ("read_", "scan_"),
    "pyarrow.parquet": ("read_",),
    "pyarrow.csv": ("read_", "open_"),
    "pyarrow.json": ("read_", "open_"),
    "pyarrow.feather": ("read_",),
    "pyarrow.orc": ("read_",),
    "pyarrow.dataset": ("dataset", "parquet_dataset"),
}
"""Modules with functions, by the start of their names, that open files in compiled code."""


class FileReads:
    """The files that were read, except those that were written before."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self._read: dict[str, None] = {}
        self._written: set[str] = set()
        self.programs: dict[str, None] = {}  # that the project's own code started

    def note(self, path: str, writing: bool) -> None:
        """Note that a file was opened."""
        if writing:
            self._written.add(path)
        elif path not in self._written:
            self._read.setdefault(path)

    def paths(self, declared: Iterable[Path] = ()) -> list[str]:
        """
        Return the reads that are neither declared, nor code, nor of the system or the store.

        A file that the step itself wrote first is not an input.
        """
        known = [os.path.realpath(path) for path in declared]
        written = {os.path.realpath(path) for path in self._written}
        return [
            path
            for path in dict.fromkeys(map(os.path.realpath, self._read))
            if path not in written
            and not any(path == place or path.startswith(place + os.sep) for place in known)
            and self._is_content(path)
        ]

    def undeclared(self, declared: Iterable[Path] = ()) -> str | None:
        """Return why a step with these reads must not be cached, or None if it may be."""
        found = self.paths(declared)
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return (
                f"it read {self.relative_path(found[0])}{more}, which is not an input: "
                "pass it as a Path parameter"
            )
        program = next(iter(self.programs), None)
        return program and f"it started the program {program}, whose reads are not seen"

    def relative_path(self, path: str) -> str:
        """Return a path of the project relative to it."""
        return os.path.relpath(path, self.root) if path.startswith(self.root + os.sep) else path

    def _is_content(self, path: str) -> bool:
        """Return whether a file may carry content into a result unseen."""
        if path.startswith(SYSTEM) or not os.path.exists(path):
            return False
        inside = path.startswith(self.root + os.sep)
        parts = path[len(self.root) :].split(os.sep) if inside else ()
        if ".clewline" in parts or of_file(path) != "own":
            return False
        if inside:
            return FOREIGN_FOLDERS.isdisjoint(parts)
        # A tool's own file, such as a font cache, is no content.
        home = os.path.expanduser("~")
        private = (os.path.join(home, ".cache"), os.path.join(home, ".config"), sys.prefix)
        return not path.startswith(tuple(place + os.sep for place in private))


_watching: list[FileReads] = []
_lock = threading.Lock()
_installed: set[str] = set()  # "open" for the audit hook, and the modules that are wrapped
_arriving: set[str] = set()


def install_hooks() -> None:
    """
    Install the audit hook and wrap the readers, once for this process.

    Call it before a project's modules are imported: `from polars import read_csv` then
    binds the wrapped reader. Hooks cannot be removed, and are cheap without a watch.
    """
    with _lock:
        if "open" not in _installed:
            _installed.add("open")
            sys.addaudithook(_hook)
            sys.meta_path.insert(0, _ReaderImports())
        for name in READERS:
            if name in sys.modules:
                _wrap_readers(name)


@contextmanager
def watch_reads(root: Path) -> Iterator[FileReads]:
    """
    Note every file that is opened in the block.

    The watch is on the whole process: if two steps run at the same time in
    threads, the reads of both are noted for each.
    """
    install_hooks()
    reads = FileReads(root)
    with _lock:
        _watching.append(reads)
    try:
        yield reads
    finally:
        with _lock:
            _watching.remove(reads)


def note_access(path: Any, writing: bool) -> None:
    """Note a path for every watch; a descriptor was noted when its name was opened."""
    if isinstance(path, bytes | os.PathLike):
        path = os.fsdecode(path)
    if isinstance(path, str):
        full = os.path.abspath(path)
        for reads in tuple(_watching):
            reads.note(full, writing)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        path, _, flags = arguments
        if not _is_code_loading(path):
            # Content is the step's own only if nothing was there before: a file that is
            # appended to, or changed in place, still holds the old content.
            if flags & os.O_TRUNC or (flags & os.O_CREAT and not os.path.exists(path)):
                note_access(path, True)
            elif not flags & os.O_WRONLY:
                note_access(path, False)
    elif event == "sqlite3.connect":
        note_access(arguments[0], False)
    elif event == "os.mkdir":
        note_access(arguments[0], True)
    elif event in LISTINGS and _is_called_by_project():
        note_access("." if arguments[0] is None else arguments[0], False)
    elif event in PROGRAMS and _is_called_by_project():
        program = arguments[0]
        is_path = isinstance(program, str | bytes | os.PathLike)
        name = os.fsdecode(program) if is_path else str(program)
        for reads in tuple(_watching):
            reads.programs.setdefault(name)


def _is_code_loading(path: Any) -> bool:
    """Return whether code is opened to be imported, or to show a line of it."""
    if not isinstance(path, str) or not path.endswith(CODE):
        return False
    opener = sys._getframe(2)
    return (
        opener.f_code.co_filename.startswith((*IMPORTS, CLEWLINE))
        or opener.f_globals.get("__name__") in SOURCE_READERS
    )


def _is_called_by_project() -> bool:
    """Return whether the project's own code made the call, directly or through Python's library."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(IMPORTS):
            return False
        origin = "python" if file.startswith("<frozen") else of_file(file)
        if origin != "python":
            return origin == "own"
        frame = frame.f_back
    return False


class _ReaderImports:
    """Wraps the readers of a module of READERS that is imported during a step."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Let the real loader finish, then wrap the readers."""
        if name not in READERS or name in _installed or name in _arriving:
            return None
        _arriving.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            _arriving.discard(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            _wrap_readers(name)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _wrap_readers(name: str) -> None:
    """Make the readers of a module note the files that they are asked to read."""
    if name in _installed:
        return
    _installed.add(name)
    module = sys.modules[name]
    for attribute in dir(module):
        reader = getattr(module, attribute)
        if attribute.startswith(READERS[name]) and callable(reader):
            setattr(module, attribute, _noting(reader))


def _noting(reader: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(reader)
    def read(*args: Any, **kwargs: Any) -> Any:
        if _watching:
            for source in _sources(args[0] if args else next(iter(kwargs.values()), None)):
                note_access(source, False)
        return reader(*args, **kwargs)

    read.__clewline_reader__ = reader  # type: ignore[attr-defined]
    return read


def _sources(given: Any) -> Iterator[str]:
    """Yield the files that a reader's argument names: paths, lists of them, folders, patterns."""
    if isinstance(given, list | tuple):
        for each in given:
            yield from _sources(each)
    elif isinstance(given, str | os.PathLike):
        path = Path(os.path.expanduser(os.fspath(given)))
        if path.is_dir():
            yield from (str(inner) for inner in path.rglob("*") if inner.is_file())
        elif any(sign in path.name for sign in "*?["):
            yield from map(str, path.parent.glob(path.name))
        else:
            yield str(path)
