"""Sizes as people write them."""

from __future__ import annotations

import re

from clewline.errors import UsageError

UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def in_bytes(text: str) -> int:
    """
    Read a number of bytes.

    >>> in_bytes("1.5GiB")
    1610612736
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmg]ib|)", text.strip().lower())
    if found is None:
        raise UsageError(f"{text!r} is no size.", "Write it as 512MiB or 1.5GiB.")
    return int(float(found[1]) * UNITS[found[2]])
