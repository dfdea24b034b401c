"""Types of options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from clewline.errors import UsageError

Limit: TypeAlias = Annotated[int, Parameter(validator=Number(gte=1, lt=1 << 31))]
Offset: TypeAlias = Annotated[int, Parameter(validator=Number(gte=0, lt=1 << 31))]

_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def parse_size(text: str) -> int:
    """
    Read a number of bytes.

    Raises:
        UsageError: The text is not a size.

    >>> parse_size("1.5GiB")
    1610612736
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmg]ib|)", text.strip().lower())
    if found is None:
        raise UsageError(f"{text!r} is not a size.", "Write it as 512MiB or 1.5GiB.")
    return int(float(found[1]) * _UNITS[found[2]])
