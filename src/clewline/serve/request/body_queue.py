"""
Large bodies are read here: one portion of one body in each turn of the event loop.

What cannot be cut into portions, such as one row of megabytes, is read on a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from typing import Any

from clewline.errors import ClewlineError, Fault
from clewline.serve.formats.body_format import RequestRows

logger = logging.getLogger(__name__)

Work = Callable[[], Any]
Reading = Generator[Work | RequestRows | None, Any, None]
"""Yields None after each portion, or work for a thread, and the rows at the end. For work it is
sent the future of its result."""
Done = Callable[[RequestRows | ClewlineError], None]


class BodyQueue:
    """
    Reads bodies in the order in which they came. Lives on the loop's thread.

    Args:
        threads: Do the work that is not cut into portions.
    """

    def __init__(self, threads: Executor) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._waiting: deque[tuple[Reading, Any, Done, Callable[[], bool]]] = deque()
        self._is_scheduled = False

    def read(
        self, reading: Reading, done: Done, is_over: Callable[[], bool], sent: Any = None
    ) -> None:
        """
        Take a body.

        Args:
            reading: Reads the body.
            done: Called later with the rows, or with the reason why there are none.
            is_over: Returns whether nobody waits any more; then the rest is not read.
            sent: The future of the work for which the reading waited.
        """
        self._waiting.append((reading, sent, done, is_over))
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._is_scheduled = False
        reading, sent, done, is_over = self._waiting.popleft()
        outcome: Work | RequestRows | ClewlineError | None
        try:
            outcome = Fault("The caller has gone.") if is_over() else reading.send(sent)
            if callable(outcome):
                work = self._loop.run_in_executor(self._threads, outcome)
                work.add_done_callback(lambda sent: self.read(reading, done, is_over, sent))
        except ClewlineError as error:
            outcome = error
        except (Exception, asyncio.CancelledError):
            logger.exception("a large body could not be read")
            outcome = Fault("The body could not be read.", "The server's log has the reason.")
        if outcome is None:
            self._waiting.appendleft((reading, None, done, is_over))
        self._schedule()
        if outcome is not None and not callable(outcome):
            done(outcome)
