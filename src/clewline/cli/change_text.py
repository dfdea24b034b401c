"""Differences in words, for the commands that compare runs, keys and environments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clewline.store.changes import Change

_BY_CONTENT = ("code", "input", "outputs of step", "file")


def change_text(change: Change) -> str:
    """
    Return one difference in words.

    >>> from clewline.store.changes import Change
    >>> change_text(Change("parameter", "trees", "changed", 100, 200))
    'parameter trees: 100 → 200'
    """
    name = f"{change.part} {change.name}"
    if change.part in ("environment", "key"):
        name = change.name
    if change.kind == "added":
        return f"{name} is new{_value(change.part, change.new)}"
    if change.kind == "removed":
        return f"{name} is gone{_value(change.part, change.old)}"
    if change.part == "package":
        # A key holds the version and a digest of the files, a record the version alone.
        old, new = (str(each).partition(" ")[0] for each in (change.old, change.new))
        return f"{name}: {old} → {new}" if old != new else f"{name} {new} was installed again"
    if change.part in _BY_CONTENT or _is_digest(change.old) or _is_digest(change.new):
        return f"{name} changed"
    return f"{name}: {short(change.old)} → {short(change.new)}"


def short(value: Any) -> str:
    """Return a value as a comparison shows it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _value(part: str, value: Any) -> str:
    if part in _BY_CONTENT or value is True or _is_digest(value):
        return ""
    return f" ({str(value).partition(' ')[0] if part == 'package' else short(value)})"


def _is_digest(value: Any) -> bool:
    """Return whether a value ends in a digest, which means nothing to a person."""
    last = str(value).rpartition(" ")[2]
    return len(last) in (32, 64) and set(last) <= set("0123456789abcdef")
