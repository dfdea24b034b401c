"""
Watch what a step reads and its key does not include.

Python reports every `open`, every program and every connection by its audit hooks. Its
questions about a file, such as `os.stat`, are wrapped. What compiled code and child processes
open in the folders of the project is asked of the kernel (`opened_files.py`); the readers of
Polars and Arrow are wrapped besides, because they may read anywhere.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from clewline.flow.code.origin import CLEWLINE, FOREIGN_FOLDERS, is_environment, of_file
from clewline.flow.keys.opened_files import (
    CLOSE_NOWRITE,
    CLOSE_WRITE,
    CREATE,
    IS_FOLDER,
    MOVED_TO,
    ON_LINUX,
    OPEN,
    FolderWatch,
)

SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/share/zoneinfo/", "/usr/share/locale/")
CODE = (".py", ".pyc", ".pyi", ".so", ".pth")
"""Imported code is part of the step's key; code that is read as text is not."""

QUESTIONS = ("stat", "lstat", "access", "readlink")
"""Functions of `os` that ask about a file and raise no audit event; `exists` calls them too."""

RESOLVING = ("resolve", "_joinrealpath")
"""Functions of Python that ask about each part of a path; only links among them matter."""

CONNECTIONS = ("socket.connect", "socket.sendto")
TOO_WIDE = (os.sep, os.path.expanduser("~"), tempfile.gettempdir())
"""Folders that are not watched as a whole, although code may name them."""

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
    "duckdb": ("connect", "read_", "from_"),
}
"""Modules with functions, by the start of their names, that open files in compiled code."""


class MemoisedCode(NamedTuple):
    """
    Code that may keep what it read, and is not read again: a module, a memoised function.

    A later step uses the content without opening the file.
    """

    file: str
    name: str  # `<module>`, or the qualified name of a function


MOST_REMEMBERED = 1000
"""Files of one such code that are remembered; a step that uses it after more is not cached."""

CLOCK_REALTIME_COARSE = 5
"""Linux's number of the clock that the times of files are taken from."""


