"""What a request to predict gets."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from clewline.errors import ClewlineError


class PredictResponse(msgspec.Struct, frozen=True, gc=False):
    """The revision that answered, and the JSON of each prediction."""

    revision: str
    predictions: list[bytes]
    first_id: bytes


Reply = Callable[[PredictResponse | ClewlineError], None]
"""Called once, on the loop's thread, with the outcome of a request."""
