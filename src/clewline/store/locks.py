"""
Locks between processes.

The kernel holds the lock and drops it with its process, so nothing is ever
locked by the dead. The file says who holds it; what a killed process left
written there is a stale lock, named by `clewline doctor` and overwritten by the
next holder.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clewline.errors import Conflict
from clewline.store.disk import disk_errors
from clewline.store.process import life, this_process

_FIRST_WAIT_S = 0.0005
_LONGEST_WAIT_S = 0.02


@contextmanager
def hold(path: Path, *, timeout_s: float) -> Iterator[None]:
    """
    Hold a lock for the time of a block.

    Raises:
        Conflict: Another process held it all the time; the message names it.
        StoreReadOnly: The lock's file cannot be written.
    """
    with disk_errors(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _wait(file, path, timeout_s)
        _sign(file, this_process())
        try:
            yield
        finally:
            _sign(file, "")
            drop(file)
    finally:
        os.close(file)


def try_hold(file: int) -> bool:
    """Take the lock of an open file if nobody has it; `drop` it before the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def drop(file: int) -> None:
    """Give a lock back: closing does not, while a child forked meanwhile has the file open."""
    fcntl.flock(file, fcntl.LOCK_UN)


def holder(path: Path) -> str | None:
    """Read who holds a lock, or held it when it was killed; None when nobody."""
    return path.read_text("utf-8") or None


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not try_hold(file):
            return True
        drop(file)
        return False
    finally:
        os.close(file)


def is_stale(path: Path) -> bool:
    """Whether a lock names a process that was killed while it held it."""
    name = holder(path)
    return name is not None and life(name) == "dead" and not is_held(path)


def _wait(file: int, path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    wait_s = _FIRST_WAIT_S
    while not try_hold(file):
        if time.monotonic() > deadline:
            raise Conflict(
                f"{holder(path) or 'Another process'} has held {path} for {timeout_s:.0f} s.",
                "End it if it hangs; its lock goes with it.",
            )
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.5, _LONGEST_WAIT_S)


def _sign(file: int, name: str) -> None:
    """Say who holds it; on a full disk the lock holds all the same, without a name."""
    os.ftruncate(file, 0)
    try:
        os.pwrite(file, name.encode(), 0)
    except OSError:
        os.ftruncate(file, 0)
