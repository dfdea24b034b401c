"""When a request that is traced went through each part, for whoever records spans of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from clewline.serve.graph.row_trace import RowTrace


class RequestTimings(msgspec.Struct, eq=False):
    """Times of `time.perf_counter`, 0 where a request has not come so far."""

    arrived: float = 0.0
    waited: float = 0.0  # until its endpoint was loaded
    begun: float = 0.0  # its first batch
    answered: float = 0.0  # its last batch, and not yet logged
    logged: float = 0.0
    ids: list[bytes] = []  # of its predictions
    trails: list[RowTrace] = []  # how each of its rows went
