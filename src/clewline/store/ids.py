"""
Ids of predictions and runs.

A prediction id is a UUIDv7 (RFC 9562): 48 bits of milliseconds since the epoch,
then 74 bits that count upwards by random steps inside a millisecond. The ids of
one process sort in the order in which they were made, and nobody guesses the next.
"""

from __future__ import annotations

import os
import secrets
import struct
import threading
import time
from uuid import UUID

from clewline.errors import NotFound

_COUNT = (1 << 74) - 1
_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)
_LOW = (1 << 62) - 1

SPARE_BYTES = 4096
"""How many random bytes are read from the system at once."""
_STEP = struct.Struct("<I")

_lock = threading.Lock()
_spare = b""
_spare_from = 0
_last_ms = 0
_last_count = 0


def prediction_id() -> str:
    """
    Make one prediction id.

    >>> prediction_id() < prediction_id()
    True
    """
    return id_text(prediction_ids(1)[0])


def prediction_ids(count: int) -> list[bytes]:
    """Make `count` prediction ids of 16 bytes each, ascending, all after every earlier one."""
    global _last_ms, _last_count
    with _lock:
        steps = _STEP.unpack(_random(4)) if count == 1 else _steps(count)
        now = time.time_ns() // 1_000_000
        if now > _last_ms:
            _last_ms, _last_count = now, _fresh_count()
        first_ms, first_count = _last_ms, _last_count
        ids = [_bytes(first_ms, first_count := first_count + step + 1) for step in steps]
        _last_count = first_count
        if _last_count > _COUNT - (1 << 60):
            # A count about to run out borrows from the next millisecond (RFC 9562, 6.2).
            _last_ms, _last_count = _last_ms + 1, _fresh_count()
    return ids


def _steps(count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}I", _random(4 * count))


def _random(size: int) -> bytes:
    """Return random bytes, each once; every read from the system costs a microsecond."""
    global _spare, _spare_from
    start, _spare_from = _spare_from, _spare_from + size
    if _spare_from > len(_spare):
        _spare, start, _spare_from = os.urandom(max(size, SPARE_BYTES)), 0, size
    return _spare[start:_spare_from]


def _forget_spare() -> None:
    """Forget the random bytes after a fork: the parent uses them."""
    global _spare
    _spare = b""


def id_text(data: bytes) -> str:
    """Write 16 bytes as an id: `0199…-…`."""
    text = data.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def id_bytes(text: str) -> bytes:
    """
    Read an id as its 16 bytes.

    Raises:
        NotFound: The text is not a prediction id.
    """
    try:
        return UUID(text).bytes
    except ValueError as error:
        raise NotFound(
            f"{text!r} is not a prediction id.",
            "An id looks like 01990c4e-2b7a-7c31-9f0e-5a4d3c2b1a09; "
            "`clewline predictions list` shows the latest.",
        ) from error


def id_time_s(identifier: str | bytes) -> float:
    """Return when an id was made, in seconds since the epoch, to the millisecond."""
    data = id_bytes(identifier) if isinstance(identifier, str) else identifier
    return int.from_bytes(data[:6], "big") / 1000


def run_id() -> str:
    """Make the id of a run: 12 random lower-case hexadecimal characters."""
    return secrets.token_hex(6)


def _fresh_count() -> int:
    """A random start in the lower half, so that the count has room to grow."""
    return int.from_bytes(_random(10), "big") >> 7


def _bytes(ms: int, count: int) -> bytes:
    high, low = count >> 62, count & _LOW
    return ((ms << 80) | _VERSION_AND_VARIANT | (high << 64) | low).to_bytes(16, "big")


os.register_at_fork(after_in_child=_forget_spare)
