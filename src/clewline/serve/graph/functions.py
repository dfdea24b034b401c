"""
The functions and classes of the project that a graph names.

`read_functions` reads them from the working tree, with all first-party code that they
import; `FunctionFiles.store` puts them into the blobs as a code snapshot, whose digest a
revision pins; `load_functions` loads them from that snapshot, and from nowhere else.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from clewline.errors import ClewlineError, InvalidConfig, NotFound, did_you_mean
from clewline.flow.code.import_closure import import_closure
from clewline.flow.code.isolated_modules import IsolatedModules
from clewline.flow.code.snapshot import BlobSource, Snapshot
from clewline.project import Project
from clewline.serve.graph.node import is_ctrl_c
from clewline.signature.frame_annotation import Frame, frame_of
from clewline.store.blobs import FileBlobStore
from clewline.store.digest import Digest, digest_bytes

_FUNCTION = re.compile(r"(?P<path>[^:]+\.py):(?P<name>[^\W\d]\w*)")

_lock = threading.Lock()
_loaded: dict[Digest, tuple[IsolatedModules, int]] = {}
"""The loaded code of this process by its digest, and the number of its users."""


class FunctionFiles(msgspec.Struct, frozen=True):
    """The first-party files of functions, by their paths in the project."""

    files: dict[str, bytes]

    @property
    def digest(self) -> Digest:
        """Return the digest that the snapshot has in the blobs, stored or not."""
        return digest_bytes(self._snapshot().encode())

    def digests(self) -> dict[str, Digest]:
        """Return the digest of each file."""
        return self._snapshot().files

    def store(self, blobs: FileBlobStore) -> Digest:
        """Put the files and their snapshot into the blobs."""
        for content in self.files.values():
            blobs.put(content)
        return blobs.put(self._snapshot().encode())

    def _snapshot(self) -> Snapshot:
        digests = {path: digest_bytes(content) for path, content in self.files.items()}
        # No commit: the same code in another commit is the same code.
        return Snapshot(commit=None, changed=[], files=digests)


def is_function(text: object) -> bool:
    """
    Tell whether a string names a function or class of a file.

    >>> is_function("nodes.py:tidy"), is_function("income@3")
    (True, False)
    """
    return isinstance(text, str) and _FUNCTION.fullmatch(text) is not None


def read_functions(project: Project, names: Iterable[str]) -> FunctionFiles:
    """
    Read the files of functions, and all that they import, from the working tree.

    Args:
        project: The project.
        names: Such as `nodes.py:tidy`.

    Raises:
        NotFound: There is no such file.
        InvalidConfig: A name is none of a function, or the code cannot be recorded.
    """
    return FunctionFiles(import_closure(project.root, sorted({_parts(name)[0] for name in names})))


def stored_files(project: Project, digest: Digest) -> FunctionFiles:
    """
    Read code back from the blobs of a project.

    Raises:
        BlobMissing, BlobCorrupt: The snapshot is not the recorded one.
    """
    blobs = FileBlobStore(project.store_root / "blobs")
    digests = file_digests(blobs, digest)
    return FunctionFiles({path: blobs.get(each) for path, each in digests.items()})


def file_digests(blobs: BlobSource, digest: Digest | None) -> dict[str, Digest]:
    """Return the files of a code snapshot with their digests; none without a snapshot."""
    return {} if digest is None else Snapshot.decode(blobs.get(digest)).files


def load_functions(project: Project, digest: Digest) -> ProjectFunctions:
    """
    Load the code that a revision pins; all users of the same code share it.

    Raises:
        BlobMissing, BlobCorrupt: The snapshot is not the recorded one.
    """
    return ProjectFunctions(digest, lambda: stored_files(project, digest))


def functions_of(code: FunctionFiles) -> ProjectFunctions:
    """Load code that is not stored, to try it."""
    return ProjectFunctions(code.digest, lambda: code)


class ProjectFunctions:
    """
    The functions and classes of one code snapshot, loaded in their own namespace.

    May be used from any thread. `close` it when nothing calls them any more.
    """

    def __init__(self, digest: Digest, code: Callable[[], FunctionFiles]) -> None:
        with _lock:
            if digest not in _loaded:
                name = f"clewline_code_{digest[:16]}"
                shown = "{path}@" + digest[:8]
                _loaded[digest] = IsolatedModules(name, code().files, shown=shown), 0
            self._modules, users = _loaded[digest]
            _loaded[digest] = self._modules, users + 1
        self._digest = digest
        self._built: dict[tuple[str, bytes], Callable[..., Any]] = {}
        self._is_open = True

    def get(self, text: str, config: dict[str, Any] | None = None) -> Callable[..., Any]:
        """
        Return a function, or the object of a class, which is built once and called.

        Args:
            text: Such as `nodes.py:tidy`.
            config: Keyword arguments of each call of a function, or of the class.

        Raises:
            NotFound: The file has no such name; gives the nearest.
            InvalidConfig: Its file cannot be loaded, or it cannot be called or built.
        """
        config = config or {}
        key = (text, msgspec.json.encode(config, order="deterministic"))
        if key in self._built:
            return self._built[key]
        found = self._named(text)
        if isinstance(found, type):
            try:
                found = found(**config)
            except BaseException as error:
                if is_ctrl_c(error):
                    raise
                arguments = f"config {config!r}" if config else "no arguments"
                raise InvalidConfig(
                    f"{text} cannot be built with {arguments}: {type(error).__name__}: {error}.",
                    "The class is built once, with the mapping under config: as arguments.",
                ) from error
            config = {}
        _require_callable(text, found)
        self._built[key] = functools.partial(found, **config) if config else found
        return self._built[key]

    def frame(self, text: str) -> Frame | None:
        """Return the kind of table that a function's first parameter declares; None if none."""
        found = self._named(text)
        _require_callable(text, found)
        return frame_of(found)

    def close(self) -> None:
        """Let go of the code; its last user closes it."""
        if self._is_open:
            self._is_open = False
            self._built.clear()
            with _lock:
                modules, users = _loaded.pop(self._digest)
                if users > 1:
                    _loaded[self._digest] = modules, users - 1
                else:
                    modules.close()

    def _named(self, text: str) -> Any:
        path, name = _parts(text)
        try:
            names = vars(self._modules.module(path))
        except ClewlineError:
            raise
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            raise InvalidConfig(
                f"{path} cannot be loaded: {type(error).__name__}: {error}.",
                "Fix it; a graph's functions are loaded from the snapshot of their code alone.",
            ) from error
        if name not in names:
            own = [each for each in names if not each.startswith("_")]
            hint = did_you_mean(name, own, "Write it there.")
            raise NotFound(f"{path} has no function or class {name!r}.", hint)
        return names[name]


def _parts(text: str) -> tuple[str, str]:
    match = _FUNCTION.fullmatch(text)
    if match is None:
        raise InvalidConfig(
            f"{text!r} does not name a function of a file.",
            "Write FILE.py:NAME, such as nodes.py:tidy.",
        )
    return match["path"], match["name"]


def _require_callable(text: str, found: Any) -> None:
    if not callable(found):
        raise InvalidConfig(
            f"{text} is a {type(found).__name__}, which cannot be called.",
            "Name a function, or a class with __call__.",
        )
