"""
The functions and classes of the project that a graph names.

`read_functions` gathers them from the working tree, with all first-party code that they
reach; `FunctionFiles.store` puts them into the blobs as a code snapshot, whose digest a
revision pins; `load_functions` loads them from that snapshot, and from nowhere else.
"""

from __future__ import annotations

import difflib
import functools
import re
import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import msgspec

from clewline.errors import ClewlineError, InvalidConfig, NotFound
from clewline.flow.code.frame_annotation import FRAMES, Frame, frame_of
from clewline.flow.code.import_closure import import_closure
from clewline.flow.code.isolated_modules import IsolatedModules
from clewline.flow.code.snapshot import BlobSource, Snapshot
from clewline.project import Project
from clewline.store.blobs import FileBlobStore
from clewline.store.digest import Digest, digest_bytes

__all__ = [
    "FRAMES",
    "Frame",
    "FunctionFiles",
    "ProjectFunctions",
    "file_digests",
    "frame_of",
    "functions_of",
    "is_function",
    "load_functions",
    "read_functions",
    "stored_files",
]

_TEXT = re.compile(r"(?P<path>[^:]+\.py):(?P<name>[^\W\d]\w*)")


class FunctionFiles(msgspec.Struct, frozen=True):
    """First-party files, by their paths in the project."""

    files: dict[str, bytes]

    @property
    def digest(self) -> Digest:
        """The digest that the snapshot has in the blobs, stored or not."""
        return digest_bytes(self._snapshot().encode())

    def store(self, blobs: FileBlobStore) -> Digest:
        """Put the files and their snapshot into the blobs."""
        for content in self.files.values():
            blobs.put(content)
        return blobs.put(self._snapshot().encode())

    def digests(self) -> dict[str, Digest]:
        """The digest of each file."""
        return self._snapshot().files

    def _snapshot(self) -> Snapshot:
        file_digests = {path: digest_bytes(content) for path, content in self.files.items()}
        # No commit: the same code in another commit is the same code.
        return Snapshot(commit=None, changed=[], files=file_digests)


def is_function(text: object) -> bool:
    """
    Whether a text names a function or class of a file.

    >>> is_function("nodes.py:tidy"), is_function("income@3")
    (True, False)
    """
    return isinstance(text, str) and _TEXT.fullmatch(text) is not None


def read_functions(project: Project, texts: Iterable[str]) -> FunctionFiles:
    """
    Gather the files of functions, and what they reach, from the working tree.

    Args:
        project: Whose they are.
        texts: Such as `nodes.py:tidy`.

    Raises:
        NotFound: There is no such file.
        InvalidConfig: A text names no function, or the code cannot be recorded.
    """
    return FunctionFiles(import_closure(project.root, sorted({_parts(text)[0] for text in texts})))


def stored_files(
    project: Project, digest: Digest, blobs: BlobSource | None = None
) -> FunctionFiles:
    """
    Read code back from the blobs of a project.

    Raises:
        BlobMissing, BlobCorrupt: The snapshot is not what was recorded.
    """
    source = blobs or FileBlobStore(project.store_root / "blobs")
    file_digests = Snapshot.decode(source.get(digest)).files
    return FunctionFiles({path: source.get(each) for path, each in file_digests.items()})


def file_digests(blobs: BlobSource, digest: Digest | None) -> dict[str, Digest]:
    """Tell which files a recorded state of the code has, with their digests."""
    return {} if digest is None else Snapshot.decode(blobs.get(digest)).files


def load_functions(
    project: Project, digest: Digest, blobs: BlobSource | None = None
) -> ProjectFunctions:
    """
    Load the code that a revision pins; the same code is shared while anybody uses it.

    Raises:
        BlobMissing, BlobCorrupt: The snapshot is not what was recorded.
    """
    return ProjectFunctions(digest, lambda: stored_files(project, digest, blobs))


def functions_of(code: FunctionFiles) -> ProjectFunctions:
    """Load code that is not stored, to try it."""
    return ProjectFunctions(code.digest, lambda: code)


