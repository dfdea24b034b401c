"""An answer that is the same for all who ask, such as a list of thousands of endpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from clewline.errors import ClewlineError
from clewline.protocols.http.request_headers import run_at_once_or_on_thread

logger = logging.getLogger(__name__)

T = TypeVar("T")
LARGE = 256
"""Endpoints whose list is not made on the event loop: each takes some 5 µs."""


class SharedAnswer(Generic[T]):
    """
    Makes one answer for many callers. Lives on the loop's thread.

    Each caller gets an answer that was begun after it asked. Only one is made at a time, for all
    who have asked by then, so that many callers hold one thread.

    Args:
        threads: Make an answer that takes long.
        make: Makes it; on a thread, while the loop goes on.
        takes_long: Says whether it takes long now.
    """

    def __init__(
        self, threads: Executor, make: Callable[[], T], takes_long: Callable[[], bool]
    ) -> None:
        self._threads, self._make, self._takes_long = threads, make, takes_long
        self._waiting: list[Callable[[T | ClewlineError], None]] = []
        self._is_made = False

    def ask(self, then: Callable[[T | ClewlineError], None]) -> None:
        """Call `then` with the answer, or the error: at once, or later if it takes long."""
        self._waiting.append(then)
        if not self._is_made:
            self._begin()

    def _begin(self) -> None:
        callers, self._waiting = self._waiting, []
        self._is_made = True

        def deliver(answer: T | ClewlineError) -> None:
            self._is_made = False
            for then in callers:
                try:
                    then(answer)
                except Exception:  # the others must not wait for ever
                    logger.exception("a caller could not be answered")
            if self._waiting and not self._is_made:
                self._begin()

        try:
            takes_long = self._takes_long()
            run_at_once_or_on_thread(self._threads, self._make, deliver, takes_long=takes_long)
        except BaseException:
            self._is_made = False
            raise
