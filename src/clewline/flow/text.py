"""Text that can be recorded: names of files may be bytes that are no text in UTF-8."""

from __future__ import annotations


def is_text(value: str) -> bool:
    """
    Whether UTF-8 can hold a str.

    >>> is_text("café"), is_text("caf\\udce9")
    (True, False)
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
