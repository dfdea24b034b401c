"""Memory that was freed, given back to the system: now and then, since it takes milliseconds."""

from __future__ import annotations

import ctypes
import gc
import time
from concurrent.futures import Executor
from functools import cache
from typing import Any

SHARE = 16
"""Given back when this part of the budget was freed …"""
PAUSE_S = 1.0
"""… but not more often than this."""
COLLECT = 10_000
"""After so many revisions were let go, what lies in cycles is collected: some 10 KiB of each."""


class AllocatorTrim:
    """Counts what was freed, and gives it back. Lives on the loop's thread."""

    def __init__(self, threads: Executor, budget_bytes: int) -> None:
        self._threads = threads
        self._enough = max(budget_bytes // SHARE, 1)
        self._bytes = 0
        self._revisions = 0
        self._next_at = 0.0

    def loaded(self) -> None:
        """
        Say that one more revision of very many was loaded.

        What is loaded stays: were it walked by every collection, each would hold
        up all requests for as long as half a second.
        """
        gc.freeze()

    def freed(self, size_bytes: int) -> None:
        """Say that a revision was let go."""
        self._bytes += size_bytes
        self._revisions += 1
        now = time.monotonic()
        if self._bytes >= self._enough and now >= self._next_at:
            collect = self._revisions >= COLLECT
            self._bytes, self._next_at = 0, now + PAUSE_S
            if collect:
                self._revisions = 0
            self._threads.submit(give_back, collect=collect)


def give_back(*, collect: bool = False) -> None:
    """
    Return freed memory to the system, where the C library can be told to.

    Takes some milliseconds for a gigabyte, without the interpreter's lock.

    Args:
        collect: First free what lies in cycles; the interpreter stands still meanwhile.
    """
    if collect:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
