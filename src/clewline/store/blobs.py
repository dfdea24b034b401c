"""
Blobs as files: small ones in packs, large ones a file each.

Nothing that was flushed is lost by kill -9 or power loss, and nothing that was
half written is ever taken for a blob. Any number of processes write at once,
each into a pack of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3

from clewline.errors import BlobCorrupt, BlobMissing, Fault
from clewline.store.digest import Digest, digest_bytes, digest_file
from clewline.store.disk import NotDurable, disk_errors, replacing, sync_file, sync_folder
from clewline.store.loose import LooseFiles, pieces_of
from clewline.store.packs import Packs, PackWriter

LOOSE_OVER = 1 << 20
"""Blobs of more bytes than this have a file of their own."""

_BUFFER_BYTES = 4 << 20


class Blobs:
    """The blobs of a store in a folder; the contract stands on `BlobStore`."""

    def __init__(self, root: Path) -> None:
        """Open the blobs of a folder that `create` has made."""
        self.root = root
        self._loose = LooseFiles(root)
        self._packs = Packs(root / "packs")
        self._lock = threading.Lock()  # guards what is known: held for moments
        self._writing = threading.Lock()  # guards the files: held while the disk works
        self._buffer: dict[Digest, bytes] = {}
        self._buffered_bytes = 0
        self._aside: dict[Digest, Path] = {}
        self._foreign: set[Path] = set()  # taken as ours, perhaps not durable yet
        self._writer: PackWriter | None = None
        self._broken: NotDurable | None = None

    @classmethod
    def create(cls, root: Path) -> Blobs:
        """Make the folders, where they are not there, and open them."""
        with disk_errors(root):
            for name in ("packs", "loose", "incoming"):
                (root / name).mkdir(parents=True, exist_ok=True)
            sync_folder(root)
        return cls(root)

    def put(self, data: bytes) -> Digest:
        """Store bytes; see `BlobStore`."""
        digest = digest_bytes(data)
        with self._lock:
            if self._is_sound(digest, data):
                return digest
            if len(data) <= LOOSE_OVER:
                self._buffer[digest] = data
                self._buffered_bytes += len(data)
            is_much = self._buffered_bytes > _BUFFER_BYTES
        if len(data) > LOOSE_OVER:
            return self._put_aside(iter((data,)))
        if is_much:
            self._write_buffer()
        return digest

    def put_file(self, path: Path) -> Digest:
        """Store a file; see `BlobStore`."""
        if path.stat().st_size <= LOOSE_OVER:
            return self.put(path.read_bytes())
        digest = digest_file(path)
        with self._lock:
            if digest in self._aside:
                return digest
        stored = self._loose.path(digest)
        if stored.exists() and digest_file(stored) == digest:
            with self._lock:
                self._foreign.add(stored)
            return digest
        return self._put_aside(pieces_of(path))

    def get(self, digest: Digest) -> bytes:
        """Read a blob; see `BlobStore`."""
        damaged = False
        for data in self._copies(digest):
            if digest_bytes(data) == digest:
                return data
            damaged = True
        raise self._corrupt(digest) if damaged else self._missing(digest)

    def has(self, digest: Digest) -> bool:
        """Whether there is a blob; see `BlobStore`."""
        with self._lock:
            return self._knows(digest) or (self._refreshed() and self._knows(digest))

    def copy_to(self, digest: Digest, path: Path) -> None:
        """Write a blob to a file; see `BlobStore`."""
        with disk_errors(path), replacing(path) as aside:
            self._stream(digest, aside)

    def flush(self) -> None:
        """Make everything durable; see `BlobStore`."""
        with self._writing, disk_errors(self.root), self._trusted():
            if self._broken is not None:
                raise self._unsure(self._broken)
            self._drain()
            with self._lock:
                aside, foreign = dict(self._aside), set(self._foreign)
            if aside:
                self._loose.admit(aside)
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
        """Give every digest; see `BlobStore`."""
        with self._lock:
            self._packs.refresh()
            known = {Digest(entry.digest.hex()) for pack in self._packs for entry in pack}
            known.update(self._loose, self._buffer, self._aside)
        return iter(known)

    def recover(self) -> None:
        """Remove what killed writers left half written; the first write does so by itself."""
        with self._writing, disk_errors(self.root), self._trusted():
            self._our_writer()

    def close(self) -> None:
        """Flush, and let the pack go."""
        try:
            self.flush()
        finally:
            with self._writing, self._lock, disk_errors(self.root), self._trusted():
                writer, self._writer = self._writer, None
                if writer is not None:
                    self._let_go(writer)

    def _is_sound(self, digest: Digest, data: bytes) -> bool:
        """Whether the same bytes are stored; a damaged copy does not count."""
        if digest in self._buffer or digest in self._aside:
            return True
        for place in self._packs.places(bytes.fromhex(digest)):
            if place.read() == data:
                if not place.durable and not self._is_ours(place.pack.path):
                    self._foreign.add(place.pack.path)
                return True
        stored = self._loose.path(digest)
        if len(data) > LOOSE_OVER and stored.exists() and stored.read_bytes() == data:
            self._foreign.add(stored)
            return True
        return False

    def _is_ours(self, pack: Path) -> bool:
        return self._writer is not None and self._writer.pack.path == pack

    def _put_aside(self, pieces: Iterator[bytes]) -> Digest:
        with self._writing, disk_errors(self.root):
            digest, path = self._loose.write_aside(pieces)
        with self._lock:
            kept = self._aside.setdefault(digest, path)
        if kept != path:
            path.unlink()  # another thread was quicker
        return digest

    def _write_buffer(self) -> None:
        with self._writing, disk_errors(self.root), self._trusted():
            self._drain()

    def _drain(self) -> None:
        """Write the buffer into our pack; what does not fit on the disk stays in the buffer."""
        while self._buffer:
            with self._lock:
                blobs = [(bytes.fromhex(name), data) for name, data in self._buffer.items()]
            writer = self._our_writer()
            entries = writer.append(blobs)
            with self._lock:
                writer.learn(entries)
                for digest, data in blobs[: len(entries)]:
                    del self._buffer[Digest(digest.hex())]
                    self._buffered_bytes -= len(data)

    def _our_writer(self) -> PackWriter:
        writer = self._writer
        if writer is not None and (writer.is_full or writer.pid != os.getpid()):
            # After a fork the pack is the parent's: the child leaves it alone.
            with self._lock:
                self._writer = None
                self._let_go(writer)
            writer = None
        if writer is None:
            self._loose.sweep()
            with self._lock:
                writer = self._packs.writer()
        self._writer = writer
        return writer

    def _let_go(self, writer: PackWriter) -> None:
        if self._broken is None:
            writer.close()
        else:
            writer.abandon()  # its index would call durable what is not

    @contextmanager
    def _trusted(self) -> Iterator[None]:
        """After a failed fsync the kernel forgets what was not written: we trust nothing more."""
        try:
            yield
        except NotDurable as error:
            self._broken = error
            raise

    def _copies(self, digest: Digest) -> Iterator[bytes]:
        """Every copy, not verified; looks again at the disk when those known did not do."""
        yield from self._known_copies(digest)
        with self._lock:
            self._packs.refresh()
        yield from self._known_copies(digest)

    def _known_copies(self, digest: Digest) -> Iterator[bytes]:
        with self._lock:
            buffered = self._buffer.get(digest)
            places = list(self._packs.places(_binary(digest)))
            files = (self._aside.get(digest), self._loose.path(digest))
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
            or next(self._packs.places(_binary(digest)), None) is not None
            or self._loose.path(digest).exists()
        )

    def _refreshed(self) -> bool:
        self._packs.refresh()
        return True

    def _stream(self, digest: Digest, target: Path) -> None:
        with self._lock:
            stored = self._aside.get(digest, self._loose.path(digest))
        if not stored.exists():
            target.write_bytes(self.get(digest))
            return
        hasher = blake3()
        with target.open("wb") as file:
            for piece in pieces_of(stored):
                hasher.update(piece)
                file.write(piece)
        if hasher.hexdigest() != digest:
            raise self._corrupt(digest)

    def _missing(self, digest: Digest) -> BlobMissing:
        return BlobMissing(
            f"The blob {digest} is not in {self.root}.",
            "Run again without the cache what made it, or bring it back from a backup; "
            "`clewline doctor` names all that is missing.",
        )

    def _corrupt(self, digest: Digest) -> BlobCorrupt:
        return BlobCorrupt(
            f"The bytes of the blob {digest} in {self.root} are not those that were stored.",
            "Run again without the cache what made it: stored again it is mended. "
            "`clewline doctor` names all that is damaged.",
        )

    def _unsure(self, error: OSError) -> Fault:
        return Fault(
            f"The disk under {self.root} failed to make writes durable ({error.strerror}); "
            "what was not yet recorded may be lost.",
            "Look after the disk, then start this process again.",
        )


def _binary(digest: Digest) -> bytes:
    return bytes.fromhex(digest)
