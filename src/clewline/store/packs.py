"""
Packs: many small blobs in one file that only grows, with any number of readers and one writer.

A record of a pack is a header of 48 bytes (magic, checksum of the rest of the header, length,
digest) and the blob. A record whose end is missing was being written when its process died: it
is no blob, and nothing refers to it.

The index beside a pack holds its digests in order, so that opening a store reads no pack. It
holds nothing that the pack does not: a missing or damaged index is written again, and a pack
that has grown is read from where its index ends.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import time
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from clewline.store.disk import replace_file, sync, sync_folder, write_all
from clewline.store.locks import try_lock, unlock

FULL_BYTES = 128 << 20
FULL_COUNT = 32_768
INDEX_AFTER = 256
"""Blobs that may stand behind the index of a pack before the index is written again."""

MAGIC = b"CLB1"
_HEADER = struct.Struct("<4sIQ32s")
_CHECKED = struct.Struct("<Q32s")
HEADER_BYTES = _HEADER.size

_INDEX_MAGIC = b"CLX1"
_INDEX_HEAD = struct.Struct("<4sIQQ")  # magic, checksum of the rest, covered, count
_PLACE = struct.Struct("<QQ")
_DIGEST_BYTES = 32


class PackEntry(NamedTuple):
    """Where a blob lies in its pack."""

    digest: bytes  # 32
    offset: int  # of the blob's first byte
    length: int


@dataclass(slots=True)
class PackScan:
    """What a part of a pack holds."""

    entries: list[PackEntry] = field(default_factory=list)
    end: int = 0  # where the last whole record ends
    damaged: list[int] = field(default_factory=list)  # offsets at which no header could be read
    torn: bool = False  # after the end stands the beginning of a record, and no more


def pack_record(digest: bytes, data: bytes) -> bytes:
    """Return the bytes of one record."""
    checksum = zlib.crc32(_CHECKED.pack(len(data), digest))
    return _HEADER.pack(MAGIC, checksum, len(data), digest) + data


def scan_pack(path: Path, start: int = 0) -> PackScan:
    """Read the headers of a pack from an offset at which a record begins."""
    result = PackScan(end=start)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= start:
            return result
        view = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    position = start
    with view:
        while position < size:
            entry = _entry_at(view, position)
            if entry is not None and entry.offset + entry.length <= size:
                result.entries.append(entry)
                position = result.end = entry.offset + entry.length
                continue
            following = _next_record(view, position + 1)
            if following is None:
                tail = view[position:size]
                # The beginning of a header, or the zeros that a power loss leaves.
                begins = len(tail) < HEADER_BYTES and MAGIC.startswith(tail[: len(MAGIC)])
                result.torn = entry is not None or begins or not any(tail)
                if not result.torn:
                    result.damaged.append(position)
                break
            result.damaged.append(position)
            position = following
    return result


def _entry_at(view: mmap.mmap, position: int) -> PackEntry | None:
    if position + HEADER_BYTES > len(view):
        return None
    magic, checksum, length, digest = _HEADER.unpack_from(view, position)
    if magic != MAGIC or checksum != zlib.crc32(_CHECKED.pack(length, digest)):
        return None
    return PackEntry(digest, position + HEADER_BYTES, length)


def _next_record(view: mmap.mmap, position: int) -> int | None:
    """Find where the next whole record begins: a damaged header must not hide those behind it."""
    while (position := view.find(MAGIC, position)) >= 0:
        entry = _entry_at(view, position)
        if entry is not None and entry.offset + entry.length <= len(view):
            return position
        position += 1
    return None


class PackIndex:
    """The index of the first `covered` bytes of a pack."""

    def __init__(self, view: mmap.mmap, covered: int, count: int) -> None:
        self._view, self.covered, self.count = view, covered, count

    def find(self, digest: bytes) -> PackEntry | None:
        """Find a blob; None when the pack did not hold it."""
        at = bisect_left(range(self.count), digest, key=self._digest)
        return self._entry(at) if at < self.count and self._digest(at) == digest else None

    def __iter__(self) -> Iterator[PackEntry]:
        return map(self._entry, range(self.count))

    def _digest(self, at: int) -> bytes:
        start = _INDEX_HEAD.size + at * _DIGEST_BYTES
        return self._view[start : start + _DIGEST_BYTES]

    def _entry(self, at: int) -> PackEntry:
        places = _INDEX_HEAD.size + self.count * _DIGEST_BYTES
        offset, length = _PLACE.unpack_from(self._view, places + at * _PLACE.size)
        return PackEntry(self._digest(at), offset, length)


def read_index(path: Path) -> PackIndex | None:
    """Open an index; None when there is none, or it is not whole."""
    try:
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):  # ValueError: an empty file cannot be mapped
        return None
    if len(view) < _INDEX_HEAD.size:
        return None
    magic, checksum, covered, count = _INDEX_HEAD.unpack_from(view)
    whole = len(view) == _INDEX_HEAD.size + count * (_DIGEST_BYTES + _PLACE.size)
    if magic != _INDEX_MAGIC or not whole or checksum != zlib.crc32(memoryview(view)[8:]):
        return None
    return PackIndex(view, covered, count)


def write_index(path: Path, entries: Iterable[PackEntry], covered: int) -> None:
    """Write the index of a pack whose first `covered` bytes are durable."""
    ordered = sorted(entries)
    digests = b"".join(entry.digest for entry in ordered)
    places = b"".join(_PLACE.pack(entry.offset, entry.length) for entry in ordered)
    rest = struct.pack("<QQ", covered, len(ordered)) + digests + places
    # Not synchronised: after a power loss it is whole, or found not to be and written again.
    replace_file(path, _INDEX_MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest, durable=False)


class Pack:
    """What a process knows of one pack. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index_path = path.with_suffix(".idx")
        self.index: PackIndex | None = read_index(self.index_path)
        self.known = self.index.covered if self.index else 0  # bytes
        self.behind: dict[bytes, PackEntry] = {}  # blobs behind the index

    @property
    def count(self) -> int:
        return (self.index.count if self.index else 0) + len(self.behind)

    @property
    def is_read(self) -> bool:
        """Whether the pack holds nothing but what is known of it."""
        return self.path.stat().st_size == self.known

    def refresh(self) -> None:
        """Read what was written since."""
        if self.path.stat().st_size > self.known:
            found = scan_pack(self.path, self.known)
            self.add(found.entries, found.end)

    def add(self, entries: Sequence[PackEntry], end: int) -> None:
        """Add blobs that are known up to an offset."""
        self.behind.update((entry.digest, entry) for entry in entries)
        self.known = end

    def find(self, digest: bytes) -> BlobPlace | None:
        """Find a blob in this pack."""
        if (entry := self.behind.get(digest)) is not None:
            return BlobPlace(self, entry, durable=False)
        entry = self.index.find(digest) if self.index else None
        return None if entry is None else BlobPlace(self, entry, durable=True)

    def __iter__(self) -> Iterator[PackEntry]:
        yield from self.index or ()
        yield from self.behind.values()


