"""When a traced request passed each stage. A tracer makes spans of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from clewline.serve.graph.row_trace import RowTrace


class RequestTimings(msgspec.Struct, eq=False):
    """Times of `time.perf_counter`; 0 for a stage that the request has not reached."""

    arrived: float = 0.0
    waited: float = 0.0  # until its endpoint was loaded
    begun: float = 0.0  # its first batch
    answered: float = 0.0  # its last batch, which is not logged yet
    logged: float = 0.0
    ids: list[bytes] = []  # of its predictions
    traces: list[RowTrace] = []  # one for each of its rows
