"""Large bodies are read here: one portion of one body in each turn of the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator

from clewline.errors import ClewlineError, Fault
from clewline.serve.formats.body_format import RequestRows

logger = logging.getLogger(__name__)

Done = Callable[[RequestRows | ClewlineError], None]


class BodyQueue:
    """Reads bodies in the order in which they came. Lives on the loop's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Iterator[RequestRows | None], Done, Callable[[], bool]]] = (
            deque()
        )

    def read(
        self, reading: Iterator[RequestRows | None], done: Done, is_over: Callable[[], bool]
    ) -> None:
        """
        Take a body.

        Args:
            reading: Yields None after each portion, and the rows at the end.
            done: Called later with the rows, or with the reason why there are none.
            is_over: Returns whether nobody waits any more; then the rest is not read.
        """
        self._waiting.append((reading, done, is_over))
        if len(self._waiting) == 1:
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        reading, done, is_over = self._waiting[0]
        outcome: RequestRows | ClewlineError | None
        try:
            outcome = Fault("The caller has gone.") if is_over() else next(reading)
        except ClewlineError as error:
            outcome = error
        except Exception:
            logger.exception("a large body could not be read")
            outcome = Fault("The body could not be read.", "The server's log has the reason.")
        if outcome is not None:
            self._waiting.popleft()
            done(outcome)
        if self._waiting:
            self._loop.call_soon(self._step)
