"""Files that are durable when we say so, and what the disk's errors mean."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairlead.errors import Fault, StoreFull, StoreReadOnly

# EFBIG is what a limit on the size of files gives.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


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
        if error.errno in _FULL:
            raise StoreFull(
                f"The disk under {place} is full ({error.strerror}); nothing was recorded in part.",
                "Free some space and run it again.",
            ) from error
        if error.errno in _READ_ONLY:
            raise StoreReadOnly(
                f"{place} cannot be written ({error.strerror}).",
                "Mount the disk writable, or give this user the right to write there.",
            ) from error
        if error.errno == errno.EIO:
            raise Fault(
                f"The disk under {place} failed ({error.strerror}).",
                "Look after the disk, then run it again.",
            ) from error
        raise


def write_all(file: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte at the end of a file."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes, *, durable: bool) -> None:
    """Put a whole file in place of `path`: readers see the old bytes or the new, never a part."""
    written = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with written.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)