class FileReads:
    """The files that were read, except those that were written before."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.places: tuple[str, ...] = ()  # outside of it, where the kernel watches too
        self.programs: dict[str, None] = {}  # that the project's own code started
        self.connections: dict[str, None] = {}
        self.questions: dict[str, None] = {}  # files that the project's own code asked about
        self.problem: str | None = None  # why the kernel does not tell
        self._read: dict[str, None] = {}
        self._asked_for: dict[str, None] = {}  # of readers in compiled code
        self._made_folders: set[str] = set()
        self._written: set[str] = set()
        self._appended: set[str] = set()
        self._opened: dict[str, int] = {}  # what the kernel told: path → events
        self._started = time.clock_gettime_ns(CLOCK_REALTIME_COARSE) if ON_LINUX else 0

    def note(self, path: str, writing: bool) -> None:
        """Note that a file was opened."""
        if path in self._written or path in self._read:
            return
        if writing and path not in self._asked_for:
            self._written.add(path)
        elif not writing:
            self._read[path] = None

    def note_memoised(self, memoised: Iterable[MemoisedCode]) -> None:
        """Note what code has read before, in this process."""
        for each in memoised:
            paths = _remembered.get(each, {})
            for path in paths:
                self.note(path, False)
            if len(paths) > MOST_REMEMBERED:
                self.problem = (
                    f"{each.name} in {self.relative_path(each.file)} has read more than "
                    f"{MOST_REMEMBERED} files in this process, and may keep what it read"
                )

    def note_reader(self, path: str) -> None:
        """Note that a reader in compiled code was asked for a file."""
        self._asked_for[path] = None

    def note_append(self, path: str) -> None:
        """Note that a file was opened to be added to, which reads nothing of it."""
        self._appended.add(path)

    def note_event(self, path: str, mask: int) -> None:
        """Note what the kernel told about a file."""
        if not path:
            self.problem = (
                "more files were opened than the kernel reports at once; "
                "raise fs.inotify.max_queued_events"
            )
            return
        seen = self._opened.get(path, 0)
        if mask & IS_FOLDER:
            self._made_folders.add(path)
        if mask & (CREATE | MOVED_TO) and not seen & CLOSE_NOWRITE:
            self._written.add(path)
        elif not (mask & CLOSE_NOWRITE and seen & CLOSE_WRITE):  # a reader after a writer
            self._opened[path] = seen | mask

    def paths(self, declared: Iterable[Path] = ()) -> list[str]:
        """
        Return the reads that are neither declared, nor code, nor of the system or the store.

        A file that the step itself wrote first is not an input.
        """
        asked_for = [path for path in self._asked_for if not self._is_own(path)]
        found = self._others([*self._read, *asked_for], declared)
        return [path for path in found if os.path.exists(path)]

    def undeclared(self, declared: Iterable[Path] = ()) -> str | None:
        """Return why a step with these reads must not be cached, or None if it may be."""
        declared = list(declared)
        advice = "which is not an input: pass it as a Path parameter"
        if found := self.paths(declared):
            return f"it read {self._first(found)}, {advice}"
        if program := next(iter(self.programs), None):
            return f"it started the program {program}, whose reads are not seen"
        if address := next(iter(self.connections), None):
            return f"it connected to {address}, whose answers no key can hold"
        if found := self._others(filter(self._is_opened, self._opened), declared):
            return (
                f"compiled code or another process opened {self._first(found)} meanwhile, {advice}"
            )
        if found := self._questions(declared):
            return f"it asked about {self._first(found)}, {advice}"
        return self.problem

    def relative_path(self, path: str) -> str:
        """Return a path of the project relative to it."""
        return os.path.relpath(path, self.root) if path.startswith(self.root + os.sep) else path

    def _first(self, paths: list[str]) -> str:
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        return self.relative_path(paths[0]) + more

    def _is_opened(self, path: str) -> bool:
        """Return whether events say that something read a file, rather than only wrote it."""
        events = self._opened[path]
        if not events & OPEN or path.endswith(CODE):
            return False
        if not any(_is_below(path, place) for place in (self.root, *self.places)):
            return False
        if events & CLOSE_NOWRITE:
            return True
        return path not in self._appended and not self._is_rewritten(path)

    def _is_own(self, path: str) -> bool:
        """Return whether compiled code of the step wrote a file before anything read it."""
        events = self._opened.get(path, 0)
        is_written = events & CLOSE_WRITE and not events & CLOSE_NOWRITE
        return path in self._written or (bool(is_written) and self._is_rewritten(path))

    def _is_rewritten(self, path: str) -> bool:
        try:
            return os.stat(path).st_mtime_ns >= self._started
        except OSError:
            return True  # a file of the step's own that is gone

    def _questions(self, declared: list[Path]) -> list[str]:
        """Return the files asked about that the step neither made nor was given."""
        asked = {*self.questions, *self._missing()}
        if not asked:
            return []
        made = [*self._written, *filter(self._is_rewritten, self._opened), *map(str, declared)]
        near = [self.root, *map(os.path.realpath, made)]
        return [
            path
            for path in sorted(self._others(asked, declared))
            if not path.endswith(CODE) and not any(_is_below(each, path) for each in near)
        ]

    def _missing(self) -> list[str]:
        """Return the files of the project that were to be read and are not there."""
        inside = [path for path in self._read if _is_below(path, self.root)]
        return [path for path in inside if not os.path.exists(path)]

    def _others(self, paths: Iterable[str], declared: Iterable[Path]) -> list[str]:
        """Return those paths that may carry content into a result unseen."""
        known = [os.path.realpath(path) for path in declared]
        written = {os.path.realpath(path) for path in self._written}
        return [
            path
            for path in dict.fromkeys(map(os.path.realpath, paths))
            if path not in written
            and not any(_is_below(path, place) for place in (*known, *self._made_folders))
            and self._is_content(path)
        ]

    def _is_content(self, path: str) -> bool:
        """Return whether a file may carry content into a result unseen."""
        if path.startswith(SYSTEM):
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


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(place + os.sep)


_watching: list[FileReads] = []
_remembered: dict[MemoisedCode, dict[str, None]] = {}  # own code → the files that it has read
_kernel: dict[str, FolderWatch] = {}  # by project; at most one
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
            for name in QUESTIONS:
                _wrap_question(name)
        for name in READERS:
            if name in sys.modules:
                _wrap_readers(name)


@contextmanager
def watch_reads(
    root: Path, *, kernel: bool = False, places: Iterable[str] = (), declared: Iterable[Path] = ()
) -> Iterator[FileReads]:
    """
    Note every file that is opened in the block.

    The watch is on the whole process: if two steps run at the same time in
    threads, the reads of both are noted for each.

    Args:
        root: The project.
        kernel: Whether to ask the kernel what is opened in the project too.
        places: Other files and folders that are watched by the kernel then.
        declared: Folders that the block may read; the kernel need not report them.
    """
    install_hooks()
    reads = FileReads(root)
    with _lock:
        watch = _kernel_watch(reads.root) if kernel else None
        if watch is not None:
            reads.places = tuple(map(os.path.realpath, places))
            for place in reads.places:
                if not os.path.isdir(place):
                    watch.add(os.path.dirname(place), deep=False)
                elif place not in TOO_WIDE and not _is_below(reads.root, place):
                    watch.add(place)
            folders = [os.path.realpath(path) for path in declared if path.is_dir()]
            for folder in folders:
                watch.remove(folder)
            _tell(watch)
            reads.problem = watch.problem
        _watching.append(reads)
    try:
        yield reads
    finally:
        with _lock:
            if watch is not None:
                _tell(watch)
                for folder in folders:
                    watch.add(folder)
            _watching.remove(reads)


def _kernel_watch(root: str) -> FolderWatch:
    """Return the watch on a project; it lives as long as the process works on that project."""
    found = _kernel.get(root)
    if found is None or found.process != os.getpid():
        for other in _kernel.values():
            other.close()
        _kernel.clear()

        def is_skipped(folder: str) -> bool:
            return os.path.basename(folder) in FOREIGN_FOLDERS or is_environment(folder)

        found = _kernel[root] = FolderWatch(is_skipped)
        found.add(root)
    return found


def _tell(watch: FolderWatch) -> None:
    """Pass on what the kernel has told until now."""
    readers = tuple(_watching)

    def note(path: str, mask: int) -> None:
        for reads in readers:
            reads.note_event(path, mask)

    watch.tell(note)


def note_access(path: Any, writing: bool) -> None:
    """Note a path for every watch; a descriptor was noted when its name was opened."""
    if isinstance(path, bytes | os.PathLike):
        path = os.fsdecode(path)
    if isinstance(path, str):
        full = os.path.abspath(path)
        for reads in tuple(_watching):
            reads.note(full, writing)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if not flags & os.O_WRONLY:
            _remember(path)
        if _watching and not _is_code_loading(path):
            # Content is the step's own only if nothing was there before: a file that is
            # appended to, or changed in place, still holds the old content.
            if flags & os.O_TRUNC or (flags & os.O_CREAT and not os.path.exists(path)):
                note_access(path, True)
            elif not flags & os.O_WRONLY:
                note_access(path, False)
            elif isinstance(path, str):
                for reads in tuple(_watching):
                    reads.note_append(os.path.abspath(path))
    elif not _watching:
        return
    elif event == "sqlite3.connect":
        if os.path.exists(arguments[0]):  # and not `:memory:`, or an address with options
            note_access(arguments[0], False)
    elif event == "os.mkdir":
        note_access(arguments[0], True)
    elif event in CONNECTIONS and isinstance(arguments[1], tuple):
        for reads in tuple(_watching):  # the path of a local socket is text
            reads.connections.setdefault(":".join(map(str, arguments[1][:2])))
    elif event in LISTINGS and _is_called_by_project():
        note_access("." if arguments[0] is None else arguments[0], False)
    elif event in PROGRAMS and _is_called_by_project():
        program = arguments[0]
        is_path = isinstance(program, str | bytes | os.PathLike)
        name = os.fsdecode(program) if is_path else str(program)
        for reads in tuple(_watching):
            reads.programs.setdefault(name)


def _remember(path: Any) -> None:
    """Note a file for all code of the project that is running, in a step or before one."""
    if not isinstance(path, str | os.PathLike) or str(path).startswith(SYSTEM):
        return
    full, frame = os.path.abspath(path), sys._getframe(2)
    if full.endswith(CODE) and frame.f_code.co_filename.startswith(IMPORTS):
        return
    walked: FrameType | None = frame
    while walked is not None and not walked.f_code.co_filename.startswith(CLEWLINE):
        code = walked.f_code
        if not code.co_filename.startswith("<") and of_file(code.co_filename) == "own":
            memoised = MemoisedCode(code.co_filename, code.co_qualname)
            paths = _remembered.setdefault(memoised, {})
            if len(paths) <= MOST_REMEMBERED:
                paths[full] = None
        walked = walked.f_back


def _is_code_loading(path: Any) -> bool:
    """Return whether code is opened to be imported, or to show a line of it."""
    if not isinstance(path, str) or not path.endswith(CODE):
        return False
    opener = sys._getframe(2)
    return (
        opener.f_code.co_filename.startswith((*IMPORTS, CLEWLINE))
        or opener.f_globals.get("__name__") in SOURCE_READERS
    )


def _is_called_by_project(is_link: bool = False) -> bool:
    """
    Return whether the project's own code made the call, directly or through Python's library.

    Resolving a path does not count, unless it reads a link.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(IMPORTS):
            return False
        origin = "python" if file.startswith("<frozen") else of_file(file)
        if origin != "python":
            return origin == "own"
        if frame.f_code.co_name in RESOLVING and not is_link:
            return False
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


