"""
Notices files that a step reads on the side, which its key knows nothing of.

Python tells of every `open` by its audit hooks. Polars and Arrow open files in
compiled code, which tells nobody, so their readers are asked at their Python end.
A program that the project's own code starts can read anything, so that it is named
itself. What DuckDB reads, and whether a file exists, is not seen.
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

from clewline.flow.code.firstparty import FOREIGN_FOLDERS
from clewline.flow.code.origin import CLEWLINE, of_file

SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/share/zoneinfo/", "/usr/share/locale/")
CODE = (".py", ".pyc", ".pyi", ".so", ".pth")
"""Code that is imported is known by the closure of the step; text that is read is not."""

LISTINGS = ("os.listdir", "os.scandir")
PROGRAMS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec")
IMPORTS = ("<frozen importlib", "<frozen zipimport")
SOURCE_READERS = frozenset({"linecache", "tokenize"})
"""Show the lines of a traceback or a warning."""

READERS = {
    "polars": ("read_", "scan_"),
    "pyarrow.parquet": ("read_",),
    "pyarrow.csv": ("read_", "open_"),
    "pyarrow.json": ("read_", "open_"),
    "pyarrow.feather": ("read_",),
    "pyarrow.orc": ("read_",),
    "pyarrow.dataset": ("dataset", "parquet_dataset"),
}
"""Modules whose functions of these names open files in compiled code."""


class FileReads:
    """Files that were read, and files that were written before they were read."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.read: dict[str, None] = {}
        self.written: set[str] = set()
        self.programs: dict[str, None] = {}  # that the project's own code started

    def note(self, path: str, writing: bool) -> None:
        """Enter one opening of a file."""
        if writing:
            self.written.add(path)
        elif path not in self.written:
            self.read.setdefault(path)

    def paths(self, declared: Iterable[Path] = ()) -> list[str]:
        """
        What was read and is neither declared, nor code, nor of the system or the store.

        A file that the step itself wrote first is no input of it.
        """
        known = [os.path.realpath(path) for path in declared]
        real = dict.fromkeys(os.path.realpath(path) for path in self.read)
        written = {os.path.realpath(path) for path in self.written}
        return [
            path
            for path in real
            if path not in written
            and not any(path == place or path.startswith(place + os.sep) for place in known)
            and self.is_content(path)
        ]

    def is_content(self, path: str) -> bool:
        """Whether a file can carry content into a result unseen."""
        if path.startswith(SYSTEM) or not os.path.exists(path):
            return False
        inside = path.startswith(self.root + os.sep)
        parts = path[len(self.root) :].split(os.sep) if inside else ()
        if ".clewline" in parts or of_file(path) != "own":
            return False
        return FOREIGN_FOLDERS.isdisjoint(parts) if inside else not is_private(path)

    def undeclared(self, declared: Iterable[Path] = ()) -> str | None:
        """Why a step that read this must not be remembered; None when it may be."""
        found = [self.told(path) for path in self.paths(declared)]
        if not found:
            return self.unseen()
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"it read {found[0]}{more}, which is no input: take it as a parameter of type Path"

    def unseen(self) -> str | None:
        """Why nobody knows what this read."""
        program = next(iter(self.programs), None)
        return program and f"it started the program {program}, and what that reads is not seen"

    def told(self, path: str) -> str:
        """A path as a person is told it."""
        return os.path.relpath(path, self.root) if path.startswith(self.root + os.sep) else path


def is_private(path: str) -> bool:
    """Whether a file outside of the project is a tool's own, such as a font cache."""
    home = os.path.expanduser("~")
    places = (os.path.join(home, ".cache"), os.path.join(home, ".config"), sys.prefix)
    return path.startswith(tuple(place + os.sep for place in places))


_watching: list[FileReads] = []
_lock = threading.Lock()
_installed: set[str] = set()


@contextmanager
def watch_reads(root: Path) -> Iterator[FileReads]:
    """
    Note what is opened inside.

    The watch is on the whole process: of two steps that run at the same time in
    threads, each is charged with what both read.
    """
    reads = FileReads(root)
    with _lock:
        install()
        _watching.append(reads)
    try:
        yield reads
    finally:
        with _lock:
            _watching.remove(reads)


