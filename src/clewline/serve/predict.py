"""
One request to predict, from its bytes to its answer.

    predict ─► claim the idempotency key ─► load the endpoint ─► read the rows ─► batcher ─► reply

Each step goes on at once where it can: a keyless JSON row for a loaded endpoint is in the
batcher's queue when `predict` returns.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from functools import partial

from clewline.errors import ClewlineError, Fault
from clewline.serve.batcher import PredictCall, late
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.formats.body_format import JSON, READ_ON_THREAD, RequestRows, load_format
from clewline.serve.json_reader import SMALL_BYTES
from clewline.serve.log.frame import LoggedRequest
from clewline.serve.request.predict_request import PredictRequest, PredictResponse, Reply
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision

logger = logging.getLogger(__name__)


def predict(
    server: EndpointServer, endpoint: ServedEndpoint, request: PredictRequest, reply: Reply
) -> None:
    """
    Answer a request; an endpoint that is not in memory is loaded first.

    If the deadline of the request or of the endpoint passes, the caller gets
    `DeadlineExceeded`. A request with an idempotency key is still computed to its end,
    so that a retry finds the answer.

    Args:
        server: Serves the endpoint.
        endpoint: Answers.
        request: The rows as they came, and how long the caller waits.
        reply: Called once, now or later, with the answer or the reason why there is none.
    """
    if server.tracer is not None:
        reply = server.tracer.follow(endpoint.name, request, reply)
    if request.key is None:
        deadline, abandoned = request.deadline, request.abandoned
        pending = PendingPrediction(server, endpoint, request, reply, deadline, abandoned)
        try:
            pending.begin()
        except Exception as error:
            pending.fail(error)
        return
    caller = WaitingCaller(server, reply)
    deadline, serving = request.deadline, endpoint.serving
    if serving is not None and serving.timeout_s is not None:
        deadline = min(deadline, time.perf_counter() + serving.timeout_s)
    caller.wait_until(deadline)

    def compute(settle: Reply) -> None:
        # Computed to its end though its own caller may leave: others may wait for the answer.
        pending = PendingPrediction(server, endpoint, request, settle, None, None)
        try:
            pending.begin()
        except Exception as error:
            pending.fail(error)

    server.idempotency.claim(endpoint.name, request, caller.finish, compute)


class WaitingCaller:
    """A caller who gets one answer, at the latest at a deadline."""

    __slots__ = ("_reply", "_server", "_timer", "is_answered")

    def __init__(self, server: EndpointServer, reply: Reply) -> None:
        self.is_answered = False
        self._server = server
        self._reply = reply
        self._timer: int | None = None
        server.under_way[self] = None

    def wait_until(self, deadline: float) -> None:
        """Answer with `DeadlineExceeded` at a deadline, a time of `time.perf_counter`."""
        if deadline < math.inf:
            if self._timer is not None:
                self._server.deadlines.forget(self._timer, self.expire)
            self._timer = self._server.deadlines.add(deadline, self.expire)

    def expire(self) -> None:
        """End the wait: the deadline has passed."""
        self.give_up(late())

    def give_up(self, error: ClewlineError) -> None:
        """Answer with an error now, whatever is still computed."""
        self.finish(error)

    def fail(self, error: Exception) -> None:
        """Answer that the request could not be begun."""
        logger.error("a request could not be begun", exc_info=error)
        message = f"The request could not be answered: {type(error).__name__}."
        self.finish(Fault(message, "The server's log has the reason."))

    def finish(self, result: PredictResponse | ClewlineError) -> None:
        """Answer, unless that was done before. If the answer cannot be written, say so instead."""
        if self.is_answered:
            return
        self.is_answered = True
        del self._server.under_way[self]
        try:
            if self._timer is not None:
                self._server.deadlines.forget(self._timer, self.expire)
            self._reply(result)
        except Exception as error:
            logger.exception("an answer could not be written")
            message = f"The answer could not be written: {type(error).__name__}."
            try:
                self._reply(Fault(message, "The server's log has the reason."))
            except Exception:  # others may wait for the same answer
                logger.exception("nor could the error")


class PendingPrediction(WaitingCaller):
    """A request that is computed: its rows are read, batched and answered by one revision."""

    __slots__ = (
        "_abandoned",
        "_arrived",
        "_call",
        "_deadline",
        "_endpoint",
        "_request",
        "_serving",
    )

    def __init__(
        self,
        server: EndpointServer,
        endpoint: ServedEndpoint,
        request: PredictRequest,
        reply: Reply,
        deadline: float | None,
        abandoned: Callable[[], bool] | None,
    ) -> None:
        super().__init__(server, reply)
        self._endpoint = endpoint
        self._request = request
        self._deadline = deadline
        self._abandoned = abandoned
        self._arrived = time.perf_counter()
        self._serving: ServedRevision | None = None
        self._call: PredictCall | None = None

    def begin(self) -> None:
        """Have the rows answered by the endpoint's revision, once that is in memory."""
        serving = self._endpoint.serving
        if serving is not None:
            self._server.model_cache.used(serving)
            self._read(serving)
            return
        self._server.load_statistics.cold_calls += 1
        if self._deadline is not None:
            self.wait_until(self._deadline)
        self._server.when_loaded(self._endpoint, self._loaded)

    def _loaded(self, serving: ServedRevision | ClewlineError) -> None:
        if self._request.timings is not None:
            self._request.timings.waited = time.perf_counter()
        if isinstance(serving, ClewlineError):
            self.finish(serving)
        elif not self.is_answered:
            self._read(serving)

    def _read(self, serving: ServedRevision) -> None:
        """Read the rows: at once, a portion a turn, or on a thread, whatever keeps turns short."""
        self._serving = serving
        serving.users += 1
        request, loaded = self._request, serving.loaded
        if self._deadline is not None:
            if serving.timeout_s is not None:
                self._deadline = min(self._deadline, self._arrived + serving.timeout_s)
            if self._deadline < math.inf:
                self.wait_until(self._deadline)
                if self._deadline <= time.perf_counter():
                    self.expire()
                    return
        try:
            if request.format == JSON and len(request.body) <= SMALL_BYTES:
                self._submit(loaded.json_reader.read(request.body))
            elif request.format == JSON:
                reading = loaded.json_reader.read_large(request.body)
                self._server.body_queue.read(reading, self._submit, self._is_over)
            else:
                read = partial(self._read_rows, serving)
                if len(request.body) <= SMALL_BYTES and request.format not in READ_ON_THREAD:
                    self._submit(read())
                    return
                reading_future = self._server.loop.run_in_executor(self._server.threads, read)
                reading_future.add_done_callback(self._read_on_thread)
        except Exception as error:
            self.finish(_read_error(error))

    def _read_rows(self, serving: ServedRevision) -> RequestRows:
        """Read the rows; on a thread, perhaps after the caller has left."""
        if self._is_over():
            raise Fault("The caller has gone.")
        request, loaded = self._request, serving.loaded
        format = load_format(request.format)
        return format.read_rows(request.body, request.detail, loaded.checker, loaded.max_rows)

    def _read_on_thread(self, done: asyncio.Future[RequestRows]) -> None:
        error = done.exception()
        self._submit(done.result() if error is None else _read_error(error))

    def _submit(self, rows: RequestRows | ClewlineError) -> None:
        """Put the rows into the batcher's queue, or say what is wrong with them."""
        serving, request = self._serving, self._request
        assert serving is not None
        if self.is_answered or isinstance(rows, ClewlineError):
            if isinstance(rows, ClewlineError):
                self.finish(rows)
            return
        call = PredictCall(
            rows.rows,
            LoggedRequest(
                request.format,
                request.body,
                len(rows.rows),
                rows.entities,
                request.key,
                request.detail,
                request.tried,
            ),
            self._answered,
            self._abandoned,
            math.inf if self._deadline is None else self._deadline,
            timings=request.timings,
            arrived=self._arrived,
        )
        try:
            serving.batcher.submit(call)
            self._call = call
        except ClewlineError as error:
            self.finish(error)

    def _answered(self, call: PredictCall) -> None:
        serving = self._serving
        if call.error is not None or serving is None:
            self.finish(call.error or Fault("The revision was let go.", "Send the rows again."))
        else:
            self.finish(PredictResponse(serving.loaded.ref, call.answers, call.ids[0]))

    def finish(self, result: PredictResponse | ClewlineError) -> None:
        """Answer, unless that was done before, and let the revision go."""
        if self.is_answered:
            return
        self._call = None  # it refers to us: without the cycle no garbage is left
        serving, self._serving = self._serving, None  # let go once, even if this is called again
        try:
            super().finish(result)
        finally:
            if serving is not None:
                serving.users -= 1
                if not serving.users:
                    serving.close_when_idle()

    def give_up(self, error: ClewlineError) -> None:
        """Answer with an error now; rows that wait are not computed."""
        if self._call is None or self._serving is None:
            self.finish(error)
        else:
            self._serving.batcher.give_up(self._call, error)

    def _is_over(self) -> bool:
        return self.is_answered or (self._abandoned is not None and self._abandoned())


def _read_error(error: BaseException) -> ClewlineError:
    if isinstance(error, ClewlineError):
        return error
    logger.error("a body could not be read", exc_info=error)
    return Fault("The body could not be read.", "The server's log has the reason.")
