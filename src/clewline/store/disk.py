"""Files that are durable when we say so, and the meaning of the disk's errors."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clewline.errors import ClewlineError, Fault, Overloaded, StoreFull, StoreReadOnly

# EFBIG is what a limit on the size of files gives.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


class NotDurable(OSError):
    """A write did not reach the disk, and the kernel forgets it: trying again proves nothing."""


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """
    Translate errors of the disk under a place.

    Raises:
        StoreFull: No space, quota or file size is left.
        StoreReadOnly: The place cannot be written, or this user may not use it.
        Overloaded: Too many files are open.
        Fault: The disk failed.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        raise disk_error(error, place) from error


def is_disk_error(error: OSError) -> bool:
    """Return whether an error comes from a disk, or from too many open files; not from a bug."""
    return error.errno in (*_FULL, *_DENIED, *_TOO_MANY, errno.EROFS, errno.EIO)


def disk_error(error: OSError, place: Path) -> Fault:
    """Return what a disk error means: a `StoreFull`, `StoreReadOnly`, `Overloaded` or `Fault`."""
    reason = error.strerror
    if error.errno in _FULL:
        return StoreFull(
            f"The disk under {place} is full ({reason}); nothing was recorded in part.",
            "Free some space and run it again.",
        )
    if error.errno == errno.EROFS:
        return StoreReadOnly(
            f"{place} cannot be written ({reason}).", "Mount the file system writable."
        )
    if error.errno in _DENIED:
        return StoreReadOnly(
            f"This user cannot use {error.filename or place} ({reason}).",
            "Give this user the right to read and write there, or run as its owner.",
        )
    if error.errno in _TOO_MANY:
        return Overloaded(
            f"{error.filename or place} cannot be opened ({reason}).",
            "Raise the limit of open files (`ulimit -n`), or do less at once.",
        )
    return Fault(f"The disk under {place} failed ({reason}).", "Check the disk and run it again.")


def known_error(error: BaseException, otherwise: Fault) -> ClewlineError:
    """Return what an unexpected error means: ours as it is, the disk's, or else `otherwise`."""
    if isinstance(error, ClewlineError):
        return error
    if isinstance(error, OSError) and is_disk_error(error):
        return disk_error(error, Path(error.filename or os.curdir))
    return otherwise


def open_error(path: Path) -> OSError:
    """
    Return why a file that was just tried cannot be opened: for SQLite, which does not say it.

    Asks without opening the file: closing it would drop the locks of this process.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return OSError(error.errno, error.strerror, str(path))
    code = errno.EACCES
    with suppress(OSError):
        if os.statvfs(path if path.exists() else path.parent).f_flag & os.ST_RDONLY:
            code = errno.EROFS
    return OSError(code, os.strerror(code), str(path))


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
    """Make the bytes of a file, or the names in a folder, durable, whoever wrote them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        sync(handle)
    finally:
        os.close(handle)


sync_folder = sync_file


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may enter, where it is not there."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """
    Yield a path to write to, which takes the place of `path` once the block has ended well.

    Readers see the old file or the new, never a part.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes, *, durable: bool) -> None:
    """Put a whole file, which only its owner may read, in place of `path`."""
    with replacing(path) as aside:
        file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(file, data)
            if durable:
                sync(file)
        finally:
            os.close(file)
    if durable:
        sync_folder(path.parent)
