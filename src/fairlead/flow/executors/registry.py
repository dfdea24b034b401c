"""Executors by name: ours and those of plug-ins, through the same door."""

from __future__ import annotations

from importlib.metadata import entry_points

from fairlead.errors import NotFound
from fairlead.flow.executors.protocol import Executor

GROUP = "fairlead.executors"


def load(name: str) -> Executor:
    """
    Make the executor that an installed package offers under a name.

    Raises:
        NotFound: No installed package offers it.
    """
    if name == "inline":  # the default must not wait for a scan of all distributions
        from fairlead.flow.executors.inline import InlineExecutor

        return InlineExecutor()
    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        names = ", ".join(sorted({"inline", *offered}))
        raise NotFound(f"There is no executor {name!r}.", f"Known are: {names}.")
    made: Executor = offered[name].load()()
    return made
