"""How much of a list is shown, and from where on."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

Limit: TypeAlias = Annotated[int, Parameter(validator=Number(gte=1, lt=1 << 31))]
Offset: TypeAlias = Annotated[int, Parameter(validator=Number(gte=0, lt=1 << 31))]
