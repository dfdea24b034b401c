"""Numbers that look random and are not: drawn from a row's id or entity, the same every time."""

from __future__ import annotations

from blake3 import blake3

_BYTES = 8
_UNUSED = 64 - 53
"""Bits beyond those that a float64 between 0 and 1 holds exactly."""
_SCALE = 2.0**-53


class UniformHash:
    """Draws a number for each key; another salt gives other numbers, independent of these."""

    def __init__(self, salt: str) -> None:
        self._start = blake3(salt.encode() + b"\0")

    def of(self, key: bytes) -> float:
        """Draw the number of a key, in (0, 1)."""
        digest = self._start.copy()
        digest.update(key)
        whole = int.from_bytes(digest.digest(_BYTES), "little") >> _UNUSED
        return (whole + 0.5) * _SCALE
