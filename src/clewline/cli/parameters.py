"""Types of options that several commands share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from clewline import formatting
from clewline.errors import UsageError

Limit: TypeAlias = Annotated[int, Parameter(validator=Number(gte=1, lt=1 << 31))]
Offset: TypeAlias = Annotated[int, Parameter(validator=Number(gte=0, lt=1 << 31))]


def parse_size(text: str) -> int:
    """
    Read a number of bytes.

    Raises:
        UsageError: The text is not a size.

    >>> parse_size("1.5GiB")
    1610612736
    """
    size_bytes = formatting.parse_size(text)
    if size_bytes is None:
        raise UsageError(f"{text!r} is not a size.", "Write it as 512MiB or 1.5GiB.")
    return size_bytes
