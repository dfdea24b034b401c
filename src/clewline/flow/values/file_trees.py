"""Files and folders as values: identified by their content, wherever they lie."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from clewline.errors import IntegrityError, NotFound, NotStorable
from clewline.flow.values.framing import framed, joined, text_bytes
from clewline.store.blobs import BlobStore, decode_struct, encode_struct
from clewline.store.digest import Digest, digest_bytes, digest_file
from clewline.store.records import Artifact, is_utf8


class FileSink(Protocol):
    """The part of a blob store that stores bytes and files."""

    def put(self, data: bytes) -> Digest: ...

    def put_file(self, path: Path) -> Digest: ...


class FileEntry(msgspec.Struct, array_like=True, frozen=True):
    """One file of a tree."""

    digest: Digest
    size: int
    executable: bool


class FileTree(msgspec.Struct, frozen=True):
    """A folder: its files by relative path with `/`, and its folders, empty ones too."""

    folders: list[str]
    files: dict[str, FileEntry]

    def piece(self) -> bytes:
        """Return the canonical piece of the folder's content."""
        names = (framed("folder", text_bytes(name)) for name in self.folders)
        files = (
            framed("file", text_bytes(f"{entry.digest} {entry.executable:d} {name}"))
            for name, entry in self.files.items()
        )
        return joined("tree", (*names, *files))


def path_piece(path: Path) -> bytes:
    """Return the canonical piece of the file or folder at a path."""
    _require_exists(path)
    if path.is_dir():
        return _list_tree(path, digest_file).piece()
    return framed("file", digest_file(path).encode())


def save_path(path: Path, blobs: FileSink) -> Artifact:
    """
    Store a file or a folder.

    Symbolic links count as their targets.

    Raises:
        NotFound: Nothing is at the path.
        NotStorable: A link points to a folder around it, a name is not UTF-8,
            or an entry is neither file nor folder.
    """
    _require_exists(path)
    meta: dict[str, Any] = {"name": path.resolve().name}
    if path.is_dir():
        tree = _list_tree(path, blobs.put_file)
        kind, blob, piece = "tree", blobs.put(encode_struct(tree)), tree.piece()
        size = sum(entry.size for entry in tree.files.values())
        meta["files"] = len(tree.files)
    else:
        kind, blob, status = "file", blobs.put_file(path), path.stat()
        piece, size = framed("file", blob.encode()), status.st_size
        meta["executable"] = bool(status.st_mode & 0o100)
    return Artifact(
        digest=digest_bytes(piece),
        kind=kind,
        format=kind,
        blob=blob,
        size_bytes=size,
        rows=None,
        columns=None,
        meta=meta,
        created=time.time(),
    )


def restore_path(artifact: Artifact, blobs: BlobStore, target: Path) -> None:
    """
    Write a stored file or folder to a path.

    Raises:
        IntegrityError: The stored folder names a path outside of it.
    """
    if artifact.format == "file":
        _restore_file(artifact.blob, bool(artifact.meta.get("executable")), blobs, target)
        return
    tree = decode_tree(blobs.get(artifact.blob))
    target.mkdir(parents=True, exist_ok=True)
    for name in tree.folders:
        _inside(target, name).mkdir(parents=True, exist_ok=True)
    for name, entry in tree.files.items():
        _restore_file(entry.digest, entry.executable, blobs, _inside(target, name))


def tree_blobs(data: bytes) -> Iterable[Digest]:
    """Return the blobs that a stored folder needs."""
    return [entry.digest for entry in decode_tree(data).files.values()]


def json_blobs(data: bytes) -> Iterable[Digest]:
    """Return the blobs that a stored JSON value refers to."""
    found: list[Digest] = []
    waiting = [json.loads(data)]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if part.get("$") == "artifact":
                found.append(part["blob"])
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return found


def decode_tree(data: bytes) -> FileTree:
    """Read the list of a stored folder."""
    return decode_struct(data, FileTree, "The list of a stored folder")


def _require_exists(path: Path) -> None:
    if not path.exists():
        raise NotFound(
            f"There is no file or folder {str(path)!r}.",
            "A Path that a step takes or returns is content: write the file first, "
            "or return its name as a str.",
        )


def _list_tree(root: Path, put: Callable[[Path], Digest]) -> FileTree:
    """List a folder, with the digest that `put` returns for each file."""
    folders: list[str] = []
    files: dict[str, FileEntry] = {}
    for path, name, is_folder in _walk(root, (os.path.realpath(root),)):
        if is_folder:
            folders.append(name)
        else:
            status = path.stat()
            files[name] = FileEntry(put(path), status.st_size, bool(status.st_mode & 0o100))
    return FileTree(sorted(folders), dict(sorted(files.items())))


def _walk(
    folder: Path, around: tuple[str, ...], prefix: str = ""
) -> Iterator[tuple[Path, str, bool]]:
    """Yield everything under a folder: path, relative name, whether it is a folder."""
    for inner in sorted(os.listdir(folder)):
        path, name = folder / inner, prefix + inner
        if not is_utf8(inner):
            raise _unstorable(folder, f"holds the name {inner!a}, which is not valid UTF-8")
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            real = os.path.realpath(path)
            if real in around:
                raise _unstorable(path, "is a link to a folder that holds it")
            yield path, name, True
            yield from _walk(path, (*around, real), f"{name}/")
        elif stat.S_ISREG(mode):
            yield path, name, False
        else:
            raise _unstorable(path, "is neither a file nor a folder")


def _unstorable(path: Path, why: str) -> NotStorable:
    return NotStorable(f"{path} {why}.", "Take it out of the folder, then run again.")


def _restore_file(digest: Digest, executable: bool, blobs: BlobStore, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    blobs.copy_to(digest, target)
    if executable:
        target.chmod(target.stat().st_mode | 0o100)


def _inside(folder: Path, name: str) -> Path:
    """Return a relative name under a folder; refuse a name that leads out of it."""
    if name.startswith("/") or ".." in name.split("/"):
        raise IntegrityError(
            f"A stored folder names {name!r}, which leads out of it.",
            "It was not made by clewline: do not use it.",
        )
    return folder / name
