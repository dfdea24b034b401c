"""
Blobs: bytes under the digest of their content, in files; small ones in packs, large ones alone.

Nothing that was flushed is lost by kill -9 or power loss, and nothing that was half written is
ever taken for a blob. Any number of processes write at once, each into a pack of its own.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from blake3 import blake3

from clewline.errors import BlobCorrupt, BlobMissing, Fault, IntegrityError
from clewline.store.digest import Digest, digest_bytes, digest_file
from clewline.store.disk import (
    NotDurable,
    disk_errors,
    make_folder,
    replacing,
    sync_file,
    sync_folder,
    write_all,
)
from clewline.store.locks import process_state, this_process
from clewline.store.packs import Packs, PackWriter

T = TypeVar("T", bound=msgspec.Struct)

LARGE_OVER = 1 << 20
"""Blobs of more bytes than this have a file of their own."""

_BUFFER_BYTES = 4 << 20
_PIECE_BYTES = 1 << 20


class BlobStore(Protocol):
    """
    Bytes under the digest of their content.

    May be used from any thread. What was put is visible at once in the process that put it, and
    durable and visible to all after `flush`; a process that is killed before loses it without a
    trace that anyone could mistake for a blob. What is read is verified. The shipped contract is
    `clewline.testing.blob_store`.

    Every write raises `StoreFull` when there is no space and `StoreReadOnly` when the store
    cannot be written; what was put before stays, and `flush` can be tried again.
    """

    def put(self, data: bytes) -> Digest:
        """Store bytes; the same ones again cost a comparison, and repair a damaged copy."""

    def put_file(self, path: Path) -> Digest:
        """Store the bytes of a file, however large, in pieces."""

    def get(self, digest: Digest) -> bytes:
        """
        Read a blob.

        Raises:
            BlobMissing: There is none under this digest.
            BlobCorrupt: Its bytes are not those that were stored.
        """

    def has(self, digest: Digest) -> bool:
        """Return whether there is a blob under this digest."""

    def copy_to(self, digest: Digest, path: Path) -> None:
        """
        Write a blob to a file, in pieces; the file appears whole and verified, or not at all.

        Raises:
            BlobMissing, BlobCorrupt: As `get`.
        """

    def flush(self) -> None:
        """Make everything that was put durable, and visible to other processes."""

    def digests(self) -> Iterator[Digest]:
        """Yield the digest of every blob, once each, in no order."""

    def close(self) -> None:
        """Flush, and release files and locks."""


def encode_struct(value: msgspec.Struct) -> bytes:
    """Encode a struct as JSON for a blob; equal values give equal bytes."""
    return msgspec.json.encode(value, order="deterministic")


def decode_struct(data: bytes, cls: type[T], what: str) -> T:
    """
    Decode a struct from the JSON of a blob; `what` names it in the error.

    Raises:
        IntegrityError: The bytes do not hold such a struct.
    """
    try:
        return msgspec.json.decode(data, type=cls)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"{what} cannot be read: {error}.", "Run `clewline doctor` to check the store."
        ) from error


class FileBlobStore:
    """The blobs of a store in a folder; the contract stands on `BlobStore`."""

    def __init__(self, root: Path) -> None:
        """Open the blobs of a folder that `create` has made."""
        self.root = root
        self._large = LargeBlobs(root)
        self._packs = Packs(root / "packs")
        self._lock = threading.Lock()  # guards what is known: held for moments
        self._writing = threading.Lock()  # guards the files: held while the disk works
        self._buffer: dict[Digest, bytes] = {}
        self._buffered_bytes = 0
        self._aside: dict[Digest, Path] = {}
        self._foreign: set[Path] = set()  # written by others and relied on, perhaps not durable
        self._writer: PackWriter | None = None
        self._broken: NotDurable | None = None

    @classmethod
    def create(cls, root: Path) -> FileBlobStore:
        """Make the folders, where they are not there, and open them."""
        with disk_errors(root):
            for name in ("packs", "loose", "incoming"):
                make_folder(root / name)
            sync_folder(root)
        return cls(root)

    def put(self, data: bytes) -> Digest:
        """Store bytes; see `BlobStore`."""
        digest = digest_bytes(data)
        with self._lock, disk_errors(self.root):
            if self._is_sound(digest, data):
                return digest
            if len(data) <= LARGE_OVER:
                self._buffer[digest] = data
                self._buffered_bytes += len(data)
            is_much = self._buffered_bytes > _BUFFER_BYTES
        if len(data) > LARGE_OVER:
            return self._put_aside(iter((data,)))
        if is_much:
            with self._write():
                self._write_buffer()
        return digest

    def put_file(self, path: Path) -> Digest:
        """Store a file; see `BlobStore`."""
        with disk_errors(path):
            if path.stat().st_size <= LARGE_OVER:
                return self.put(path.read_bytes())
            digest = digest_file(path)
        with self._lock:
            if digest in self._aside:
                return digest
        stored = self._large.path(digest)
        with disk_errors(stored):
            is_stored = stored.exists() and digest_file(stored) == digest
        if is_stored:
            with self._lock:
                self._foreign.add(stored)
            return digest
        return self._put_aside(read_pieces(path))

    def get(self, digest: Digest) -> bytes:
        """Read a blob; see `BlobStore`."""
        damaged = False
        for attempt in range(2):  # again when those known did not do: others may have written
            with disk_errors(self.root):
                if attempt:
                    with self._lock:
                        self._packs.refresh()
                for data in self._known_copies(digest):
                    if digest_bytes(data) == digest:
                        return data
                    damaged = True
        raise self._corrupt(digest) if damaged else self._missing(digest)

    def has(self, digest: Digest) -> bool:
        """Return whether there is a blob; see `BlobStore`."""
        with self._lock, disk_errors(self.root):
            if self._knows(digest):
                return True
            self._packs.refresh()
            return self._knows(digest)

    def copy_to(self, digest: Digest, path: Path) -> None:
        """Write a blob to a file; see `BlobStore`."""
        with self._lock:
            stored = self._aside.get(digest, self._large.path(digest))
        with disk_errors(path), replacing(path) as target:
            if not stored.exists():
                target.write_bytes(self.get(digest))
                return
            hasher = blake3()
            with target.open("wb") as file:
                for piece in read_pieces(stored):
                    hasher.update(piece)
                    file.write(piece)
            if hasher.hexdigest() != digest:
                raise self._corrupt(digest)

    def flush(self) -> None:
        """Make everything durable; see `BlobStore`."""
        with self._write():
            if self._broken is not None:
                raise Fault(
                    f"The disk under {self.root} failed to make writes durable "
                    f"({self._broken.strerror}); what was not yet recorded may be lost.",
                    "Check the disk, then start this process again.",
                )
            self._write_buffer()
            with self._lock:
                aside, foreign = dict(self._aside), set(self._foreign)
            if aside:
                self._large.admit(aside)
            for path in foreign:
                sync_file(path)
                sync_folder(path.parent)
            if self._writer is not None:
                self._writer.sync()
            with self._lock:
                for name in aside:
                    del self._aside[name]
                self._foreign -= foreign

    def digests(self) -> Iterator[Digest]:
        """Yield every digest; see `BlobStore`."""
        with self._lock, disk_errors(self.root):
            self._packs.refresh()
            known = {Digest(entry.digest.hex()) for pack in self._packs for entry in pack}
            known.update(self._large, self._buffer, self._aside)
        return iter(known)

    def recover(self) -> None:
        """Remove what killed writers left half written; the first write does so too."""
        with self._write():
            self._our_writer()

    def close(self) -> None:
        """Flush, and release the pack."""
        try:
            self.flush()
        finally:
            with self._write(), self._lock:
                writer, self._writer = self._writer, None
                if writer is not None:
                    self._release(writer)

    @contextmanager
    def _write(self) -> Iterator[None]:
        """Write files, one thread at a time; after a failed fsync nothing more is trusted."""
        with self._writing, disk_errors(self.root):
            try:
                yield
            except NotDurable as error:
                self._broken = error  # the kernel forgets what was not written
                raise

    def _is_sound(self, digest: Digest, data: bytes) -> bool:
        """Return whether the same bytes are stored; a damaged copy does not count."""
        if digest in self._buffer or digest in self._aside:
            return True
        for place in self._packs.places(bytes.fromhex(digest)):
            if place.read() == data:
                ours = self._writer is not None and self._writer.pack.path == place.pack.path
                if not place.durable and not ours:
                    self._foreign.add(place.pack.path)
                return True
        stored = self._large.path(digest)
        if len(data) > LARGE_OVER and stored.exists() and stored.read_bytes() == data:
            self._foreign.add(stored)
            return True
        return False

    def _put_aside(self, pieces: Iterator[bytes]) -> Digest:
        with self._writing, disk_errors(self.root):
            digest, path = self._large.write_aside(pieces)
        with self._lock:
            kept = self._aside.setdefault(digest, path)
        if kept != path:
            path.unlink()  # another thread was quicker
        return digest

    def _write_buffer(self) -> None:
        """Write the buffer into our pack; what does not fit on the disk stays in the buffer."""
        while self._buffer:
            with self._lock:
                blobs = [(bytes.fromhex(name), data) for name, data in self._buffer.items()]
            writer = self._our_writer()
            entries = writer.append(blobs)
            with self._lock:
                writer.commit(entries)
                for digest, data in blobs[: len(entries)]:
                    del self._buffer[Digest(digest.hex())]
                    self._buffered_bytes -= len(data)

    def _our_writer(self) -> PackWriter:
        writer = self._writer
        if writer is not None and (writer.is_full or writer.pid != os.getpid()):
            # After a fork the pack is the parent's: the child leaves it alone.
            with self._lock:
                self._writer = None
                self._release(writer)
            writer = None
        if writer is None:
            self._large.sweep()
            with self._lock:
                writer = self._packs.writer()
        self._writer = writer
        return writer

    def _release(self, writer: PackWriter) -> None:
        if self._broken is None:
            writer.close()
        else:
            writer.abandon()  # its index would call durable what is not

    def _known_copies(self, digest: Digest) -> Iterator[bytes]:
        """Yield every copy, not verified."""
        with self._lock:
            buffered = self._buffer.get(digest)
            places = list(self._packs.places(bytes.fromhex(digest)))
            files = (self._aside.get(digest), self._large.path(digest))
        if buffered is not None:
            yield buffered
        for place in places:
            yield place.read()
        for path in files:
            with suppress(FileNotFoundError):
                if path is not None:
                    yield path.read_bytes()

    def _knows(self, digest: Digest) -> bool:
        return (
            digest in self._buffer
            or digest in self._aside
            or next(self._packs.places(bytes.fromhex(digest)), None) is not None
            or self._large.path(digest).exists()
        )

    def _missing(self, digest: Digest) -> BlobMissing:
        return BlobMissing(
            f"The blob {digest} is not in {self.root}.",
            "Run the step that made it again without the cache, or restore it from a backup; "
            "`clewline doctor` lists everything that is missing.",
        )

    def _corrupt(self, digest: Digest) -> BlobCorrupt:
        return BlobCorrupt(
            f"The bytes of the blob {digest} in {self.root} are not those that were stored.",
            "Run the step that made it again without the cache: storing it again repairs it. "
            "`clewline doctor` lists everything that is damaged.",
        )


_numbers = itertools.count()  # of the process: it may have a store open twice


class LargeBlobs:
    """
    Large blobs, a file each: `loose/ab/cdef…` under the digest.

    A file is written aside, under the name of its process, and takes its place only when its
    bytes are durable, so that a name never stands for less than the blob. Only reading is
    thread-safe.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "loose"
        self.incoming = root / "incoming"

    def path(self, digest: Digest) -> Path:
        """Return where a blob lies, or would lie."""
        return self.folder / digest[:2] / digest[2:]

    def write_aside(self, pieces: Iterable[bytes]) -> tuple[Digest, Path]:
        """Write bytes to a file of this process; it is not yet a blob."""
        path = self.incoming / f"{this_process()}:{next(_numbers)}"
        hasher = blake3()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        try:
            for piece in pieces:
                hasher.update(piece)
                write_all(file, piece)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(file)
        return Digest(hasher.hexdigest()), path

    def admit(self, aside: dict[Digest, Path]) -> None:
        """
        Make files that were written aside durable, and blobs.

        A file that is gone was admitted by an attempt that failed later, or by a forked child.
        """
        for digest, written in aside.items():
            sync_file(written if written.exists() else self.path(digest))
        folders = {self.path(digest).parent for digest in aside}
        for folder in folders:
            make_folder(folder)
        for digest, written in aside.items():
            if written.exists():
                written.replace(self.path(digest))
        for folder in (*folders, *([self.folder] if folders else [])):
            sync_folder(folder)

    def leftovers(self) -> list[Path]:
        """List the files that processes wrote aside before they died."""
        return [
            path
            for path in sorted(self.incoming.glob("*"))
            if process_state(path.name.rpartition(":")[0]) == "dead"
        ]

    def sweep(self) -> None:
        """Remove what dead processes wrote aside."""
        for path in self.leftovers():
            path.unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Digest]:
        for folder in sorted(self.folder.glob("*")):
            for path in sorted(folder.iterdir()):
                yield Digest(folder.name + path.name)


def read_pieces(path: Path) -> Iterator[bytes]:
    """Read a file in pieces of 1 MiB."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
