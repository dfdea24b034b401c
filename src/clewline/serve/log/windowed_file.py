"""
The bytes of a file as they were when it was opened, read in windows.

No memory map: a page that cannot be read any more, because the writer took back
a torn frame or the disk failed, would end the process with SIGBUS. Here it is
fewer bytes than asked for, or an OSError.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BISECT_BYTES = 2 << 10
LOOK_UP_BYTES = 32 << 10
WALK_BYTES = 1 << 20


class WindowedFile:
    """A file's bytes up to the size that it had when it was opened; one thread at a time."""

    def __init__(self, file: int, window_bytes: int) -> None:
        self._file = file
        self._size = os.fstat(file).st_size
        self._window_bytes = window_bytes
        self._start = 0
        self._window = b""

    def __len__(self) -> int:
        return self._size

    def read(self, start: int, end: int) -> bytes:
        """Read bytes `start` to `end`; fewer when the file ends before."""
        end = min(end, self._size)
        if start >= end:
            return b""
        if start < self._start or end > self._start + len(self._window):
            self._move(start, end)
        return self._window[start - self._start : end - self._start]

    def find(self, pattern: bytes, start: int) -> int:
        """Tell where `pattern` comes next, from `start` on; -1 when it does not."""
        while start < self._size:
            piece = self.read(start, start + self._window_bytes)
            at = piece.find(pattern)
            if at >= 0:
                return start + at
            if len(piece) < len(pattern):
                return -1
            start += len(piece) - len(pattern) + 1
        return -1

    def _move(self, start: int, end: int) -> None:
        """Read the window that holds these bytes, and what is likely to be asked next."""
        backwards = start < self._start
        first = max(0, min(start, end - self._window_bytes)) if backwards else start
        last = min(max(end, first + self._window_bytes), self._size)
        self._start = first
        self._window = _pread(self._file, last - first, first) if last > first else b""


@contextmanager
def open_windowed(path: Path, window_bytes: int = LOOK_UP_BYTES) -> Iterator[WindowedFile]:
    """Open a file: with `WALK_BYTES` to go through it, with less to look something up."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield WindowedFile(file, window_bytes)
    finally:
        os.close(file)


def _pread(file: int, count: int, start: int) -> bytes:
    data = os.pread(file, count, start)
    while 0 < len(data) < count:  # a signal, or Linux's limit of 2 GiB a call
        more = os.pread(file, count - len(data), start + len(data))
        if not more:
            break
        data += more
    return data
