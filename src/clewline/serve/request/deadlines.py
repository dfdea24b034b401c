"""Deadlines of callers who wait for an answer, behind one timer of the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from heapq import heappop, heappush

logger = logging.getLogger(__name__)

STEP_S = 0.002
"""Deadlines within this time of each other share a slot."""

Expire = Callable[[], None]


class Deadlines:
    """
    Calls back at deadlines. Lives on the loop's thread.

    All deadlines share one timer of the loop. They are kept in slots of `STEP_S`, so that
    forgetting one, as happens to nearly all, needs no search.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, dict[Expire, None]] = {}
        self._order: list[int] = []  # a heap of the slots
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0  # the slot that the timer is for

    def add(self, deadline: float, expire: Expire) -> int:
        """
        Call `expire` at a deadline, and return the slot for `forget`.

        Args:
            deadline: A finite time of `time.perf_counter`.
            expire: Called on the loop's thread, up to `STEP_S` late.
        """
        number = int(deadline / STEP_S) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            heappush(self._order, number)
            self._arm()
        slot[expire] = None
        return number

    def forget(self, number: int, expire: Expire) -> None:
        """Do not call `expire` any more: the answer is there."""
        slot = self._slots.get(number)
        if slot is not None:
            slot.pop(expire, None)

    def close(self) -> None:
        """Forget all deadlines."""
        self._slots.clear()
        self._order.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        first = self._order[0]
        if self._timer is not None:
            if self._next <= first:
                return
            self._timer.cancel()
        self._next = first
        wait_s = max(0.0, first * STEP_S - time.perf_counter())
        self._timer = self._loop.call_later(wait_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = int(time.perf_counter() / STEP_S)
        while self._order and self._order[0] <= now:
            for expire in self._slots.pop(heappop(self._order)):
                try:
                    expire()
                except Exception:  # the deadlines of others go on
                    logger.exception("a caller could not be told that the deadline has passed")
        if self._order:
            self._arm()
