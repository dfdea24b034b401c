"""A request to predict and its answer, whatever protocol they travel by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from clewline.errors import ClewlineError
from clewline.serve.formats.body_format import JSON
from clewline.serve.metrics.request_timings import RequestTimings


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


class PredictResponse(msgspec.Struct, frozen=True, gc=False):
    """The revision that answered, and the JSON of each prediction."""

    revision: str
    predictions: list[bytes]
    first_id: bytes


Reply = Callable[[PredictResponse | ClewlineError], None]
"""Called once, on the loop's thread, with the outcome of a request."""
