"""
Locks between processes, and names by which a process can be recognised later.

The kernel holds a lock and releases it when its process ends, so the dead lock nothing. The
file says who holds the lock. What a killed process left there is a stale lock: `clewline doctor`
reports it, and the next holder overwrites it.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal

from clewline.errors import Conflict
from clewline.store.disk import disk_errors

ProcessState = Literal["alive", "dead", "unknown"]

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.0005, 0.02
_PROCESS = re.compile(r"(?P<host>.+):(?P<pid>\d+):(?P<start>\d+\.\d+)")
_START_SLACK_S = 2.0  # start times come from the boot time, which moves when the clock is set


@contextmanager
def hold_lock(path: Path, *, timeout_s: float) -> Iterator[None]:
    """
    Hold a lock for the time of a block.

    Raises:
        Conflict: Another process held it for `timeout_s` seconds; the error names it.
        StoreFull, StoreReadOnly: The file of the lock cannot be written.
    """
    with disk_errors(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline, wait_s = time.monotonic() + timeout_s, _FIRST_WAIT_S
    try:
        while not try_lock(file):
            if time.monotonic() > deadline:
                raise Conflict(
                    f"{lock_holder(path) or 'Another process'} has held {path} for "
                    f"{timeout_s:.0f} s.",
                    "If it hangs, end it. Its lock ends with it.",
                )
            time.sleep(wait_s)
            wait_s = min(wait_s * 1.5, _LONGEST_WAIT_S)
        _write_holder(file, this_process())
        try:
            yield
        finally:
            _write_holder(file, "")
            unlock(file)
    finally:
        os.close(file)


def try_lock(file: int) -> bool:
    """Take the lock of an open file if nobody holds it; `unlock` it before you close the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(file: int) -> None:
    """Release a lock; closing does not, while a child that was forked has the file open."""
    fcntl.flock(file, fcntl.LOCK_UN)


def lock_holder(path: Path) -> str | None:
    """Read who holds a lock, or held it when it was killed; None when nobody."""
    return path.read_text("utf-8") or None


def is_locked(path: Path) -> bool:
    """Return whether a living process holds the lock of a file."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        free = try_lock(file)
        if free:
            unlock(file)
        return not free
    finally:
        os.close(file)


def is_stale(path: Path) -> bool:
    """Return whether a lock names a process that was killed while it held it."""
    name = lock_holder(path)
    return name is not None and process_state(name) == "dead" and not is_locked(path)


def this_process() -> str:
    """Return the name of this process: `host:pid:start`, with its start as a Unix time."""
    return _process_name(os.getpid())


def process_state(name: str) -> ProcessState:
    """Return whether a named process lives; unknown on another host or for any other text."""
    named = _PROCESS.fullmatch(name)
    if named is None or named["host"] != socket.gethostname():
        return "unknown"
    import psutil

    try:
        process = psutil.Process(int(named["pid"]))
        same = abs(process.create_time() - float(named["start"])) < _START_SLACK_S
        return "alive" if same and process.status() != psutil.STATUS_ZOMBIE else "dead"
    except psutil.NoSuchProcess:
        return "dead"


@lru_cache(maxsize=8)
def _process_name(pid: int) -> str:
    import psutil

    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def _write_holder(file: int, name: str) -> None:
    """Write who holds the lock; on a full disk it is held all the same, without a name."""
    os.ftruncate(file, 0)
    try:
        os.pwrite(file, name.encode(), 0)
    except OSError:
        os.ftruncate(file, 0)