def _wrap_question(name: str) -> None:
    """Make a function of `os` note the files that the project's own code asks about."""
    ask = getattr(os, name)

    @functools.wraps(ask)
    def question(path: Any, *args: Any, **kwargs: Any) -> Any:
        if _watching and isinstance(path, str | os.PathLike):
            if not _is_called_by_project(is_link=name == "readlink"):
                return ask(path, *args, **kwargs)
            for reads in tuple(_watching):
                reads.questions.setdefault(os.path.abspath(path))
        return ask(path, *args, **kwargs)

    question.__clewline_reader__ = ask  # type: ignore[attr-defined]
    setattr(os, name, question)
    for group in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if ask in group:
            group.add(question)


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
        for source in _sources(args[0] if args else next(iter(kwargs.values()), None)):
            scheme, is_address, place = source.partition("://")
            if is_address and scheme != "file":
                for reads in tuple(_watching):
                    reads.connections.setdefault(source)
            else:
                _remember(place or source)
                for reads in tuple(_watching):
                    reads.note_reader(os.path.abspath(place or source))
        return reader(*args, **kwargs)

    read.__clewline_reader__ = reader  # type: ignore[attr-defined]
    return read


def _sources(given: Any) -> Iterator[str]:
    """Yield the files that a reader's argument names: paths, lists of them, folders, patterns."""
    if isinstance(given, list | tuple):
        for each in given:
            yield from _sources(each)
    elif isinstance(given, str) and "://" in given:
        yield given
    elif isinstance(given, str | os.PathLike):
        path = Path(os.path.expanduser(os.fspath(given)))
        if path.is_dir():
            yield from (str(inner) for inner in path.rglob("*") if inner.is_file())
        elif any(sign in path.name for sign in "*?["):
            yield from map(str, path.parent.glob(path.name))
        else:
            yield str(path)
