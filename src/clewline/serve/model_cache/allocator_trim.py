"""Return freed memory to the system, from time to time: it takes milliseconds."""

from __future__ import annotations

import ctypes
import gc
import time
from concurrent.futures import Executor

SHARE = 16
"""Memory is returned when this part (1/16) of the budget was freed …"""
PAUSE_S = 1.0
"""… but not more often than this."""
COLLECT = 10_000
"""Closed revisions after which reference cycles are collected: some 10 KiB of each."""


class AllocatorTrim:
    """Counts freed memory, and returns it. Lives on the loop's thread."""

    def __init__(self, threads: Executor, budget_bytes: int) -> None:
        self._threads = threads
        self._enough = max(budget_bytes // SHARE, 1)
        self._bytes = 0
        self._revisions = 0
        self._next_at = 0.0

    def loaded(self) -> None:
        """
        Record that one of very many revisions was loaded.

        Loaded objects stay: if every collection walked them, each would delay all requests
        by up to half a second.
        """
        gc.freeze()

    def freed(self, size_bytes: int) -> None:
        """Record that a revision was closed."""
        self._bytes += size_bytes
        self._revisions += 1
        now = time.monotonic()
        if self._bytes >= self._enough and now >= self._next_at:
            collect = self._revisions >= COLLECT
            self._bytes, self._next_at = 0, now + PAUSE_S
            if collect:
                self._revisions = 0
            self._threads.submit(return_memory, collect=collect)


def return_memory(*, collect: bool) -> None:
    """
    Return freed memory to the system, if the C library can.

    It takes some milliseconds for a gigabyte, without the interpreter's lock.

    Args:
        collect: Collect reference cycles first; meanwhile the interpreter stops.
    """
    if collect:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
