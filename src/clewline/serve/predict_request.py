"""What a protocol asks of an endpoint, whatever the wire: bytes, their format, and how long."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from clewline.serve.formats.body_format import JSON
from clewline.serve.metrics.request_timings import RequestTimings


class PredictRequest(msgspec.Struct, eq=False):
    """
    One request to predict.

    `body` is what the log keeps, with `format` and `detail`: rows are read from
    just these three, today and in a replay. Compression is undone before.
    """

    body: bytes
    format: str = JSON  # a name in `clewline.serve.formats`
    detail: str = ""  # what the format must know beside the body, such as the length of a header
    key: str | None = None  # the caller's idempotency key
    deadline: float = math.inf  # of `time.perf_counter`; what is not begun by then is not computed
    abandoned: Callable[[], bool] | None = None  # tells that the caller is gone
    trace: Any = None  # the caller's trace context, for whoever records spans
    timings: RequestTimings | None = None  # of a request of which spans are recorded
