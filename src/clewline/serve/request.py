"""A request between its bytes and its answer: read, checked, answered by a lane, or given up."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from clewline.errors import ClewlineError, Fault
from clewline.serve.batcher import PredictCall, late
from clewline.serve.body_queue import BodyQueue
from clewline.serve.deadlines import Deadlines
from clewline.serve.formats import body_format
from clewline.serve.formats.body_format import JSON, RequestRows
from clewline.serve.json_reader import SMALL_BYTES
from clewline.serve.log.writer import LoggedRequest
from clewline.serve.predict_request import PredictRequest
from clewline.serve.predict_response import PredictResponse, Reply
from clewline.serve.served_endpoint import ServedRevision

logger = logging.getLogger(__name__)


class Home(Protocol):
    """What requests need of the server that they came to."""

    loop: asyncio.AbstractEventLoop
    threads: ThreadPoolExecutor
    deadlines: Deadlines
    body_queue: BodyQueue
    under_way: dict[Waiter, None]


class Waiter:
    """Somebody who is owed an answer, until a deadline at most. Told once."""

    __slots__ = ("_home", "_reply", "_slot", "over")

    def __init__(self, home: Home, reply: Reply) -> None:
        self.over = False
        self._home = home
        self._reply = reply
        self._slot: int | None = None
        home.under_way[self] = None

    def wait_until(self, deadline: float) -> None:
        """Be told at a deadline (of `time.perf_counter`), if not before."""
        if deadline < math.inf:
            self._forget()
            self._slot = self._home.deadlines.add(deadline, self.expire)

    def finish(self, result: PredictResponse | ClewlineError) -> None:
        """Tell what became of it, unless it was told before."""
        if self.over:
            return
        self.over = True
        self._forget()
        del self._home.under_way[self]
        self._reply(result)

    def _forget(self) -> None:
        if self._slot is not None:
            self._home.deadlines.forget(self._slot, self.expire)

    def expire(self) -> None:
        """Tell that the time is over."""
        self.give_up(late())

    def give_up(self, error: ClewlineError) -> None:
        """Answer with an error now, whatever is still computed."""
        self.finish(error)


class Request(Waiter):
    """A request to one endpoint."""

    __slots__ = ("_abandoned", "_arrived", "_ask", "_call", "_deadline", "_patient", "_serving")

    def __init__(
        self, home: Home, ask: PredictRequest, reply: Reply, *, patient: bool = False
    ) -> None:
        """
        Take a request.

        Args:
            home: Where it came in.
            ask: What is asked.
            reply: Called once.
            patient: It is computed to its end though its own caller waits no more:
                others may have come for the same answer.
        """
        super().__init__(home, reply)
        self._ask = ask
        self._patient = patient
        self._deadline = math.inf if patient else ask.deadline
        self._abandoned = None if patient else ask.abandoned
        self._arrived = time.perf_counter()
        self._serving: ServedRevision | None = None
        self._call: PredictCall | None = None

    def wait(self) -> None:
        """Keep to the deadline while the endpoint is being loaded."""
        self.wait_until(self._deadline)

    def begin(self, serving: ServedRevision) -> None:
        """Read the rows, and have them answered by a loaded revision."""
        self._serving = serving
        serving.hold()
        ask = self._ask
        if serving.timeout_s is not None and not self._patient:
            self._deadline = min(self._deadline, self._arrived + serving.timeout_s)
        if self._deadline < math.inf:
            self.wait_until(self._deadline)
            if self._deadline <= time.perf_counter():
                self.expire()
                return
        if ask.format != JSON:
            self._read_format(serving)
        elif len(ask.body) <= SMALL_BYTES:
            self._settle(_read(lambda: serving.loaded.json_reader.read(ask.body)))
        else:
            reading = serving.loaded.json_reader.read_large(ask.body)
            self._home.body_queue.read(reading, self._settle, self._is_over)

    def loaded(self, found: ServedRevision | ClewlineError) -> None:
        """Go on when the endpoint is loaded, or could not be."""
        if self.over:
            return
        if self._ask.stamps is not None:
            self._ask.stamps.waited = time.perf_counter()
        if isinstance(found, ClewlineError):
            self.finish(found)
        else:
            self.begin(found)

    def finish(self, result: PredictResponse | ClewlineError) -> None:
        """Tell what became of it, unless it was told before."""
        if self.over:
            return
        super().finish(result)
        self._call = None  # it holds us: otherwise each request is garbage for the collector
        if self._serving is not None:
            self._serving.release()

    def give_up(self, error: ClewlineError) -> None:
        """Answer with an error now; what waits of it is not computed."""
        if self._call is None or self._serving is None:
            self.finish(error)
        else:
            self._serving.batcher.give_up(self._call, error)

    def _read_format(self, serving: ServedRevision) -> None:
        ask, loaded = self._ask, serving.loaded

        def read() -> RequestRows:
            format = body_format.load_format(ask.format)
            return format.read_rows(ask.body, ask.detail, loaded.checker, loaded.max_rows)

        if len(ask.body) <= SMALL_BYTES and ask.format not in body_format.READ_ON_THREAD:
            self._settle(_read(read))
        else:
            _on_thread(self._home, read, self._settle)

    def _settle(self, read: RequestRows | ClewlineError) -> None:
        """Hand the rows to the lane, or say what is wrong with them."""
        if self.over:
            return
        if isinstance(read, ClewlineError):
            self.finish(read)
            return
        assert self._serving is not None
        ask, rows = self._ask, read.rows
        part = LoggedRequest(ask.format, ask.body, len(rows), read.entities, ask.key, ask.detail)
        call = PredictCall(
            rows,
            part,
            self._answered,
            self._abandoned,
            self._deadline,
            stamps=ask.stamps,
            arrived=self._arrived,
        )
        try:
            self._serving.batcher.submit(call)
        except ClewlineError as error:
            self.finish(error)
        else:
            self._call = call

    def _answered(self, call: PredictCall) -> None:
        if call.error is not None:
            self.finish(call.error)
        else:
            assert self._serving is not None
            self.finish(PredictResponse(self._serving.loaded.ref, call.answers, call.ids[0]))

    def _is_over(self) -> bool:
        return self.over or (self._abandoned is not None and self._abandoned())


def _on_thread(
    home: Home, read: Callable[[], RequestRows], then: Callable[[RequestRows | ClewlineError], None]
) -> None:
    """Read on a thread, and go on with the rows on the loop's."""
    threads = home.threads
    loop = home.loop

    def done(future: Future[RequestRows | ClewlineError]) -> None:
        loop.call_soon_threadsafe(then, future.result())

    threads.submit(_read, read).add_done_callback(done)


def _read(read: Callable[[], RequestRows]) -> RequestRows | ClewlineError:
    try:
        return read()
    except ClewlineError as error:
        return error
    except Exception:
        logger.exception("a body could not be read")
        return Fault("The body could not be read.", "The server's log has the reason.")
