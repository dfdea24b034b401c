"""
Idempotency keys: a request that is sent again gets its first response, and is logged once.

The log remembers the keys, so they hold across restarts. `Idempotency` knows where
each response stands in the log. Which key another process is answering right now is
recorded by `KeyClaims`, on a thread of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from clewline.errors import ClewlineError, Fault
from clewline.serve.idempotency.claim_thread import (
    ClaimThread,
    KeyOutcome,
    Location,
    body_digest,
)
from clewline.serve.idempotency.key_claims import KEPT_KEYS, KEPT_S, KeyClaim
from clewline.serve.log import reader as log_reader
from clewline.serve.log.frame import key_hash
from clewline.serve.request.predict_request import PredictRequest, PredictResponse, Reply

logger = logging.getLogger(__name__)

POLL_S = 0.01
"""Time between two looks whether another process has answered."""


@dataclass(frozen=True, slots=True)
class _InProgress:
    body: bytes  # digest
    replies: list[Reply] = field(default_factory=list)
    others: list[Callable[[], None]] = field(default_factory=list)  # the key with other bodies


class Idempotency:
    """
    Answers requests that were answered before. Lives on the loop's thread.

    Args:
        log: The folder of the prediction log; the claims stand beside it.
    """

    def __init__(self, log: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self.replays = 0  # requests that got a response of an earlier one
        self._in_progress: dict[bytes, _InProgress] = {}
        # Read before the server listens; a day of them takes milliseconds.
        since_s = time.time() - KEPT_S
        self._known: dict[bytes, Location] = dict(log_reader.logged_keys(log, since_s))
        self._thread = ClaimThread(log)

    def claim(
        self,
        endpoint: str,
        request: PredictRequest,
        reply: Reply,
        compute: Callable[[Reply], None],
    ) -> None:
        """
        Claim the key of a request.

        Args:
            endpoint: The name of the endpoint.
            request: The request; it has a key.
            reply: Called once, now or later, with the first response to the key, or with
                the reason why there is none: a Conflict if it came with another body.
            compute: Called instead, at most once, now or later, if the key has no response;
                it gets the callback for the outcome.
        """
        assert request.key is not None
        mark = key_hash(endpoint, request.key)
        body = body_digest(request.format, request.detail, request.body, request.tried)
        in_progress = self._in_progress.get(mark)
        if in_progress is None:
            self._in_progress[mark] = _InProgress(body, [reply])
            self._look_up(mark, body, compute)
        elif in_progress.body == body:
            self.replays += 1
            in_progress.replies.append(reply)
        else:  # once one of them is answered, the other is refused
            again = lambda: self.claim(endpoint, request, reply, compute)  # noqa: E731
            in_progress.others.append(again)

    def close(self) -> None:
        """Record what is answered, and release the claims."""
        self._thread.close()

    def _look_up(self, mark: bytes, body: bytes, compute: Callable[[Reply], None]) -> None:
        """Look up a key; look again as long as another process is answering it."""

        def settle(result: PredictResponse | ClewlineError) -> None:
            # A failure is not recorded, so that a retry may succeed.
            first_id = result.first_id if isinstance(result, PredictResponse) else None
            self._thread.settle(mark, first_id)
            self._reply(mark, result)

        def then(outcome: KeyOutcome) -> None:
            try:
                go_on(outcome)
            except Exception as error:
                logger.exception("a request with an idempotency key could not go on")
                self._reply(mark, _failed(error))

        def go_on(outcome: KeyOutcome) -> None:
            if outcome is None:
                self._known.pop(mark, None)
                compute(settle)
            elif isinstance(outcome, KeyClaim):
                self._loop.call_later(POLL_S, self._look_up, mark, body, compute)
            else:
                self.replays += isinstance(outcome, PredictResponse)
                self._reply(mark, outcome)

        known = self._known.get(mark)
        self._thread.look_up(
            mark, body, known, lambda outcome: self._loop.call_soon_threadsafe(then, outcome)
        )

    def _reply(self, mark: bytes, result: PredictResponse | ClewlineError) -> None:
        if isinstance(result, PredictResponse):
            self._known[mark] = result.first_id
            if len(self._known) > KEPT_KEYS:
                del self._known[next(iter(self._known))]
        in_progress = self._in_progress.pop(mark, None)
        if in_progress is None:
            return  # they know already
        for reply in in_progress.replies:
            try:
                reply(result)
            except Exception as error:  # the other callers are answered nevertheless
                logger.exception("an answer could not be delivered")
                try:
                    reply(_failed(error))
                except Exception:
                    logger.exception("nor could the error")
        for again in in_progress.others:
            again()


def _failed(error: Exception) -> Fault:
    return Fault(
        f"The answer could not be delivered: {type(error).__name__}.",
        "The server's log has the reason.",
    )