def install() -> None:
    """Put the hook in once; it cannot be taken out, and costs nothing while nobody watches."""
    if "open" not in _installed:
        _installed.add("open")
        sys.addaudithook(heard)
        sys.meta_path.insert(0, Arrivals())
    for name in READERS:
        if name in sys.modules:
            wrap_readers(name)


def heard(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook."""
    if not _watching:
        return
    if event == "open":
        path, _, flags = arguments
        if not is_code_loading(path):
            opened(path, flags)
    elif event == "sqlite3.connect":
        note_access(arguments[0], False)
    elif event == "os.mkdir":
        note_access(arguments[0], True)
    elif event in LISTINGS and is_own_doing():
        note_access("." if arguments[0] is None else arguments[0], False)
    elif event in PROGRAMS and is_own_doing():
        started(arguments[0])


def opened(path: Any, flags: int) -> None:
    """
    Tell those who watch of an opening.

    What is read behind one is the step's own only if nothing was there before: a file
    that is added to, or changed in place, still holds what was.
    """
    if flags & os.O_TRUNC or (flags & os.O_CREAT and not os.path.exists(path)):
        note_access(path, True)
    elif not flags & os.O_WRONLY:
        note_access(path, False)


def is_code_loading(path: Any) -> bool:
    """Whether code is opened to be imported, or to show a line of it, rather than to be read."""
    if not isinstance(path, str) or not path.endswith(CODE):
        return False
    opener = sys._getframe(2)
    return (
        opener.f_code.co_filename.startswith((*IMPORTS, CLEWLINE))
        or opener.f_globals.get("__name__") in SOURCE_READERS
    )


def is_own_doing() -> bool:
    """Whether the project's own code asked for this, by itself or through Python's library."""
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


def started(program: Any) -> None:
    """Tell those who watch of a program."""
    name = os.fsdecode(program) if isinstance(program, str | bytes | os.PathLike) else str(program)
    for reads in tuple(_watching):
        reads.programs.setdefault(name)


def note_access(path: Any, writing: bool) -> None:
    """Tell those who watch; a descriptor was opened by name before, and told then."""
    if isinstance(path, bytes | os.PathLike):
        path = os.fsdecode(path)
    if isinstance(path, str):
        full = os.path.abspath(path)
        for reads in tuple(_watching):
            reads.note(full, writing)


class Arrivals:
    """Sees a module of READERS being imported during a step, and asks its readers too."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Never finds anything itself; lets the real loader finish, then wraps."""
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
            wrap_readers(name)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_arriving: set[str] = set()


def wrap_readers(name: str) -> None:
    """Make the readers of a module tell what they are asked to read."""
    module = sys.modules[name]
    if name in _installed:
        return
    _installed.add(name)
    for attribute in dir(module):
        reader = getattr(module, attribute)
        if attribute.startswith(READERS[name]) and callable(reader):
            setattr(module, attribute, telling(reader))


def telling(reader: Callable[..., Any]) -> Callable[..., Any]:
    """A reader that tells its sources first; otherwise the reader itself."""

    @functools.wraps(reader)
    def read(*args: Any, **kwargs: Any) -> Any:
        if _watching:
            for source in sources(args[0] if args else next(iter(kwargs.values()), None)):
                note_access(source, False)
        return reader(*args, **kwargs)

    read.__clewline_reader__ = reader  # type: ignore[attr-defined]
    return read


def sources(given: Any) -> Iterator[str]:
    """The files that the argument of a reader names: paths, lists of them, folders, patterns."""
    if isinstance(given, list | tuple):
        for each in given:
            yield from sources(each)
    elif isinstance(given, str | os.PathLike):
        path = Path(os.path.expanduser(os.fspath(given)))
        if path.is_dir():
            yield from (str(inner) for inner in path.rglob("*") if inner.is_file())
        elif any(sign in path.name for sign in "*?["):
            yield from map(str, path.parent.glob(path.name))
        else:
            yield str(path)
