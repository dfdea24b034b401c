"""Date-times as the model takes them: microseconds since the epoch, UTC."""

from __future__ import annotations

import datetime as dt

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)


def to_utc(day: dt.date) -> dt.datetime:
    """Give a date its first moment, and a time without offset the offset of UTC."""
    if not isinstance(day, dt.datetime):
        return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    return day if day.tzinfo else day.replace(tzinfo=dt.UTC)


def to_microseconds(day: dt.date) -> int:
    """
    Count the microseconds from the epoch to a `to_utc`.

    >>> micros(dt.datetime(1970, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))))
    0
    """
    return (to_utc(day) - EPOCH) // MICROSECOND


def format_microseconds(microseconds: float) -> str:
    """
    Write microseconds since the epoch as RFC 3339; what no calendar year holds stays a number.

    >>> text(0)
    '1970-01-01T00:00:00Z'
    """
    try:
        to_utc = EPOCH + int(microseconds) * MICROSECOND
    except OverflowError:
        return f"{microseconds:.0f} µs"
    return to_utc.isoformat().replace("+00:00", "Z")
