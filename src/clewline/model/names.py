"""Names of models and aliases, and the texts that mean a version: `income@3`, `income@champion`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from clewline.errors import UsageError

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

MOST_DIGITS = 16
"""A longer number is none of a version, and more than the catalog can be asked for."""


def require_model_name(name: str) -> None:
    """
    Refuse what cannot name a model.

    Raises:
        UsageError: It is not letters, digits, `_` and `-`.
    """
    if not _MODEL.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a model.",
            "Use up to 64 letters, digits, '-' and '_', beginning with a letter or digit.",
        )


def require_alias_name(alias: str) -> None:
    """
    Refuse what cannot be an alias; a number alone means a version.

    Raises:
        UsageError: It is not a letter and then letters, digits, `_` and `-`.
    """
    if not _ALIAS.fullmatch(alias):
        raise UsageError(
            f"{alias!r} cannot be an alias.",
            "Use up to 64 letters, digits, '-' and '_', beginning with a letter: champion.",
        )


def split(ref: str) -> tuple[str, int | str | None]:
    """
    Take a ref apart.

    >>> split("income@3"), split("income@champion"), split("income")
    (('income', 3), ('income', 'champion'), ('income', None))
    """
    name, at, which = ref.partition("@")
    if not name or (at and not which):
        raise UsageError(f"{ref!r} names no version.", "Write NAME@NUMBER or NAME@ALIAS.")
    is_number = which.isdecimal() and which.isascii() and len(which) < MOST_DIGITS
    return name, (int(which) if is_number else which or None)


def nearest(wanted: str, known: Iterable[str]) -> str:
    """Say what may have been meant, or what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(wanted, names, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known: {', '.join(names[:10])}." if names else "There is none yet."
