"""Rows as the arrays that a model takes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Columns:
    """
    Checked rows, one entry a row in every array.

    Numbers hold null as NaN, booleans as 0.0 and 1.0, datetimes as microseconds
    since the epoch, UTC. Texts hold null as None.
    """

    numbers: NDArray[np.float64]  # shape (n, number of numeric fields), C order
    texts: NDArray[np.object_]  # shape (n, number of textual fields), str or None
    tensors: dict[str, NDArray[np.generic]] = field(default_factory=dict)  # name → (n, *shape)

    def __len__(self) -> int:
        return len(self.numbers)
