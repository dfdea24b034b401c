"""Deadlines: who waits for an answer no longer than until a certain moment is told on time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from heapq import heappop, heappush

STEP_S = 0.002
"""Deadlines that are so close together share a timer."""

Expire = Callable[[], None]


class Deadlines:
    """
    Calls back at deadlines. Lives on the loop's thread.

    One timer of the loop for all, and nothing to search when a deadline is
    forgotten, as nearly all are: they lie in slots of `STEP_S` each.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, dict[Expire, None]] = {}
        self._order: list[int] = []  # a heap of the slots
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0  # the slot that the timer is for

    def add(self, deadline: float, expire: Expire) -> int:
        """
        Have `expire` called at a deadline.

        Args:
            deadline: A finite moment of `time.perf_counter`.
            expire: Called on the loop's thread, up to `STEP_S` late.

        Returns:
            The slot, to forget it by.
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
        """Call nobody back: the answer is there."""
        slot = self._slots.get(number)
        if slot is not None:
            slot.pop(expire, None)

    def close(self) -> None:
        """Call nobody back any more."""
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
                expire()
        if self._order:
            self._arm()
