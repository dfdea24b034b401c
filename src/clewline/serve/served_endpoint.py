"""One endpoint of a server: the revision that answers, or the reason why none does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

from clewline.errors import ClewlineError, NotFound
from clewline.serve.batcher import Batcher
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.metrics.request_statistics import EndpointStatistics, RequestStatistics

logger = logging.getLogger(__name__)

EndpointState = Literal["ready", "cold", "loading", "failed", "unloaded"]

RETRY_S = 1.0
"""Time without a new attempt after a failed load; each further failure doubles it."""
MAX_RETRY_S = 60.0


class ServedRevision:
    """A loaded revision with its batcher. It is closed when its last user has released it."""

    def __init__(
        self, loaded: LoadedRevision, batcher: Batcher, close: Callable[[ServedRevision], None]
    ) -> None:
        self.loaded = loaded
        self.batcher = batcher
        self.models = {model.ref: model.size_bytes for model in loaded.models}
        self.pinned = bool(loaded.revision.spec.get("pin", False))
        self.timeout_s = loaded.timeout_s
        self.users = 1  # the endpoint, and each request under way
        self._close = close

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return self.users > 1

    @property
    def failure(self) -> ClewlineError | None:
        """Why one of its models stopped answering after the load; None while all answer."""
        return next((model.failure for model in self.loaded.models if model.failure), None)

    def release(self) -> None:
        """Give up one use of it."""
        self.users -= 1
        if not self.users:
            self.close_when_idle()

    def close_when_idle(self) -> None:
        """Close it when its batcher is idle: rows may still be computed for nobody."""
        self.batcher.when_idle(lambda: self._close(self))


WhenServed = Callable[[ServedRevision | ClewlineError], None]
"""Called once, with the revision that answers for an endpoint or the reason why none does."""


class ServedEndpoint:
    """
    The state of one endpoint. Lives on the loop's thread, where `EndpointServer` changes it.

    Any thread may read its properties.
    """

    def __init__(self, name: str, statistics: RequestStatistics) -> None:
        self.name = name
        self.opened_statistics: EndpointStatistics | None = None  # since its first load or call
        self._server_statistics = statistics
        self.serving: ServedRevision | None = None
        self.wanted = 0  # the number of the live revision in the catalog
        self.unloaded = False  # by an operator
        self.failure: ClewlineError | None = None  # why the wanted revision does not answer
        self.given_up = False  # the wanted revision must not be tried again
        self.loading = False
        self.loads_apart = False  # in a process of its own, which may take long
        self.waiting: list[WhenServed] = []
        self._failures = 0  # in a row
        self._retry_at = 0.0

    @property
    def statistics(self) -> EndpointStatistics:
        """Its statistics, opened by the first load or call."""
        if self.opened_statistics is None:
            self.opened_statistics = self._server_statistics.for_new_endpoint()
        return self.opened_statistics

    @property
    def state(self) -> EndpointState:
        """Whether a call is answered ("ready"), waits for a load ("cold", "loading"), or fails."""
        if self.unloaded:
            return "unloaded"
        if (serving := self.serving) is not None:
            return "ready" if serving.failure is None else "failed"
        if self.loading:
            return "loading"
        return "cold" if self.failure is None else "failed"

    @property
    def trouble(self) -> ClewlineError | None:
        """Why the wanted revision does not answer: it could not be loaded, or broke since."""
        serving = self.serving
        if self.failure is not None or serving is None:
            return self.failure
        return serving.failure

    @property
    def ready(self) -> bool:
        """Whether a call is answered: nothing failed, and no isolated model loads for the first."""
        return self.trouble is None and (self.serving is not None or not self.loads_apart)

    @property
    def refusal(self) -> ClewlineError | None:
        """Why no load may be tried now; None if it may."""
        if self.unloaded:
            return NotFound(f"The endpoint {self.name} is unloaded.", "An operator can load it.")
        return None if self.may_retry else self.failure

    @property
    def may_retry(self) -> bool:
        """Whether the wanted revision may be tried now: not right after a failure."""
        if self.failure is None:
            return True
        return not self.given_up and time.monotonic() >= self._retry_at

    def want(self, number: int) -> None:
        """Record that another revision went live; earlier failures do not count against it."""
        self.wanted = number
        self.given_up = False
        self.succeed()

    def succeed(self) -> None:
        """Record that the wanted revision was loaded."""
        self.failure = None
        self._failures, self._retry_at = 0, 0.0

    def fail(self, error: ClewlineError, *, for_good: bool = False) -> None:
        """Record that the wanted revision could not be loaded, or must not be tried again."""
        self.failure, self.given_up = error, for_good
        pause_s = min(RETRY_S * 2**self._failures, MAX_RETRY_S)
        self._failures = min(self._failures + 1, 16)
        self._retry_at = time.monotonic() + pause_s

    def retry_now(self) -> None:
        """Allow the next load at once, because an operator asked for it."""
        self._retry_at = 0.0

    def notify(self, found: ServedRevision | ClewlineError) -> None:
        """Hand the revision, or the reason why there is none, to everyone who waits for it."""
        waiting, self.waiting = self.waiting, []
        for then in waiting:
            try:
                then(found)
            except Exception:  # the others must not wait for ever
                logger.exception("%s: a waiting caller could not be answered", self.name)
