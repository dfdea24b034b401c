"""Files and folders as values: known by what they contain, not by where they lie."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from clewline.errors import IntegrityError, NotFound, NotStorable
from clewline.flow.utf8 import is_utf8
from clewline.flow.values.pieces import framed, joined, text_bytes
from clewline.store.blobs import decode_struct, encode_struct
from clewline.store.digest import Digest, digest_file


class FileSink(Protocol):
    """The part of a blob store that takes files in."""

    def put(self, data: bytes) -> Digest: ...

    def put_file(self, path: Path) -> Digest: ...


class FileSource(Protocol):
    """The part of a blob store that gives files back."""

    def get(self, digest: Digest) -> bytes: ...

    def copy_to(self, digest: Digest, path: Path) -> None: ...


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
        """The canonical piece of the folder's content."""
        names = (framed("folder", text_bytes(name)) for name in self.folders)
        files = (
            framed("file", text_bytes(f"{entry.digest} {entry.executable:d} {name}"))
            for name, entry in self.files.items()
        )
        return joined("tree", (*names, *files))

    def encode(self) -> bytes:
        """As the bytes of a blob."""
        return encode_struct(self)

    @classmethod
    def decode(cls, data: bytes) -> FileTree:
        """From the bytes of a blob."""
        return decode_struct(data, cls, "The list of a stored folder")


def file_piece(digest: Digest) -> bytes:
    """The canonical piece of a file: its bytes, whatever its name."""
    return framed("file", digest.encode())


def path_piece(path: Path) -> bytes:
    """The canonical piece of what lies at a path."""
    check_exists(path)
    return tree(path, digest_file).piece() if path.is_dir() else file_piece(digest_file(path))


def check_exists(path: Path) -> None:
    """Refuse a path where there is nothing."""
    if not path.exists():
        raise NotFound(
            f"There is no file or folder {str(path)!r}.",
            "A Path that a step takes or returns is content: write the file first, "
            "or return its name as a str.",
        )


def tree(root: Path, put: Callable[[Path], Digest]) -> FileTree:
    """
    List a folder, with the digest that `put` gives each file.

    Symbolic links count as what they point to.

    Raises:
        NotStorable: A link leads back into a folder around it, a name is no text,
            or something is neither file nor folder.
    """
    folders: list[str] = []
    files: dict[str, FileEntry] = {}
    for path, name, is_folder in walked(root, (os.path.realpath(root),)):
        if is_folder:
            folders.append(name)
        else:
            status = path.stat()
            files[name] = FileEntry(put(path), status.st_size, bool(status.st_mode & 0o100))
    return FileTree(sorted(folders), dict(sorted(files.items())))


def walked(
    folder: Path, around: tuple[str, ...], prefix: str = ""
) -> Iterator[tuple[Path, str, bool]]:
    """Everything under a folder: path, relative name, whether it is a folder."""
    for inner in sorted(os.listdir(folder)):
        path, name = folder / inner, prefix + inner
        if not is_utf8(inner):
            raise unstorable(folder, f"holds the name {inner!a}, which is not valid UTF-8")
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            real = os.path.realpath(path)
            if real in around:
                raise unstorable(path, "is a link to a folder that holds it")
            yield path, name, True
            yield from walked(path, (*around, real), f"{name}/")
        elif stat.S_ISREG(mode):
            yield path, name, False
        else:
            raise unstorable(path, "is neither a file nor a folder")


def unstorable(path: Path, why: str) -> NotStorable:
    """Something in a folder has no content to store."""
    return NotStorable(f"{path} {why}.", "Take it out of the folder, then run again.")


def save_path(path: Path, blobs: FileSink) -> tuple[str, Digest, bytes, dict[str, Any], int]:
    """Store what lies at a path: format, blob, canonical piece, notes, size in bytes."""
    check_exists(path)
    notes: dict[str, Any] = {"name": path.resolve().name}
    if not path.is_dir():
        blob, size = blobs.put_file(path), path.stat().st_size
        executable = bool(path.stat().st_mode & 0o100)
        return "file", blob, file_piece(blob), notes | {"executable": executable}, size
    listed = tree(path, blobs.put_file)
    size = sum(entry.size for entry in listed.files.values())
    notes["files"] = len(listed.files)
    return "tree", blobs.put(listed.encode()), listed.piece(), notes, size


def restore_file(digest: Digest, executable: bool, blobs: FileSource, target: Path) -> None:
    """Write a stored file to a path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    blobs.copy_to(digest, target)
    if executable:
        target.chmod(target.stat().st_mode | 0o100)


def restore_tree(listed: FileTree, blobs: FileSource, target: Path) -> None:
    """Write a stored folder to a path."""
    target.mkdir(parents=True, exist_ok=True)
    for name in listed.folders:
        inside(target, name).mkdir(parents=True, exist_ok=True)
    for name, entry in listed.files.items():
        restore_file(entry.digest, entry.executable, blobs, inside(target, name))


def inside(folder: Path, name: str) -> Path:
    """A relative name under a folder; one that leads out of it is refused."""
    if name.startswith("/") or ".." in name.split("/"):
        raise IntegrityError(
            f"A stored folder names {name!r}, which leads out of it.",
            "It was not made by clewline: do not use it.",
        )
    return folder / name


def tree_blobs(data: bytes) -> Iterable[Digest]:
    """The blobs that a stored folder needs."""
    return [entry.digest for entry in FileTree.decode(data).files.values()]


def json_blobs(data: bytes) -> Iterable[Digest]:
    """The blobs that a stored JSON value refers to."""
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