class ProjectFunctions:
    """
    The functions and classes of one state of the code, loaded in a namespace of their own.

    May be used from any thread. `close` it when nothing calls them any more.
    """

    def __init__(self, digest: Digest, code: Callable[[], FunctionFiles]) -> None:
        self._digest = digest
        self._modules = _shared.take(digest, code)
        self._made: dict[tuple[str, bytes], Callable[..., Any]] = {}
        self._is_open = True

    def get(self, text: str, config: dict[str, Any] | None = None) -> Callable[..., Any]:
        """
        Give a function, or the object of a class, which is built once and called.

        Args:
            text: Such as `nodes.py:tidy`.
            config: Keyword arguments: of each call of a function, of a class when it is built.

        Raises:
            NotFound: The file has no such name; gives the nearest.
            InvalidConfig: Its file cannot be loaded, or it cannot be called or built.
        """
        key = (text, msgspec.json.encode(config or {}, order="deterministic"))
        if key not in self._made:
            self._made[key] = _called(text, self._named(text), config or {})
        return self._made[key]

    def frame(self, text: str) -> Frame | None:
        """Tell what a function says that it takes, by its first parameter; None if it does not."""
        found = self._named(text)
        _require_callable(text, found)
        return frame_of(found)

    def close(self) -> None:
        """Let go of the code; the last one that uses it closes it."""
        if self._is_open:
            self._is_open = False
            self._made.clear()
            _shared.give_back(self._digest)

    def _named(self, text: str) -> Any:
        path, name = _parts(text)
        module = _loaded(self._modules, path)
        try:
            return vars(module)[name]
        except KeyError:
            own = [each for each in vars(module) if not each.startswith("_")]
            near = difflib.get_close_matches(name, own, n=1)
            hint = f"Did you mean {path}:{near[0]}?" if near else "Write it there."
            raise NotFound(f"{path} has no function or class {name!r}.", hint) from None


def _parts(text: str) -> tuple[str, str]:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise InvalidConfig(
            f"{text!r} names no function of a file.", "Write FILE.py:NAME, such as nodes.py:tidy."
        )
    return match["path"], match["name"]


def _loaded(modules: IsolatedModules, path: str) -> ModuleType:
    try:
        return modules.module(path)
    except ClewlineError:
        raise
    except BaseException as error:
        _let_ctrl_c_pass(error)
        raise InvalidConfig(
            f"{path} cannot be loaded: {type(error).__name__}: {error}.",
            "Mend it; a graph's functions are loaded from the snapshot of their code alone.",
        ) from error


def _let_ctrl_c_pass(error: BaseException) -> None:
    from clewline.serve.graph.batch import is_ctrl_c  # arrays, which most commands need not

    if is_ctrl_c(error):
        raise error


def _called(text: str, found: Any, config: dict[str, Any]) -> Callable[..., Any]:
    if isinstance(found, type):
        try:
            found = found(**config)
        except BaseException as error:
            _let_ctrl_c_pass(error)
            given = f"config {config!r}" if config else "no arguments"
            raise InvalidConfig(
                f"{text} cannot be built with {given}: {type(error).__name__}: {error}.",
                "A class of a graph is built once, with the mapping under config: as arguments.",
            ) from error
        config = {}
    _require_callable(text, found)
    return functools.partial(found, **config) if config else found


def _require_callable(text: str, found: Any) -> None:
    if not callable(found):
        raise InvalidConfig(
            f"{text} is a {type(found).__name__}, which cannot be called.",
            "Name a function, or a class with __call__.",
        )


class _Shared:
    """Loaded code of this process, by its digest, and how many use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[Digest, tuple[IsolatedModules, int]] = {}

    def take(self, digest: Digest, code: Callable[[], FunctionFiles]) -> IsolatedModules:
        with self._lock:
            known = self._loaded.get(digest)
            if known is None:
                name = f"clewline_code_{digest[:16]}"
                made = IsolatedModules(name, code().files, shown="{path}@" + digest[:8])
                known = made, 0
            self._loaded[digest] = known[0], known[1] + 1
            return known[0]

    def give_back(self, digest: Digest) -> None:
        with self._lock:
            modules, users = self._loaded[digest]
            if users > 1:
                self._loaded[digest] = modules, users - 1
                return
            del self._loaded[digest]
            modules.close()


_shared = _Shared()
