"""Numbers that look random and are not: drawn from a row's id or entity, the same every time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

_BYTES = 8
_BITS = 53
"""As many as a float64 between 0 and 1 holds exactly."""


def draws(salt: str, keys: Iterable[bytes]) -> NDArray[np.float64]:
    """Draw a number in (0, 1) for each key, shape (n,); another salt gives other numbers."""
    start = blake3(salt.encode() + b"\0")
    digests = []
    for key in keys:
        digest = start.copy()
        digest.update(key)
        digests.append(digest.digest(_BYTES))
    whole = np.frombuffer(b"".join(digests), dtype="<u8") >> np.uint64(64 - _BITS)
    found: NDArray[np.float64] = (whole.astype(np.float64) + 0.5) / float(1 << _BITS)
    return found
