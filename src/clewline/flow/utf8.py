"""Check that a string is valid UTF-8: names of files may hold bytes that are not."""

from __future__ import annotations


def is_utf8(value: str) -> bool:
    """
    Return whether UTF-8 can encode a string.

    >>> is_utf8("café"), is_utf8("caf\\udce9")
    (True, False)
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
