"""Files that are durable when we say so, and what the disk's errors mean."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clewline.errors import ClewlineError, Fault, StoreFull, StoreReadOnly

# EFBIG is what a limit on the size of files gives.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class NotDurable(OSError):
    """A write did not reach the disk, and the kernel forgets it: trying again proves nothing."""


def disk_error(error: OSError, place: Path) -> ClewlineError:
    """Return what a disk error means: a `StoreFull`, `StoreReadOnly` or `Fault`."""
    if error.errno in _FULL:
        return StoreFull(
            f"The disk under {place} is full ({error.strerror}); nothing was recorded in part.",
            "Free some space and run it again.",
        )
    if error.errno in _READ_ONLY:
        return StoreReadOnly(
            f"{place} cannot be written ({error.strerror}).",
            "Mount the disk writable, or give this user the right to write there.",
        )
    return Fault(
        f"The disk under {place} failed ({error.strerror}).",
        "Look after the disk, then run it again.",
    )


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """
    Raise what a full or unwritable disk means.

    Raises:
        StoreFull: No space, quota or file size left.
        StoreReadOnly: The place cannot be written.
        Fault: The disk failed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (*_FULL, *_READ_ONLY, errno.EIO):
            raise disk_error(error, place) from error
        raise


def write_all(file: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte at the end of a file."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def sync(file: int) -> None:
    """
    Make the bytes of an open file durable.

    Raises:
        NotDurable: They are not, and never will be by trying again.
    """
    try:
        os.fsync(file)
    except OSError as error:
        raise NotDurable(error.errno, error.strerror) from error


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable, whoever wrote them."""
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """
    Give a path to write to, which takes the place of `path` once the block has ended well.

    Readers see the old file or the new, never a part.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes, *, durable: bool) -> None:
    """Put a whole file, which only this user may read, in place of `path`."""
    with replacing(path) as aside:
        aside.touch(0o600)
        aside.write_bytes(data)
        if durable:
            sync_file(aside)
    if durable:
        sync_folder(path.parent)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        sync(handle)
    finally:
        os.close(handle)
