"""
Idempotency keys: a request that comes again gets its first answer, and is logged once.

The log remembers the keys, so they hold across restarts. Here stands where each
answer is: under its first id, or at its place in the log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fairlead.errors import Conflict, FairleadError, Fault
from fairlead.serve import log_reader
from fairlead.serve.frame import ID_BYTES, Frame, key_hash
from fairlead.serve.log_reader import Place
from fairlead.store.ids import id_text

logger = logging.getLogger(__name__)

KEPT_S = 24 * 3600
"""A key is remembered for a day …"""
KEPT_KEYS = 100_000
"""… unless there are more than so many: then the oldest go first."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a request gets: the revision that answered, and the JSON of each prediction."""

    revision: str
    predictions: list[bytes]
    first_id: bytes


Reply = Callable[[Answer | FairleadError], None]
"""Called once, on the loop's thread, with what became of a request."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    body: bytes
    replies: list[Reply] = field(default_factory=list)


class Once:
    """Answers requests that were answered before. Lives on the loop's thread."""

    def __init__(self, log: Path, threads: Executor) -> None:
        self._log = log
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[bytes, _UnderWay] = {}
        # Read before the server listens; a day of them takes milliseconds.
        self._known: dict[bytes, Place | bytes] = dict(log_reader.keys(log, time.time() - KEPT_S))

    def claim(self, endpoint: str, key: str, body: bytes, reply: Reply) -> Reply | None:
        """
        Claim a key for a request.

        Returns:
            What to reply with when the request is new; None when `reply` gets
            the first answer, now under way or from the log.

        Raises:
            Conflict: The key belongs to a request with another body.
        """
        mark = key_hash(endpoint, key)
        if (under_way := self._under_way.get(mark)) is not None:
            if under_way.body != body:
                raise _other_body()
            under_way.replies.append(reply)
            return None
        if (where := self._known.get(mark)) is not None:
            found = self._loop.run_in_executor(self._threads, self._find, where, body)
            found.add_done_callback(lambda done: reply(done.result()))
            return None
        self._under_way[mark] = _UnderWay(body, [reply])
        return lambda result: self._settle(mark, result)

    def _settle(self, mark: bytes, result: Answer | FairleadError) -> None:
        """Remember an answer, but no failure: whoever tries again may have better luck."""
        if isinstance(result, Answer):
            self._known[mark] = result.first_id
            if len(self._known) > KEPT_KEYS:
                del self._known[next(iter(self._known))]
        for reply in self._under_way.pop(mark).replies:
            reply(result)

    def _find(self, where: Place | bytes, body: bytes) -> Answer | FairleadError:
        try:
            if isinstance(where, bytes):
                logged = log_reader.get(self._log, id_text(where))
                return _answer(logged.frame, logged.part[0], body)
            return _answer(log_reader.frame_at(where), where.position, body)
        except FairleadError as error:
            return error
        except Exception as error:  # its segment was taken away, or the disk fails
            logger.exception("the first answer to an idempotency key could not be read")
            return Fault(
                f"The first answer could not be read: {type(error).__name__}.",
                "The server's log has the reason; a new key gets a new answer.",
            )


def _answer(frame: Frame, index: int, body: bytes) -> Answer:
    """Give the answer that a part of a frame got."""
    part = frame.parts[index]
    if part.body != body:
        raise _other_body()
    first = sum(earlier.count for earlier in frame.parts[:index])
    return Answer(
        f"{frame.endpoint}#{frame.revision}",
        frame.answers[first : first + part.count],
        frame.ids[first * ID_BYTES : (first + 1) * ID_BYTES],
    )


def _other_body() -> Conflict:
    return Conflict(
        "This Idempotency-Key came with another body before.", "Use a new key for new rows."
    )
