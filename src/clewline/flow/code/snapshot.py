"""The code of a run as it really was: commit, uncommitted and untracked files."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Protocol

import msgspec

from clewline.errors import IntegrityError, NotStorable
from clewline.flow.code.firstparty import listing, walk
from clewline.flow.utf8 import is_utf8
from clewline.store.blobs import decode_struct, encode_struct
from clewline.store.digest import Digest, digest_file

LARGEST_BYTES = 64 << 20
"""A bigger file is data, not code: its digest is recorded, its bytes are not kept."""

FINE_CLOCK_NS = 50_000_000  # file systems stamp by the kernel's tick, 10 ms at most
COARSE_CLOCK_NS = 2_000_000_000  # FAT and some network file systems: two seconds


class BlobSource(Protocol):
    """The part of a blob store that reads."""

    def get(self, digest: Digest) -> bytes: ...


class BlobSink(BlobSource, Protocol):
    """The part of a blob store that a snapshot needs."""

    def put(self, data: bytes) -> Digest: ...

    def has(self, digest: Digest) -> bool: ...


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """
    All first-party files of a project at one moment, as paths relative to its root.

    Every file's bytes are in the blob store under its digest, so a snapshot can
    be restored without the Git repository; those in `large` alone are left out.
    """

    commit: str | None
    changed: list[str]  # paths that differ from the commit, deleted ones too
    files: dict[str, Digest]
    executable: list[str] = []
    links: dict[str, str] = {}  # symbolic link → where it points
    large: dict[str, int] = {}  # path → bytes, of files too big to be kept

    def encode(self) -> bytes:
        """As the bytes of a blob; equal snapshots give equal bytes."""
        return encode_struct(self)

    @classmethod
    def decode(cls, data: bytes) -> Snapshot:
        """From the bytes of a blob."""
        return decode_struct(data, cls, "The code snapshot")

    def blobs(self) -> set[Digest]:
        """The blobs that a restore needs."""
        return {digest for path, digest in self.files.items() if path not in self.large}


class IndexedFile(msgspec.Struct, array_like=True):
    """A file as it was when it was digested."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    seen_ns: int  # when we began to read it
    digest: Digest

    def holds(self, status: os.stat_result) -> bool:
        """Whether the file is surely the one that was digested."""
        coarse = self.mtime_ns % 1_000_000_000 == 0
        margin = COARSE_CLOCK_NS if coarse else FINE_CLOCK_NS
        return (
            self.mtime_ns == status.st_mtime_ns
            and self.ctime_ns == status.st_ctime_ns
            and self.size == status.st_size
            and self.inode == status.st_ino
            and max(self.mtime_ns, self.ctime_ns) + margin < self.seen_ns
        )


def take(root: Path, blobs: BlobSink) -> Snapshot:
    """
    Record the first-party files under `root`, and put what is new into `blobs`.

    A file is digested again only when its inode, size or times changed, or when
    it is so young that a later edit could bear the same times. The index of what
    was seen stands in the store beside the blobs.

    Raises:
        NotStorable: The name of a file is no text.
    """
    index = read_index(root)
    found = listing(root)
    seen: dict[str, IndexedFile] = {}
    snapshot = Snapshot(commit=found.commit, changed=found.changed, files={})
    for path in found.paths:
        add(snapshot, root, path, index, seen, blobs)
    if seen != index:
        write_index(root, seen)
    return snapshot


def restore(snapshot: Snapshot, blobs: BlobSource, folder: Path) -> None:
    """
    Write the files of a snapshot under `folder`, which is made when absent.

    Raises:
        IntegrityError: A path leads out of the folder.
        ClewlineError: A blob is missing or damaged, as the blob store says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path, digest in snapshot.files.items():
        if path not in snapshot.large:
            destination(folder, path).write_bytes(blobs.get(digest))
    for path in snapshot.executable:
        if path not in snapshot.large:
            (folder / path).chmod(0o755)
    for path, target in snapshot.links.items():
        destination(folder, path).symlink_to(target)


def add(
    snapshot: Snapshot,
    root: Path,
    path: str,
    index: dict[str, IndexedFile],
    seen: dict[str, IndexedFile],
    blobs: BlobSink,
) -> None:
    """Add one file; a file that is gone since it was listed, or is no plain file, is left out."""
    full = f"{root}/{path}"
    if not is_utf8(path):
        raise NotStorable(
            f"The project holds a file with a name that is not valid UTF-8: {path!a}.",
            "Rename it, or keep it out of the project's folder.",
        )
    try:
        status = os.lstat(full)
    except FileNotFoundError:
        return  # deleted in the work tree: `changed` names it
    if stat.S_ISDIR(status.st_mode):  # a submodule
        for inner in sorted(walk(Path(full))):
            add(snapshot, root, f"{path}/{inner}", index, seen, blobs)
    elif stat.S_ISLNK(status.st_mode):
        snapshot.links[path] = os.readlink(full)
    elif stat.S_ISREG(status.st_mode):
        entry = index.get(path)
        if entry is None or not entry.holds(status) or is_missing(entry, blobs):
            entry = digested(full, blobs)
        seen[path] = entry
        snapshot.files[path] = entry.digest
        if status.st_mode & 0o100:
            snapshot.executable.append(path)
        if entry.size > LARGEST_BYTES:
            snapshot.large[path] = entry.size


def is_missing(entry: IndexedFile, blobs: BlobSink) -> bool:
    """Whether the bytes of a file that was seen are no longer in the blob store."""
    return entry.size <= LARGEST_BYTES and not blobs.has(entry.digest)


def digested(full: str, blobs: BlobSink) -> IndexedFile:
    """Digest a file, keep its bytes, and remember it as it was before it was read."""
    now, status = time.time_ns(), os.stat(full)
    if status.st_size > LARGEST_BYTES:
        digest = digest_file(Path(full))
    else:
        with open(full, "rb") as file:
            digest = blobs.put(file.read())
    return IndexedFile(
        status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, now, digest
    )


def destination(folder: Path, path: str) -> Path:
    """Where a path of a snapshot is written; its folders are made."""
    target = folder / path
    if path.startswith("/") or ".." in path.split("/"):
        raise IntegrityError(
            f"The snapshot names {path!r}, which leads out of its folder.",
            "It was not made by clewline: do not use it.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def index_path(root: Path) -> Path:
    """Where the index of seen files stands."""
    return root / ".clewline" / "tmp" / "snapshot.index"


def read_index(root: Path) -> dict[str, IndexedFile]:
    """The index of files as they were seen; empty when there is none that can be read."""
    try:
        data = index_path(root).read_bytes()
        return msgspec.msgpack.decode(data, type=dict[str, IndexedFile])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}  # only speed is lost: every file is digested again


def write_index(root: Path, seen: dict[str, IndexedFile]) -> None:
    """Replace the index at once, so that a reader sees the old or the new one."""
    path = index_path(root)
    if not path.parent.is_dir():
        return  # no store here, so nothing to keep the index in
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_bytes(msgspec.msgpack.encode(seen))
    part.replace(path)
