"""Plug-ins: objects that installed distributions offer under the entry points of clewline."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
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

    >>> " install " in install_command("client") and "'httpx>=" in install_command("client")
    True
    """
    marker = f"; extra == '{extra}'"
    wanted = [
        requirement.removesuffix(marker)
        for requirement in importlib.metadata.requires("clewline") or ()
        if requirement.endswith(marker)
    ]
    return install_line(wanted)


def install_line(requirements: Iterable[str]) -> str:
    """
    Return the command that installs requirements into this environment.

    Environments of uv have no pip, and the `pip` on the path may be of another environment.
    """
    python = shlex.quote(sys.executable)
    by = f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"
    return " ".join([by, *(f"'{requirement}'" for requirement in requirements)])
