"""What may watch the endpoints of a server from outside: a tracer, and the supervisor's table."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from clewline.errors import ClewlineError
from clewline.serve.predict_request import PredictRequest, Reply


class RequestTracer(Protocol):
    """Records spans. Called on the loop's thread; never blocks, never raises."""

    def follow(self, endpoint: str, ask: PredictRequest, reply: Reply) -> Reply:
        """
        Return a callback to use in place of `reply`.

        Sets the request's timings if the request is sampled.
        """


class WorkObserver(Protocol):
    """Records which revision each thread works on, so that a crash or hang has a known cause."""

    def computing(
        self, endpoint: str, revision: int = 0, timeout_s: float | None = None
    ) -> AbstractContextManager[None]:
        """Return a context in which this thread computes a batch of a revision."""

    def loading(self, endpoint: str, revision: int = 0) -> AbstractContextManager[None]:
        """Return a context in which this thread loads a revision."""

    def failure(self, endpoint: str, revision: int) -> ClewlineError | None:
        """Return why a revision must not be loaded here, or None if it may be."""
