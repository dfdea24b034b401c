"""The numbers of the prediction server, read every few seconds while somebody looks at them."""

from __future__ import annotations

import threading
import time
from functools import cache

from clewline.console.server_connection import ServerConnection
from clewline.errors import ClewlineError, Fault
from clewline.serve.metrics.live_metrics import MetricsHistory, read_counts

INTERVAL_S = 2.0
"""Between two readings; longer where a reading takes more than 2 % of it."""
LONGEST_S = 15.0
FIRST_S = 0.5
"""A page waits for the first reading at most so long."""
REST_S = 900.0
"""Nobody has asked for so long: the readings end, until somebody asks again."""


class LiveNumbers:
    """
    Reads the metrics of a server on a thread of its own, and keeps the last 300 readings.

    Args:
        server: Whose metrics.
        interval_s: Between two readings.
    """

    def __init__(self, server: ServerConnection, interval_s: float = INTERVAL_S) -> None:
        self.server = server
        self.problem: str | None = None
        """Why the last reading failed."""
        self._interval_s = interval_s
        self._history = MetricsHistory()
        self._asked = 0.0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended, self._first = threading.Event(), threading.Event()

    @property
    def history(self) -> MetricsHistory:
        """What was read; asking for it keeps the readings going."""
        self._asked = time.monotonic()
        with self._lock:
            if self.server.url is None or self._ended.is_set():
                return self._history
            if self._thread is None or not self._thread.is_alive():
                self._first.clear()
                self._thread = threading.Thread(
                    target=self._go_on, name="live-numbers", daemon=True
                )
                self._thread.start()
        self._first.wait(FIRST_S)
        return self._history

    def read(self) -> None:
        """Read once."""
        try:
            answer = self.server.get("/metrics")
            if answer.status != 200:
                raise Fault(f"The prediction server answered {answer.status} to /metrics.")
        except ClewlineError as error:
            self.problem = error.message
            self._history.add_failure(time.time())
            return
        self.problem = None
        self._history.add(read_counts(answer.body.decode(), time.time()))

    def close(self) -> None:
        """End the readings."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _go_on(self) -> None:
        wait_s, spent_s = 0.0, 0.0
        while not self._ended.wait(wait_s):
            if time.monotonic() - self._asked > REST_S:
                return
            began, before_s = time.monotonic(), spent_s
            self.read()
            self._first.set()
            spent_s = time.monotonic() - began
            # One slow reading, as of a server that starts, is no reason to read less often.
            wait_s = max(self._interval_s, min(50 * min(spent_s, before_s), LONGEST_S))


@cache
def live_numbers(server: ServerConnection) -> LiveNumbers:
    """Return the numbers of a server; all pages of a console share them."""
    return LiveNumbers(server)
