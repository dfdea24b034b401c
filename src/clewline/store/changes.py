"""The differences between two mappings, as values: what was added, removed or changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec


class Change(msgspec.Struct, frozen=True):
    """One named thing that differs between an old and a new state."""

    part: str  # what it is: "package", "parameter", "CPU feature"
    name: str
    kind: Literal["added", "removed", "changed"]
    old: Any = None
    new: Any = None


def changes(part: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """
    List the differences between two mappings, those of `old` first.

    >>> [change.kind for change in changes("metric", {"a": 1, "b": 1}, {"b": 2, "c": 1})]
    ['removed', 'changed', 'added']
    """
    found = []
    for name in dict.fromkeys([*old, *new]):
        if name not in new:
            found.append(Change(part, name, "removed", old[name]))
        elif name not in old:
            found.append(Change(part, name, "added", None, new[name]))
        elif old[name] != new[name]:
            found.append(Change(part, name, "changed", old[name], new[name]))
    return found
