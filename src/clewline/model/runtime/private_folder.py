"""Private folders for what a loaded model needs on disk, deleted when nobody uses them."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import tempfile
import weakref
from pathlib import Path

_PREFIX = "clewline-model-"


class PrivateFolder:
    """
    A folder that only this user can enter, until `close`.

    Folders of processes that were killed are removed when the next one is made: each
    is locked by its owner for as long as it lives.
    """

    def __init__(self) -> None:
        parent = Path(tempfile.gettempdir())
        _sweep(parent, os.getpid())
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = _locked(self.path)
        # Also when nobody closes it: at the collection of garbage, or at exit.
        self._finalizer = weakref.finalize(self, _give_up, self.path, lock)

    def close(self) -> None:
        """Remove the folder and all in it."""
        self._finalizer()


def _give_up(path: Path, lock: int | None) -> None:
    _remove(path)
    if lock is not None:
        os.close(lock)


@functools.lru_cache(maxsize=4)
def _sweep(parent: Path, pid: int) -> None:
    """Remove what nobody holds any more; once in the life of process `pid`."""
    for path in parent.glob(f"{_PREFIX}*"):
        try:
            if path.lstat().st_uid == os.getuid() and (lock := _locked(path)) is not None:
                _remove(path)
                os.close(lock)
        except FileNotFoundError:
            continue  # its owner, or another process that sweeps, removed it


def _locked(path: Path) -> int | None:
    """Lock a folder; None when another process holds it."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        return None
    return folder


def _remove(folder: Path) -> None:
    """Remove a folder whose files and folders may be read-only."""
    folder.chmod(0o700)
    for path, names, _ in os.walk(folder):
        inner = (os.path.join(path, name) for name in names)
        for each in inner:
            if not os.path.islink(each):
                os.chmod(each, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
