"""Numbers, times, sizes and lists as text for people; for messages and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_SIZES = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 60  # characters of a value


def format_time(time_s: float) -> str:
    """
    Format seconds since the epoch, to the minute.

    >>> format_time(0)
    '1970-01-01 00:00 UTC'
    """
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M} UTC"


def format_time_ms(time_s: float) -> str:
    """
    Format seconds since the epoch, to the millisecond.

    >>> format_time_ms(0.5)
    '1970-01-01 00:00:00.500 UTC'
    """
    text = datetime.fromtimestamp(time_s, UTC).isoformat(" ", "milliseconds")
    return f"{text.removesuffix('+00:00')} UTC"


def format_duration(seconds: float) -> str:
    """
    Format a span of time.

    >>> format_duration(0.0123), format_duration(75), format_duration(7300)
    ('12 ms', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_size(size_bytes: int) -> str:
    """
    Format a number of bytes.

    >>> format_size(0), format_size(1536)
    ('0 B', '1.5 KiB')
    """
    amount, unit = float(size_bytes), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def short_digest(digest: str) -> str:
    """Shorten a digest; a reference by these characters is still found."""
    return digest[:12]


def format_count(count: int, one: str, many: str | None = None) -> str:
    """
    Format a number of things.

    >>> format_count(1, "row"), format_count(48842, "row")
    ('1 row', '48,842 rows')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def format_number(value: float) -> str:
    """
    Format a metric.

    >>> format_number(0.86231), format_number(3.0)
    ('0.8623', '3')
    """
    return f"{value:.4g}"


def format_values(values: Mapping[str, Any], most: int = 6) -> str:
    """
    Format names with their values.

    >>> format_values({"trees": 100, "depth": None})
    'trees=100, depth=None'
    """
    return format_list((f"{name}={_value(value)}" for name, value in values.items()), most)


def format_list(texts: Iterable[str], most: int = 6) -> str:
    """
    Format the first of a list, and how many more there are.

    >>> format_list(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    every = list(texts)
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest


def _value(value: Any) -> str:
    text = format_number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:20]}…{text[21 - _LONGEST :]}"


def parse_size(text: str) -> int | None:
    """
    Read a number of bytes; None if the text is no size.

    >>> parse_size("1.5GiB"), parse_size("much")
    (1610612736, None)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmg]ib|)", text.strip().lower())
    return int(float(found[1]) * _SIZES[found[2]]) if found else None


def parse_duration(text: str) -> float | None:
    """
    Read a span of time with its unit, in seconds; None if the text is none.

    >>> parse_duration("500ms"), parse_duration("24h"), parse_duration("5")
    (0.5, 86400.0, None)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    return float(found[1]) * _SECONDS[found[2]] if found else None


def parse_moment(text: str, now_s: float) -> float | None:
    """
    Read a moment: a date, a date with a time (UTC unless it says), or a span before now.

    Args:
        text: Such as `2026-11-30`, `2026-11-30T12:00Z` or `24h`.
        now_s: Now, in seconds since the epoch.

    Returns:
        Seconds since the epoch; None if the text is no moment.

    >>> parse_moment("1970-01-02", 0.0), parse_moment("1h", 7_200.0), parse_moment("soon", 0.0)
    (86400.0, 3600.0, None)
    """
    span = parse_duration(text)
    if span is not None:
        return now_s - span
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
