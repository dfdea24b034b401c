"""The code of a run as it really was: commit, uncommitted and untracked files."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Protocol

import msgspec

from clewline.errors import Fault, IntegrityError, NotStorable
from clewline.flow.code.origin import is_own, walk
from clewline.store.blobs import BlobStore, decode_struct, encode_struct
from clewline.store.digest import Digest, digest_file
from clewline.store.records import is_utf8

LARGEST_BYTES = 64 << 20
"""A bigger file is data, not code: its digest is recorded, its bytes are not kept."""

FINE_CLOCK_NS = 50_000_000  # file systems stamp by the kernel's tick, 10 ms at most
COARSE_CLOCK_NS = 2_000_000_000  # FAT and some network file systems: two seconds


class BlobSource(Protocol):
    """The part of a blob store that reads."""

    def get(self, digest: Digest) -> bytes: ...


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """
    All of a project's own files at one moment, as paths relative to its root.

    The blob store holds every file's bytes under its digest, so a snapshot can
    be restored without the Git repository. Only the bytes of `large` are not kept.
    """

    commit: str | None
    changed: list[str]  # paths that differ from the commit, deleted ones too
    files: dict[str, Digest]
    executable: list[str] = []
    links: dict[str, str] = {}  # symbolic link → target
    large: dict[str, int] = {}  # path → bytes, of files too big to be kept

    def encode(self) -> bytes:
        """Return the bytes of a blob; equal snapshots give equal bytes."""
        return encode_struct(self)

    @classmethod
    def decode(cls, data: bytes) -> Snapshot:
        """Read the bytes of a blob."""
        return decode_struct(data, cls, "The code snapshot")

    def blobs(self) -> set[Digest]:
        """Return the blobs that a restore needs."""
        return {digest for path, digest in self.files.items() if path not in self.large}


class IndexedFile(msgspec.Struct, array_like=True):
    """A file as it was when it was digested."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    seen_ns: int  # when we began to read it
    digest: Digest

    def is_current(self, status: os.stat_result) -> bool:
        """Return whether the file is certainly the one that was digested."""
        coarse = self.mtime_ns % 1_000_000_000 == 0
        margin = COARSE_CLOCK_NS if coarse else FINE_CLOCK_NS
        return (
            self.mtime_ns == status.st_mtime_ns
            and self.ctime_ns == status.st_ctime_ns
            and self.size == status.st_size
            and self.inode == status.st_ino
            and max(self.mtime_ns, self.ctime_ns) + margin < self.seen_ns
        )


def take(root: Path, blobs: BlobStore) -> Snapshot:
    """
    Record the project's own files under `root`, and put new ones into `blobs`.

    A file is digested again only if its inode, size or times changed, or if
    it is so young that a later edit could have the same times. The store keeps the
    index of digested files beside the blobs.

    Raises:
        NotStorable: The name of a file is not valid UTF-8.
        Fault: Git cannot list the project.
    """
    index_path = root / ".clewline" / "tmp" / "snapshot.index"
    try:
        index = msgspec.msgpack.decode(index_path.read_bytes(), type=dict[str, IndexedFile])
    except (FileNotFoundError, msgspec.DecodeError):
        index = {}  # only speed is lost: every file is digested again
    paths, commit, changed = _list_files(root)
    seen: dict[str, IndexedFile] = {}
    snapshot = Snapshot(commit=commit, changed=changed, files={})
    for path in paths:
        _add(snapshot, root, path, index, seen, blobs)
    if seen != index and index_path.parent.is_dir():
        part = index_path.with_name(f"{index_path.name}.{os.getpid()}")
        part.write_bytes(msgspec.msgpack.encode(seen))
        part.replace(index_path)
    return snapshot


