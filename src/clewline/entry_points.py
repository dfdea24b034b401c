"""Plug-ins: objects that installed distributions offer under the entry points of clewline."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from typing import Any

from clewline.errors import NotSupported


@cache  # a scan of all distributions takes milliseconds
def load_entry_point(group: str, name: str) -> Any:
    """
    Load the object that an installed distribution offers under a group and a name.

    Raises:
        NotSupported: No installed distribution offers it; the error lists the offered names.
    """
    found = importlib.metadata.entry_points(group=group, name=name)
    if not found:
        known = ", ".join(names(group)) or "none"
        raise NotSupported(
            f"No installed package offers {name!r} under {group!r}. Installed: {known}.",
            "Install the package that offers it. If it is part of clewline, reinstall clewline.",
        )
    return next(iter(found)).load()


@cache
def names(group: str) -> tuple[str, ...]:
    """List the names that installed distributions offer under a group, sorted."""
    return tuple(sorted(importlib.metadata.entry_points(group=group).names))


def install_command(extra: str) -> str:
    """
    Return the command that installs the libraries of one of our extras.

    It names the libraries themselves, so it works however clewline was installed.

    >>> install_command("client").startswith("pip install 'httpx>=")
    True
    """
    marker = f"; extra == '{extra}'"
    wanted = [
        requirement.removesuffix(marker)
        for requirement in importlib.metadata.requires("clewline") or ()
        if requirement.endswith(marker)
    ]
    return "pip install " + " ".join(f"'{requirement}'" for requirement in wanted)
