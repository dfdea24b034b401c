"""
The bytes of a file as they were when it was opened, read in windows.

A memory map would end the process with SIGBUS if a page cannot be read any more, because
the writer took back a torn frame or the disk failed. Here that is fewer bytes, or an OSError.
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
    """The bytes of a file up to the size that it had when it was opened. Use by one thread."""

    def __init__(self, file: int, window_bytes: int) -> None:
        self._file = file
        self._size = os.fstat(file).st_size
        self._window_bytes = window_bytes
        self._start = 0
        self._window = b""

    def __len__(self) -> int:
        return self._size

    def read(self, start: int, end: int) -> bytes:
        """Read bytes `start` to `end`; fewer if the file ends before."""
        end = min(end, self._size)
        if start >= end:
            return b""
        if start < self._start or end > self._start + len(self._window):
            # Read a whole window, in the direction in which the file is being read.
            backwards = start < self._start
            first = max(0, min(start, end - self._window_bytes)) if backwards else start
            last = min(max(end, first + self._window_bytes), self._size)
            data = os.pread(self._file, last - first, first)
            while 0 < len(data) < last - first:  # a signal, or Linux's limit of 2 GiB a call
                more = os.pread(self._file, last - first - len(data), first + len(data))
                if not more:
                    break
                data += more
            self._start, self._window = first, data
        return self._window[start - self._start : end - self._start]

    def find(self, pattern: bytes, start: int) -> int:
        """Return the first offset from `start` on where `pattern` stands; -1 if nowhere."""
        while start < self._size:
            piece = self.read(start, start + self._window_bytes)
            at = piece.find(pattern)
            if at >= 0:
                return start + at
            if len(piece) < len(pattern):
                return -1
            start += len(piece) - len(pattern) + 1
        return -1


@contextmanager
def open_windowed(path: Path, window_bytes: int = LOOK_UP_BYTES) -> Iterator[WindowedFile]:
    """Open a file; `WALK_BYTES` suit reading all of it, fewer a look-up."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield WindowedFile(file, window_bytes)
    finally:
        os.close(file)
