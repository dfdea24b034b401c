"""Kinds that installed distributions offer under an entry-point group, found by their names."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from fairlead.errors import NotSupported


@cache  # a scan of all distributions takes milliseconds
def offered(group: str, what: str, name: str) -> Any:
    """
    Find what is offered.

    Args:
        group: The entry-point group.
        what: It offers, for the error: `node`.
        name: Of the kind.

    Raises:
        NotSupported: Nothing that is installed offers it.
    """
    found = entry_points(group=group, name=name)
    if not found:
        known = ", ".join(sorted(entry_points(group=group).names)) or "none"
        raise NotSupported(
            f"There is no kind of {what} called {name!r}; installed: {known}.",
            "Install the package that offers it, or install fairlead again if it is one of ours.",
        )
    return next(iter(found)).load()
