"""The packs of a store: any number of readers, each pack with one writer at a time."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clewline.store import locks
from clewline.store.disk import sync, sync_folder, write_all
from clewline.store.pack import Entry, frame, scan
from clewline.store.pack_index import PackIndex, read_index, write_index

FULL_BYTES = 128 << 20
FULL_COUNT = 32_768
INDEX_AFTER = 256
"""So many blobs may stand behind the index of a pack before it is written anew."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a blob lies."""

    pack: Pack
    entry: Entry
    durable: bool  # known to be; otherwise the pack must be synchronised first

    def read(self) -> bytes:
        """Read the bytes that stand there, not verified; fewer when the file was cut."""
        file = os.open(self.pack.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(file, self.entry.length, self.entry.offset)
        finally:
            os.close(file)


class Pack:
    """What a process knows of one pack. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index_path = path.with_suffix(".idx")
        self.index: PackIndex | None = read_index(self.index_path)
        self.known = self.index.covered if self.index else 0  # bytes
        self.behind: dict[bytes, Entry] = {}  # what stands behind the index

    @property
    def count(self) -> int:
        return (self.index.count if self.index else 0) + len(self.behind)

    def refresh(self) -> None:
        """Read what was written since."""
        if self.path.stat().st_size > self.known:
            found = scan(self.path, self.known)
            self.add(found.entries, found.end)

    def add(self, entries: Sequence[Entry], end: int) -> None:
        """Learn of blobs up to an offset."""
        self.behind.update((entry.digest, entry) for entry in entries)
        self.known = end

    def find(self, digest: bytes) -> Place | None:
        """Where a blob lies in this pack."""
        if (entry := self.behind.get(digest)) is not None:
            return Place(self, entry, durable=False)
        entry = self.index.find(digest) if self.index else None
        return None if entry is None else Place(self, entry, durable=True)

    def __iter__(self) -> Iterator[Entry]:
        yield from self.index or ()
        yield from self.behind.values()

    def write_index(self) -> None:
        """Write the index; the caller has made what is known durable."""
        # The index only saves reading the pack: without space for it all is well.
        with suppress(OSError):
            write_index(self.index_path, self, self.known)
            self.index = read_index(self.index_path)
            self.behind.clear()


class PackWriter:
    """
    The one writer of a pack, for as long as it is open.

    Not thread-safe. Holds the kernel's lock on the file, which goes with the process.
    """

    def __init__(self, pack: Pack, file: int) -> None:
        self.pack, self._file = pack, file
        self._end = pack.known
        self.pid = os.getpid()
        self.dirty = bool(pack.behind)  # a killed writer may not have come to synchronise these

    @property
    def is_full(self) -> bool:
        return self.pack.known >= FULL_BYTES or self.pack.count >= FULL_COUNT

    def append(self, blobs: Sequence[tuple[bytes, bytes]]) -> list[Entry]:
        """
        Write blobs, given as digest and bytes, in order; the pack has yet to `learn` of them.

        Returns:
            Those that were written: all, unless an error cut the writing short.

        Raises:
            OSError: Nothing could be written.
        """
        frames = [frame(digest, data) for digest, data in blobs]
        self.dirty = True
        try:
            write_all(self._file, b"".join(frames))
        except OSError:
            written = self._keep_whole(blobs, frames)
            if not written:
                raise
            return written
        return self._keep_whole(blobs, frames)

    def learn(self, entries: Sequence[Entry]) -> None:
        """Let the pack know what was appended."""
        self.pack.add(entries, self._end)

    def sync(self) -> None:
        """Make what was written durable."""
        if self.dirty:
            sync(self._file)
            self.dirty = False

    def close(self) -> None:
        """Synchronise, and let the pack go for another process to fill up."""
        try:
            if self.pid == os.getpid():
                self.sync()
                if len(self.pack.behind) > INDEX_AFTER or self.is_full:
                    self.pack.write_index()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let the pack go as it is; after a fork the child leaves the parent's lock alone."""
        if self.pid == os.getpid():
            locks.drop(self._file)
        os.close(self._file)

    def _keep_whole(
        self, blobs: Sequence[tuple[bytes, bytes]], frames: Sequence[bytes]
    ) -> list[Entry]:
        """Find the whole records that were written, and cut off what follows them."""
        size = os.fstat(self._file).st_size
        entries: list[Entry] = []
        end = self._end
        for (digest, data), framed in zip(blobs, frames, strict=True):
            if end + len(framed) > size:
                os.ftruncate(self._file, end)
                break
            end += len(framed)
            entries.append(Entry(digest, end - len(data), len(data)))
        self._end = end
        return entries


class Packs:
    """All packs of a folder. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._packs: dict[str, Pack] = {}
        self.refresh()

    def refresh(self) -> None:
        """Learn of packs and blobs that other processes wrote."""
        present = sorted(os.listdir(self.folder)) if self.folder.is_dir() else []
        for name in present:  # a folder without files may be lost by a copy of the store
            if name.endswith(".pack"):
                self._pack(name).refresh()

    def places(self, digest: bytes) -> Iterator[Place]:
        """Every place where a blob lies, as far as known."""
        for pack in self._packs.values():
            place = pack.find(digest)
            if place is not None:
                yield place

    def __iter__(self) -> Iterator[Pack]:
        return iter(self._packs.values())

    def writer(self) -> PackWriter:
        """Take a pack that has room and no writer, after mending it, or begin a new one."""
        chosen: PackWriter | None = None
        self.refresh()
        for pack in list(self._packs.values()):
            if chosen is not None and _is_settled(pack):
                continue
            taken = _take(pack)
            if taken is not None and chosen is None and not taken.is_full:
                chosen = taken
            elif taken is not None:
                taken.close()
        return chosen or self._begin()

    def _begin(self) -> PackWriter:
        name = f"{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(4)}.pack"
        file = os.open(
            self.folder / name,
            os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC,
            0o644,
        )
        try:
            locks.try_hold(file)
            sync_folder(self.folder)
        except OSError:
            os.close(file)
            raise
        return PackWriter(self._pack(name), file)

    def _pack(self, name: str) -> Pack:
        if name not in self._packs:
            self._packs[name] = Pack(self.folder / name)
        return self._packs[name]


def _is_settled(pack: Pack) -> bool:
    """Whether nothing stands in a pack but what is known of it."""
    return pack.path.stat().st_size == pack.known


def _take(pack: Pack) -> PackWriter | None:
    """Become the writer of a pack, and cut off what a killed writer left half written."""
    file = os.open(pack.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    if not locks.try_hold(file):
        os.close(file)
        return None
    found = scan(pack.path, pack.known)
    pack.add(found.entries, found.end)
    if found.torn:
        os.ftruncate(file, found.end)
    elif not _is_settled(pack):
        # Bytes that are no beginning of a record may be all that is left of one:
        # they stay for `clewline doctor`, and nothing is written behind them.
        os.close(file)
        return None
    return PackWriter(pack, file)
