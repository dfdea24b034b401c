"""Runtimes by name, through the entry-point group `fairlead.runtimes`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from fairlead.errors import NotFound
from fairlead.model.runtime.protocol import Runtime

GROUP = "fairlead.runtimes"


@cache
def load(name: str) -> Runtime:
    """
    Give the runtime of a name.

    Raises:
        NotFound: No installed distribution declares it.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise NotFound(
            f"There is no runtime {name!r} (installed: {', '.join(sorted(found)) or 'none'}).",
            f"Install the distribution that declares it under the entry-point group {GROUP}.",
        )
    runtime: Runtime = found[name].load()()
    return runtime
