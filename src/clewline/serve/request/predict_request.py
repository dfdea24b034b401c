"""A request to predict and its answer, whatever protocol they travel by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from clewline.errors import ClewlineError
from clewline.serve.formats.body_format import JSON

if TYPE_CHECKING:
    from clewline.serve.graph.row_trace import RowTrace


class RequestTimings(msgspec.Struct, eq=False):
    """
    When a traced request passed each stage; a tracer makes spans of it.

    Times of `time.perf_counter`; 0 for a stage that the request has not reached.
    """

    arrived: float = 0.0
    waited: float = 0.0  # until its endpoint was loaded
    begun: float = 0.0  # its first batch
    answered: float = 0.0  # its last batch, which is not logged yet
    logged: float = 0.0
    ids: list[bytes] = []  # of its predictions
    traces: list[RowTrace] = []  # one for each of its rows


class PredictRequest(msgspec.Struct, eq=False):
    """
    One request to predict.

    The log keeps `body`, `format` and `detail`: rows are read from these three alone, now
    and in a replay. The body is decompressed before.
    """

    body: bytes
    format: str = JSON  # a name in `clewline.serve.formats`
    detail: str = ""  # what the format must know beside the body, such as the length of a header
    key: str | None = None  # the caller's idempotency key
    deadline: float = math.inf  # of `time.perf_counter`; rows not begun by then are not computed
    abandoned: Callable[[], bool] | None = None  # returns whether the caller has gone
    trace: Any = None  # the caller's trace context, if it sent one
    timings: RequestTimings | None = None  # set if the request is traced
    tried: bool = False  # the rows were made up to see the answer: statistics leave them out


class PredictResponse(msgspec.Struct, frozen=True, gc=False):
    """The revision that answered, and the JSON of each prediction."""

    revision: str
    predictions: list[bytes]
    first_id: bytes


Reply = Callable[[PredictResponse | ClewlineError], None]
"""Called once, on the loop's thread, with the outcome of a request."""


class RequestTracer(Protocol):
    """Records spans. Called on the loop's thread; never blocks, never raises."""

    def follow(self, endpoint: str, request: PredictRequest, reply: Reply) -> Reply:
        """
        Return a callback to use in place of `reply`.

        Sets the request's timings if the request is sampled.
        """
