"""
Ask the kernel which files of some folders were opened, by whatever code in whatever process.

Compiled code, such as that of Arrow or DuckDB, raises no audit event, and neither do
child processes. inotify(7) reports every `open` below a watched folder. It needs no
privileges and costs about a microsecond an open. It does not tell who opened the file: a
file that another program reads during a step is reported too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

ON_LINUX = sys.platform == "linux"
"""Elsewhere no folder is watched; docs/caching.md states the limit."""

# Values of <sys/inotify.h>
CLOSE_WRITE, CLOSE_NOWRITE, OPEN, MOVED_TO, CREATE = 0x8, 0x10, 0x20, 0x80, 0x100
OVERFLOW, ENDED, ONLY_FOLDERS, IS_FOLDER = 0x4000, 0x8000, 0x01000000, 0x40000000
_WANTED = CLOSE_WRITE | CLOSE_NOWRITE | OPEN | MOVED_TO | CREATE | ONLY_FOLDERS
_HEAD = struct.Struct("iIII")  # watch, mask, cookie, length of the name

Listener = Callable[[str, int], None]
"""Called with a path and the mask of an event; with an empty path if events were lost."""


class FolderWatch:
    """
    Watches folders for opened files, with everything below them.

    It is of one process: a fork must make its own. `problem` says why the kernel does not
    watch a folder, or is None.
    """

    def __init__(self, is_skipped: Callable[[str], bool]) -> None:
        """Start without folders; `is_skipped` tells which folders are left out."""
        self.process = os.getpid()
        self.problem: str | None = None
        self._is_skipped = is_skipped
        self._folders: dict[int, str] = {}  # watch → folder
        self._watched: set[str] = set()
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = -1
        if not ON_LINUX:
            return
        self._add, self._remove = libc.inotify_add_watch, libc.inotify_rm_watch
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            self._fail("inotify_init1")

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def add(self, folder: str, deep: bool = True) -> None:
        """Watch a folder, with everything below it or not, unless it is watched already."""
        if folder in self._watched or self._descriptor < 0:
            return
        waiting = [folder]
        while waiting:
            each = waiting.pop()
            if self._add_one(each) and deep:
                with suppress(OSError), os.scandir(each) as entries:  # it may be gone already
                    waiting += [
                        entry.path
                        for entry in entries
                        if entry.is_dir()
                        and not self._is_skipped(entry.path)
                        and not (entry.is_symlink() and _leads_up(entry.path))
                    ]

    def remove(self, folder: str) -> None:
        """Stop watching a folder and everything below it."""
        for watch, each in list(self._folders.items()):
            if each == folder or each.startswith(folder + os.sep):
                self._remove(self._descriptor, watch)
                del self._folders[watch]
                self._watched.discard(each)

    def _add_one(self, folder: str) -> bool:
        """Watch one folder; return whether it is there, and was not known by another name."""
        watch: int = self._add(self._descriptor, os.fsencode(folder), _WANTED)
        if watch in self._folders:
            return False
        if watch >= 0:
            self._folders[watch] = folder
            self._watched.add(folder)
        elif ctypes.get_errno() not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            self._fail(f"inotify_add_watch of {folder}")
        return watch >= 0

    def _fail(self, call: str) -> None:
        code = ctypes.get_errno()
        limits = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}
        hint = f"; raise fs.inotify.{limits[code]}" if code in limits else ""
        self.problem = f"{call} failed: {os.strerror(code)}{hint}"

    def tell(self, listener: Listener) -> None:
        """Report what happened since the last call."""
        for watch, mask, name in self._events():
            if mask & OVERFLOW:
                listener("", mask)
            elif mask & ENDED:
                self._watched.discard(self._folders.pop(watch, ""))
            elif (folder := self._folders.get(watch)) is not None and name:
                path = os.path.join(folder, name)
                if not mask & IS_FOLDER:
                    listener(path, mask)
                elif mask & (CREATE | MOVED_TO) and not self._is_skipped(path):
                    listener(path, mask)
                    self.add(path)

    def _events(self) -> Iterator[tuple[int, int, str]]:
        """Yield watch, mask and name of the waiting events."""
        while self._descriptor >= 0:
            try:
                data = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                watch, mask, _, size = _HEAD.unpack_from(data, at)
                at += _HEAD.size + size
                yield watch, mask, os.fsdecode(data[at - size : at].rstrip(b"\0"))


def _leads_up(link: str) -> bool:
    """Return whether a link leads to a folder that contains it."""
    return (os.path.realpath(os.path.dirname(link)) + os.sep).startswith(
        os.path.join(os.path.realpath(link), "")
    )
