"""Numbers, times and digests as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")
_LONGEST = 60


def when(time_s: float) -> str:
    """
    Write a moment, to the minute.

    >>> when(0)
    '1970-01-01 00:00 UTC'
    """
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M} UTC"


def duration(seconds: float) -> str:
    """
    Write a span of time.

    >>> duration(0.0123), duration(75), duration(7300)
    ('12 ms', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """
    Write a number of bytes.

    >>> size(0), size(1536)
    ('0 B', '1.5 KiB')
    """
    amount, unit = float(count), 0
    while amount >= 1024 and unit < len(_BYTES) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {_BYTES[unit]}" if unit == 0 else f"{amount:.1f} {_BYTES[unit]}"


def short(digest: str) -> str:
    """Shorten a digest to what tells it apart; it is still found by that."""
    return digest[:12]


def counted(count: int, one: str, many: str | None = None) -> str:
    """
    Write a number of things.

    >>> counted(1, "row"), counted(48842, "row")
    ('1 row', '48,842 rows')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def number(value: float) -> str:
    """
    Write a metric.

    >>> number(0.86231), number(3.0)
    ('0.8623', '3')
    """
    return f"{value:.4g}"


def named(values: Mapping[str, Any], most: int = 6) -> str:
    """
    Write names with their values.

    >>> named({"trees": 100, "depth": None})
    'trees=100, depth=None'
    """
    return some((f"{name}={_value(value)}" for name, value in values.items()), most)


def some(texts: Iterable[str], most: int = 6) -> str:
    """
    Write the first of a list, and how many more there are.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    every = list(texts)
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest


def _value(value: Any) -> str:
    text = number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:20]}…{text[21 - _LONGEST :]}"
