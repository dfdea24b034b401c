"""One endpoint of a server: what answers for it, or why nothing does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from clewline.errors import ClewlineError, NotFound
from clewline.serve.batcher import Batcher
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.metrics.request_statistics import EndpointStatistics, RequestStatistics

EndpointState = Literal["ready", "cold", "loading", "failed", "unloaded"]

PAUSE_S = 1.0
"""How long after a failed load none is tried; doubled by each one that fails."""
LONGEST_PAUSE_S = 60.0


class ServedRevision:
    """A loaded revision, its lane, and how many still need it."""

    def __init__(
        self, loaded: LoadedRevision, batcher: Batcher, let_go: Callable[[ServedRevision], None]
    ) -> None:
        self.loaded = loaded
        self.batcher = batcher
        self.models = {model.ref: model.size_bytes for model in loaded.models}
        self.pinned = bool(loaded.revision.spec.get("pin", False))
        self.timeout_s = loaded.timeout_s
        self._let_go = let_go
        self._users = 1  # the endpoint, and each request under way

    @property
    def busy(self) -> bool:
        """Tell whether requests are under way."""
        return self._users > 1

    @property
    def failure(self) -> ClewlineError | None:
        """Why a model of it answers no more, though it was loaded; None while all do."""
        return next((model.failure for model in self.loaded.models if model.failure), None)

    def hold(self) -> None:
        """Say that a request is under way."""
        self._users += 1

    def release(self) -> None:
        """Say that a request is over, or that the endpoint answers with this no more."""
        self._users -= 1
        if not self._users:
            # What an answered caller did not wait for may still be computed.
            self.batcher.when_idle(lambda: self._let_go(self))


WhenServed = Callable[[ServedRevision | ClewlineError], None]
"""Called once with what answers for an endpoint, or with why nothing does."""


class ServedEndpoint:
    """
    One endpoint: what answers, and why the revision that should does not, if so.

    Lives on the loop's thread; only `Endpoints` changes it.
    """

    def __init__(self, name: str, statistics: RequestStatistics) -> None:
        self.name = name
        self.opened_statistics: EndpointStatistics | None = None  # since its first load or call
        self._server_statistics = statistics
        self.serving: ServedRevision | None = None
        self.wanted = 0  # the revision that is live in the catalog
        self.unloaded = False  # by an operator
        self.pinned = False
        self.failure: ClewlineError | None = None  # why the wanted revision does not answer
        self.given_up = False  # the wanted revision is not to be tried again
        self.loading = False
        self.waiting: list[WhenServed] = []
        self._failures = 0  # in a row
        self._retry_at = 0.0

    @property
    def statistics(self) -> EndpointStatistics:
        """Return its statistics; from the first call on it has its own."""
        if self.opened_statistics is None:
            self.opened_statistics = self._server_statistics.for_new_endpoint()
        return self.opened_statistics

    @property
    def state(self) -> EndpointState:
        """Tell how a call is met: answered ("ready"), after a load ("cold", "loading"), or not."""
        if self.unloaded:
            return "unloaded"
        if self.serving is not None:
            return "ready" if self.serving.failure is None else "failed"
        if self.loading:
            return "loading"
        return "cold" if self.failure is None else "failed"

    @property
    def trouble(self) -> ClewlineError | None:
        """Tell why it does not answer as it should: it could not be loaded, or has broken since."""
        if self.failure is not None or self.serving is None:
            return self.failure
        return self.serving.failure

    @property
    def refusal(self) -> ClewlineError | None:
        """Tell why a load must not be tried now; None when it may."""
        if self.unloaded:
            return NotFound(f"The endpoint {self.name} is unloaded.", "An operator can load it.")
        return None if self.may_retry else self.failure

    @property
    def may_retry(self) -> bool:
        """Tell whether the wanted revision may be tried now: not right after a failure."""
        if self.failure is None:
            return True
        return not self.given_up and time.monotonic() >= self._retry_at

    def want(self, number: int) -> None:
        """Say that another revision went live: nothing is known against it."""
        self.wanted = number
        self.given_up = False
        self.succeed()

    def succeed(self) -> None:
        """Say that the wanted revision could be loaded."""
        self.failure = None
        self._failures, self._retry_at = 0, 0.0

    def fail(self, error: ClewlineError, *, for_good: bool = False) -> None:
        """Say that the wanted revision could not be loaded, or is not to be tried again."""
        self.failure, self.given_up = error, for_good
        pause_s = min(PAUSE_S * 2**self._failures, LONGEST_PAUSE_S)
        self._failures = min(self._failures + 1, 16)
        self._retry_at = time.monotonic() + pause_s

    def hurry(self) -> None:
        """Let the next load be tried at once: somebody has asked for it."""
        self._retry_at = 0.0

    def tell(self, found: ServedRevision | ClewlineError) -> None:
        """Tell those who wait what answers, or why nothing does."""
        waiting, self.waiting = self.waiting, []
        for then in waiting:
            then(found)
