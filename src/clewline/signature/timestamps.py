"""Date-times as the model takes them: microseconds since the epoch, UTC."""

from __future__ import annotations

import datetime as dt

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)


def to_utc(day: dt.date) -> dt.datetime:
    """Return a date's first moment; a date-time without an offset gets UTC's."""
    if not isinstance(day, dt.datetime):
        return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    return day if day.tzinfo else day.replace(tzinfo=dt.UTC)


def to_microseconds(day: dt.date) -> int:
    """
    Count the microseconds from the epoch to a date or date-time.

    >>> to_microseconds(dt.datetime(1970, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))))
    0
    """
    return (to_utc(day) - EPOCH) // MICROSECOND


FIRST_MOMENT = to_microseconds(dt.datetime.min)
LAST_MOMENT = to_microseconds(dt.datetime.max)


def format_microseconds(microseconds: float) -> str:
    """
    Write microseconds since the epoch as RFC 3339; a moment outside the calendar as a number.

    >>> format_microseconds(0)
    '1970-01-01T00:00:00Z'

    Source:
        RFC 3339, section 5.6.
    """
    try:
        moment = EPOCH + int(microseconds) * MICROSECOND
    except OverflowError:
        return f"{microseconds:.0f} µs"
    return moment.isoformat().replace("+00:00", "Z")