def restore(snapshot: Snapshot, blobs: BlobSource, folder: Path) -> None:
    """
    Write the files of a snapshot under `folder`, which is created if absent.

    Raises:
        IntegrityError: A path leads out of the folder.
        ClewlineError: A blob is missing or damaged, as the blob store says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path, digest in snapshot.files.items():
        if path not in snapshot.large:
            _destination(folder, path).write_bytes(blobs.get(digest))
    for path in snapshot.executable:
        if path not in snapshot.large:
            (folder / path).chmod(0o755)
    for path, target in snapshot.links.items():
        _destination(folder, path).symlink_to(target)


def _add(
    snapshot: Snapshot,
    root: Path,
    path: str,
    index: dict[str, IndexedFile],
    seen: dict[str, IndexedFile],
    blobs: BlobStore,
) -> None:
    """Add one file, unless it was deleted since it was listed or is not a regular file."""
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
            _add(snapshot, root, f"{path}/{inner}", index, seen, blobs)
    elif stat.S_ISLNK(status.st_mode):
        snapshot.links[path] = os.readlink(full)
    elif stat.S_ISREG(status.st_mode):
        entry = index.get(path)
        is_kept = entry is not None and (entry.size > LARGEST_BYTES or blobs.has(entry.digest))
        if entry is None or not is_kept or not entry.is_current(status):
            now, before = time.time_ns(), os.stat(full)  # as it is before it is read
            is_large = before.st_size > LARGEST_BYTES
            digest = digest_file(Path(full)) if is_large else blobs.put(Path(full).read_bytes())
            times = (before.st_mtime_ns, before.st_ctime_ns, now)
            entry = IndexedFile(before.st_ino, before.st_size, *times, digest)
        seen[path] = entry
        snapshot.files[path] = entry.digest
        if status.st_mode & 0o100:
            snapshot.executable.append(path)
        if entry.size > LARGEST_BYTES:
            snapshot.large[path] = entry.size


def _destination(folder: Path, path: str) -> Path:
    """Return the target of a path of a snapshot, with its folders created."""
    target = folder / path
    if path.startswith("/") or ".." in path.split("/"):
        raise IntegrityError(
            f"The snapshot names {path!r}, which leads out of its folder.",
            "It was not made by clewline: do not use it.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


# Listing the files: by Git where there is Git, otherwise by walking


def _list_files(root: Path) -> tuple[list[str], str | None, list[str]]:
    """
    List the project's own files under `root`, as sorted paths relative to it with `/`.

    With Git: tracked and untracked files that are not ignored, and the changes since
    the commit. Without Git: all but the folders of tools and caches; the commit
    is None and everything counts as changed.

    Returns:
        The paths (a Git submodule is one path, that of its folder), the commit, and the
        paths that differ from it: edited, added, deleted, untracked.
    """
    has_git = any((folder / ".git").exists() for folder in (root, *root.parents))
    if has_git:
        try:
            inside = _git(root, "rev-parse", "--is-inside-work-tree").communicate()[0]
            has_git = inside.strip() == b"true"
        except FileNotFoundError:  # Git is not installed
            has_git = False
    if not has_git:
        paths = sorted(walk(root))
        return paths, None, paths
    # The three commands run side by side.
    tracked = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    status = _git(root, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames",
                  "--", ".")  # fmt: skip
    where = _git(root, "rev-parse", "--show-prefix", "HEAD")
    paths = sorted({path.rstrip("/") for path in _entries(tracked) if is_own(path)})
    prefix, *rest = where.communicate()[0].split(b"\n")
    # Before the first commit there is no HEAD.
    commit = rest[0].decode() if where.returncode == 0 and rest else None
    changed = [entry[3:].removeprefix(os.fsdecode(prefix)) for entry in _entries(status)]
    return paths, commit, sorted(path for path in changed if is_own(path))


def _git(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["git", "--no-optional-locks", *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"LC_ALL": "C"},
    )


def _entries(process: subprocess.Popen[bytes]) -> list[str]:
    """Return the entries of a `-z` output of a Git command, which must succeed."""
    out, err = process.communicate()
    if process.returncode != 0:
        raise Fault(
            f"Git could not list the project: {err.decode(errors='replace').strip()}",
            "Fix the repository (`git status` shows what is wrong), then run again.",
        )
    return [os.fsdecode(part) for part in out.split(b"\0") if part]
