"""The forms that are tried, the fastest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clewline.model.compile import bag, folded, generic, textual
from clewline.model.compile.form import Form
from clewline.model.compile.original import Original
from clewline.signature.columns import Columns

FORMS: tuple[tuple[str, Callable[[Original, Columns], Iterator[Form]]], ...] = (
    (folded.NAME, folded.folded),
    (bag.NAME, bag.bagged),
    (textual.NAME, textual.textual),
    (generic.NAME, generic.generic),
)
"""Name, and what builds the forms of that name from an original and its training rows."""