@dataclass(frozen=True, slots=True)
class BlobPlace:
    """Where a blob lies."""

    pack: Pack
    entry: PackEntry
    durable: bool  # known to be; otherwise the pack must be synchronised first

    def read(self) -> bytes:
        """Read the bytes that stand there, not verified; fewer when the file was cut."""
        file = os.open(self.pack.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(file, self.entry.length, self.entry.offset)
        finally:
            os.close(file)


class PackWriter:
    """
    The one writer of a pack, for as long as it is open.

    Not thread-safe. Holds the kernel's lock on the file, which ends with the process.
    """

    def __init__(self, pack: Pack, file: int) -> None:
        self.pack, self._file = pack, file
        self._end = pack.known
        self.pid = os.getpid()
        self.dirty = bool(pack.behind)  # a killed writer may not have come to synchronise these

    @property
    def is_full(self) -> bool:
        return self.pack.known >= FULL_BYTES or self.pack.count >= FULL_COUNT

    def append(self, blobs: Sequence[tuple[bytes, bytes]]) -> list[PackEntry]:
        """
        Write blobs, given as digest and bytes, in order; `commit` tells the pack of them.

        Returns:
            The blobs that were written: all, unless an error cut the writing short.

        Raises:
            OSError: Nothing could be written.
        """
        records = [pack_record(digest, data) for digest, data in blobs]
        self.dirty = True
        failed: OSError | None = None
        try:
            write_all(self._file, b"".join(records))
        except OSError as error:
            failed = error
        # Keep the whole records, and cut off what follows them.
        size = os.fstat(self._file).st_size
        entries: list[PackEntry] = []
        for (digest, data), record in zip(blobs, records, strict=True):
            if self._end + len(record) > size:
                os.ftruncate(self._file, self._end)
                break
            self._end += len(record)
            entries.append(PackEntry(digest, self._end - len(data), len(data)))
        if failed is not None and not entries:
            raise failed
        return entries

    def commit(self, entries: Sequence[PackEntry]) -> None:
        """Tell the pack what was appended."""
        self.pack.add(entries, self._end)

    def sync(self) -> None:
        """Make what was written durable."""
        if self.dirty:
            sync(self._file)
            self.dirty = False

    def close(self) -> None:
        """Make all durable, and release the pack so that another process can fill it."""
        try:
            if self.pid == os.getpid():
                self.sync()
                if len(self.pack.behind) > INDEX_AFTER or self.is_full:
                    self._write_index()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Release the pack as it is; after a fork the child leaves the parent's lock alone."""
        if self.pid == os.getpid():
            unlock(self._file)
        os.close(self._file)

    def _write_index(self) -> None:
        pack = self.pack
        with suppress(OSError):  # the index only saves reading the pack: a full disk does no harm
            write_index(pack.index_path, pack, pack.known)
            pack.index = read_index(pack.index_path)
            pack.behind.clear()


class Packs:
    """All packs of a folder. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._packs: dict[str, Pack] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read which packs and blobs other processes wrote."""
        present = sorted(os.listdir(self.folder)) if self.folder.is_dir() else []
        for name in present:  # a copy of the store may have left an empty folder out
            if name.endswith(".pack"):
                self._pack(name).refresh()

    def places(self, digest: bytes) -> Iterator[BlobPlace]:
        """Yield every place where a blob lies, as far as known."""
        for pack in self._packs.values():
            place = pack.find(digest)
            if place is not None:
                yield place

    def __iter__(self) -> Iterator[Pack]:
        return iter(self._packs.values())

    def writer(self) -> PackWriter:
        """Take a pack that has room and no writer, after repairing it, or begin a new one."""
        chosen: PackWriter | None = None
        self.refresh()
        for pack in list(self._packs.values()):
            if chosen is not None and pack.is_read:
                continue
            taken = _take(pack)
            if taken is not None and chosen is None and not taken.is_full:
                chosen = taken
            elif taken is not None:
                taken.close()
        return chosen or self._begin()

    def _begin(self) -> PackWriter:
        name = f"{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(4)}.pack"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self.folder / name, flags, 0o600)
        try:
            try_lock(file)
            sync_folder(self.folder)
        except OSError:
            os.close(file)
            raise
        return PackWriter(self._pack(name), file)

    def _pack(self, name: str) -> Pack:
        if name not in self._packs:
            self._packs[name] = Pack(self.folder / name)
        return self._packs[name]


def _take(pack: Pack) -> PackWriter | None:
    """Become the writer of a pack, and cut off what a killed writer left half written."""
    file = os.open(pack.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    if not try_lock(file):
        os.close(file)
        return None
    found = scan_pack(pack.path, pack.known)
    pack.add(found.entries, found.end)
    if found.torn:
        os.ftruncate(file, found.end)
    elif not pack.is_read:
        # Bytes that are no beginning of a record may be all that is left of one:
        # they stay for `clewline doctor`, and nothing is written behind them.
        os.close(file)
        return None
    return PackWriter(pack, file)
